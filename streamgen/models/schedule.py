"""How an optimiser's step size changes with the number of updates."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "warmup", "inverse_sqrt", "cosine"]


def share(schedule: Schedule, update: int, warm_up: int, steps: int = 1) -> float:
    """The share of the largest step size that the `update`-th update has, from 1.

    `warmup` grows to it in `warm_up` updates. `inverse_sqrt` falls from there on (Vaswani et al. 2017),
    `cosine` to nothing at `steps` (Loshchilov & Hutter 2017), which only a training in batch knows.
    """
    ramp = update / warm_up
    if schedule == "constant":
        return 1.0
    if schedule == "inverse_sqrt":
        return min(ramp, 1.0 / math.sqrt(ramp))
    left = 0.5 * (1.0 + math.cos(math.pi * min(1.0, update / steps))) if schedule == "cosine" else 1.0
    return left * min(1.0, ramp)
