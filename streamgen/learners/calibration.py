"""From a model's surprise to a p-value, per key and online.

The p-value of a record is the share of the key's recent records that were at least as surprising: exactly
valid for exchangeable surprises whatever the model (Vovk et al. 2005, conformal prediction), with a memory
of `MEMORY` records so that it follows a model that learns. Beyond the largest surprise in memory the rank
would stop at 1/(n+1); a generalised Pareto tail fitted to the upper tenth (probability-weighted moments,
Hosking & Wallis 1987) goes on from there:

    p = (1 + #{s_i ≥ s}) / (n + 1) · S((s − max) / β′)            S = 1 for s ≤ max
    S(y) = (1 + ξ y)^(−1/ξ),  β′ = β + ξ (max − u)                threshold stability of the GPD

For an exponential tail this is exact for every level when averaged over the memory:
E[exp(−max − y)] = exp(−y) / (n + 1).

Exceeding surprises enter the memory too: ranks are robust to them. N records; W the memory's length.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats, Ints

MEMORY = 2048  # 1/2049 < 0.001: ranks alone reach one in a thousand
REFIT = 64  # records between fits of the tail
TAIL = 0.1  # share of the memory that the tail is fitted to
MIN_P = 1e-300


class Calibration:
    """Ranks surprises against their key's own recent ones."""

    FIELDS: ClassVar = {
        "calibration_memory_W": Field((MEMORY,), dtype="float32"),
        "calibration_count": Field(dtype="int64"),  # records ranked so far
        "calibration_tail": Field((3,)),  # threshold u, shape ξ, scale β of the fitted tail
    }

    def rank(self, slab: Slab, row_N: Ints, surprise_N: Floats, learn_N: Bools) -> tuple[Floats, Ints]:
        """p-value of each record (1 where the surprise is NaN), and how many records it was ranked against.

        Each record is ranked before it enters its key's memory; records whose `learn_N` is False, and NaN,
        do not enter.
        """
        p_N = np.ones(len(row_N))
        ranked_N = np.zeros(len(row_N), dtype=np.int64)
        memory, counts = slab.host("calibration_memory_W"), slab.host("calibration_count")
        tails = slab.host("calibration_tail")
        # float32, as the memory: a surprise must compare equal to itself.
        surprises = surprise_N.astype(np.float32).tolist()
        for n, (row, surprise, learn) in enumerate(
            zip(row_N.tolist(), surprises, learn_N.tolist(), strict=True)
        ):
            count = int(counts[row])
            ranked_N[n] = count
            if math.isnan(surprise):
                continue
            filled = min(count, MEMORY)
            known_W = memory[row, :filled]
            p = (1 + int(np.count_nonzero(known_W >= surprise))) / (filled + 1)
            if filled and p * (filled + 1) == 1:
                p *= _beyond(surprise, float(known_W.max()), *tails[row].tolist())
            p_N[n] = max(p, MIN_P)
            if learn:
                memory[row, count % MEMORY] = surprise
                counts[row] = count + 1
                if (count + 1) % REFIT == 0:
                    tails[row] = fit_tail(memory[row, : min(count + 1, MEMORY)])
        return p_N, ranked_N


def fit_tail(surprise_W: NDArray[np.float32]) -> tuple[float, float, float]:
    """Threshold u, shape ξ ≥ 0 and scale β of the generalised Pareto tail of the upper tenth.

    Probability-weighted moments: a0 = E[y], a1 = E[y (1 − F(y))], ξ = 2 − a0 / (a0 − 2 a1),
    β = 2 a0 a1 / (a0 − 2 a1). The shape is held to 0 … 0.9: a negative one would end the tail at a largest
    surprise and call all beyond it impossible, and the moments do not exist from 1 on.
    """
    ordered = np.sort(surprise_W.astype(np.float64))
    k = max(int(TAIL * len(ordered)), 2)
    u, excess_k = float(ordered[-k - 1]), ordered[-k:] - ordered[-k - 1]
    a0 = float(excess_k.mean())
    a1 = float((excess_k * (k - np.arange(1, k + 1) + 0.35) / k).mean())
    if a0 <= 0:
        return u, 0.0, 0.0
    # For ξ = 0 the scale is the mean excess.
    shape = 2.0 - a0 / (a0 - 2.0 * a1) if a0 > 2.0 * a1 else 0.0
    shape = min(max(shape, 0.0), 0.9)
    return u, shape, a0 * (1.0 - shape)


def _beyond(surprise: float, largest: float, u: float, shape: float, scale: float) -> float:
    """P(S ≥ surprise | S ≥ largest) by the fitted tail; 1 where there is no tail to speak of."""
    at_largest = scale + shape * max(largest - u, 0.0)
    if at_largest <= 0.0:
        return 1.0
    y = (surprise - largest) / at_largest
    return math.exp(-y) if shape == 0.0 else (1.0 + shape * y) ** (-1.0 / shape)
