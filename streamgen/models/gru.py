"""GRU layers whose weights lie in a learner's flat vector (Cho et al. 2014, in torch's form).

Where there is more than one, each reads the states of the one below. The states of all lie side by side, the
first layer's first, so that a state is one vector however many layers there are.

Shapes: B sequences of T records, I inputs, H hidden units of a layer, G = 3H gates, S = layers × H.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from streamgen.models.flat import Shapes


def gru_shapes(name: str, inputs: int, hidden: int, layers: int = 1) -> Shapes:
    """Their parameters: matrices have the inputs last, as torch's."""
    G = 3 * hidden
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        one = layer_name(name, layer)
        shapes[f"{one}_GI"] = (G, inputs if layer == 0 else hidden)
        shapes[f"{one}_GH"] = (G, hidden)
        shapes[f"{one}_input_bias_G"] = shapes[f"{one}_hidden_bias_G"] = (G,)
    return shapes


def layer_name(name: str, layer: int) -> str:
    """What the parameters of a layer are called by, from 0."""
    return name if layer == 0 else f"{name}{layer + 1}"


def gru(w: Mapping[str, Tensor], name: str, input_BTI: Tensor, state_BS: Tensor) -> Tensor:
    """The states after each of T records, [B, T, S]."""
    parts = []
    for layer, state_BH in enumerate(torch.split(state_BS, w[f"{name}_GH"].shape[1], 1)):
        one = layer_name(name, layer)
        weights = [w[f"{one}_{kind}"] for kind in ("GI", "GH", "input_bias_G", "hidden_bias_G")]
        # cuDNN's GRU warns unless all weights lie in a piece of its own: on a GPU, torch's is used.
        with torch.backends.cudnn.flags(enabled=False):
            # True: has biases; one layer, no dropout, not torch's training mode, one direction, batch first.
            (input_BTI, _) = torch.gru(
                input_BTI, state_BH.unsqueeze(0), weights, True, 1, 0.0, False, False, True
            )
        parts.append(input_BTI)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)
