"""What a dense layer applies to its sums. (The gates of a GRU are its own.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, silu

Activation = Literal["tanh", "relu", "leaky_relu", "silu"]

# leaky_relu: slope 0.01 below zero, Maas et al. 2013; silu: Elfwing et al. 2018.
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": leaky_relu,
    "silu": silu,
}
