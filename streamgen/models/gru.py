"""A GRU layer whose weights lie in a learner's flat vector (Cho et al. 2014, in torch's form).

Shapes: B sequences of T records, I inputs, H hidden units, G = 3H gates.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from streamgen.models.flat import Shapes


def gru_shapes(name: str, inputs: int, hidden: int) -> Shapes:
    """Its parameters: matrices have the inputs last, as torch's."""
    G = 3 * hidden
    return {
        f"{name}_GI": (G, inputs),
        f"{name}_GH": (G, hidden),
        f"{name}_input_bias_G": (G,),
        f"{name}_hidden_bias_G": (G,),
    }


def gru(w: Mapping[str, Tensor], name: str, input_BTI: Tensor, state_BH: Tensor) -> Tensor:
    """The states after each of T records, [B, T, H]."""
    weights = [w[f"{name}_{kind}"] for kind in ("GI", "GH", "input_bias_G", "hidden_bias_G")]
    # cuDNN's GRU warns unless all weights lie in a piece of its own: on a GPU, torch's is used.
    with torch.backends.cudnn.flags(enabled=False):
        # True: has biases; one layer, no dropout, not torch's training mode, one direction, batch first.
        return torch.gru(input_BTI, state_BH.unsqueeze(0), weights, True, 1, 0.0, False, False, True)[0]
