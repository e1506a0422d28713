"""From a model's surprises to one p-value, per key and online.

The p-value of a surprise is the share of the key's recent ones that were at least as large: exactly valid
for exchangeable surprises whatever the model (Vovk et al. 2005, conformal prediction), with a memory of
`MEMORY` records so that it follows a model that learns. In the upper tenth it is interpolated between the two
ranks that the surprise lies between, in place of conformal prediction's random tie-breaking: equal ranks in
streams of different length would otherwise tie. Beyond the largest surprise in memory the rank would stop at
1/(n+1); a generalised Pareto tail fitted to the upper tenth (probability-weighted moments, Hosking & Wallis
1987) goes on from there:

    p = (1 + #{s_i ≥ s}) / (n + 1) · S((s − max) / β′)            S = 1 for s ≤ max
    S(y) = (1 + ξ y)^(−1/ξ),  β′ = β + ξ (max − u)                threshold stability of the GPD

For an exponential tail this is exact for every level when averaged over the memory:
E[exp(−max − y)] = exp(−y) / (n + 1).

A model that asks several questions of a record (is it strange after the one before? is it strange for this
stream at all?) gives several surprises. Their p-values are combined by Fisher's statistic −Σ log p, which is
ranked against its own memory in turn: the questions need not be independent.

Exceeding surprises enter the memory too: ranks are robust to them. With caution those of an incident, records
of p ≤ `CAUTION_P` in a row, enter it at its end, or when there are `PATIENCE` of them: an incident does not
become normal within itself, and what goes on for longer is the new normal, as it has its share of the memory.

N records; S surprises a record; W the memory's length; R = S + 1 memories (1 where S = 1); Q = `PATIENCE`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats, Ints

MEMORY = 4096  # ranks alone reach one in 4,097
REFIT = 64  # records between fits of the tail
TAIL = 0.1  # share of the memory that the tail is fitted to
MIN_P = 1e-300
CAUTION_P = 1e-3
PATIENCE = 256  # records of an incident
SETTLED = 256  # records ranked before there is an incident


class Calibration:
    """Ranks a key's surprises against its own recent ones."""

    def __init__(self, surprises: int, cautious: bool = False) -> None:
        self._S, self._cautious = surprises, cautious
        self._R = 1 if surprises == 1 else surprises + 1

    def fields(self) -> dict[str, Field]:
        """The memories, how many records were ranked, and u, ξ, β of each fitted tail; the incident."""
        incident = {
            "calibration_held_RQ": Field((self._R, PATIENCE), dtype="float32"),
            "calibration_holding": Field(dtype="int64"),
        }
        return {
            "calibration_memory_RW": Field((self._R, MEMORY), dtype="float32"),
            "calibration_count": Field(dtype="int64"),
            "calibration_tail_R3": Field((self._R, 3)),
            **(incident if self._cautious else {}),
        }

    def rank(self, slab: Slab, row_N: Ints, surprise_NS: Floats, learn_N: Bools) -> tuple[Floats, Ints]:
        """p-value of each record (1 where a surprise is NaN), and how many records it was ranked against.

        Each record is ranked before it enters its key's memory; records whose `learn_N` is False, and NaN,
        do not enter.
        """
        p_N = np.ones(len(row_N))
        ranked_N = np.zeros(len(row_N), dtype=np.int64)
        for n, (row, learn) in enumerate(zip(row_N.tolist(), learn_N.tolist(), strict=True)):
            p_N[n], ranked_N[n], _ = self.rank_one(slab, row, surprise_NS[n], learn)
        return p_N, ranked_N

    def rank_one(self, slab: Slab, row: int, surprise_S: Floats, learn: bool) -> tuple[float, int, bool]:
        """As `rank`, one record; and whether it is one of an incident (never without caution)."""
        memory_RW, tail_R3 = slab.host("calibration_memory_RW")[row], slab.host("calibration_tail_R3")[row]
        count = int(slab.host("calibration_count")[row])
        if np.isnan(surprise_S).any():
            return 1.0, count, False
        filled = min(count, MEMORY)
        # float32, as the memory: a surprise must compare equal to itself.
        ranked_R: list[float] = surprise_S.astype(np.float32).tolist()
        p_R = [self._p(memory_RW[r], filled, s, tail_R3[r]) for r, s in enumerate(ranked_R)]
        if self._S > 1:
            fisher = float(np.float32(-sum(math.log(p) for p in p_R)))
            ranked_R.append(fisher)
            p_R.append(self._p(memory_RW[self._S], filled, fisher, tail_R3[self._S]))
        incident = self._cautious and count >= SETTLED and p_R[-1] <= CAUTION_P
        if learn and not incident:
            self._release(slab, row)
            self._remember(slab, row, ranked_R)
        elif learn:
            holding = int(slab.host("calibration_holding")[row])
            slab.host("calibration_held_RQ")[row, :, holding] = ranked_R
            slab.host("calibration_holding")[row] = holding + 1
            if holding + 1 == PATIENCE:
                self._release(slab, row)
                incident = False
        return p_R[-1], count, incident

    def _release(self, slab: Slab, row: int) -> None:
        """The incident is over: it enters the memory."""
        if not self._cautious:
            return
        held_RQ = slab.host("calibration_held_RQ")[row]
        for q in range(int(slab.host("calibration_holding")[row])):
            self._remember(slab, row, held_RQ[:, q])
        slab.host("calibration_holding")[row] = 0

    def _remember(self, slab: Slab, row: int, ranked_R: ArrayLike) -> None:
        memory_RW, counts = slab.host("calibration_memory_RW")[row], slab.host("calibration_count")
        count = int(counts[row])
        memory_RW[:, count % MEMORY] = ranked_R
        counts[row] = count + 1
        if (count + 1) % REFIT == 0:
            for r in range(self._R):
                slab.host("calibration_tail_R3")[row, r] = fit_tail(memory_RW[r, : min(count + 1, MEMORY)])

    @staticmethod
    def _p(memory_W: NDArray[np.float32], filled: int, surprise: float, tail_3: Floats) -> float:
        if filled == 0:
            return 1.0
        known_W = memory_W[:filled]
        reached_W = known_W >= surprise
        above = int(np.count_nonzero(reached_W))
        if above == 0:
            return max(_beyond(surprise, float(known_W.max()), *tail_3.tolist()) / (filled + 1), MIN_P)
        if above > TAIL * filled:
            return (1 + above) / (filled + 1)
        lower, upper = float(known_W[~reached_W].max()), float(known_W[reached_W].min())
        return (1 + above - (surprise - lower) / (upper - lower)) / (filled + 1)


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
