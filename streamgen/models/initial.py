"""The weights that a network of `gru` layers and `mixture_t` heads begins with.

The kind of a parameter is told by its name: biases, `skip_…` (added to what the network says), layers of a
GRU (`…_GI`, `…_GH`), what a mixture is made of (`…_HO` and its bias `…_bias_O`), and matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamgen.models import joint
from streamgen.models.flat import Shapes, flat_views


def initial(shapes: Shapes, hidden: int, components: int, drawn_P: Tensor) -> Tensor:
    """Weights from numbers uniform in ±1, in place: divided by the root of the number of inputs (of the GRU
    by that of hidden units, as torch has it), a tenth of it before a mixture, biases and skips zero. A
    mixture's components begin with scales from e⁻¹·⁵ to e, for equal ones would stay equal."""
    w = flat_views(shapes, drawn_P)
    for name, view in w.items():
        if "bias" in name or name.startswith("skip_"):
            view.zero_()
        else:
            view.div_((hidden if name.endswith(("_GI", "_GH")) else view.shape[0]) ** 0.5)
    K = components
    for name in [name for name in w if name.endswith("_HO")]:
        w[name].mul_(0.1)
        if name == "joint_HO":
            joint.begin(w)
            continue
        bias_O = w[f"{name.removesuffix('_HO')}_bias_O"]
        D = (len(bias_O) // K - 1) // 2
        bias_O[K + K * D :].view(K, D).add_(torch.linspace(-1.5, 1.0, K)[:, None])
    return drawn_P
