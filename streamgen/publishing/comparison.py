"""Do sequences look like what then came? The live figure of quality, for every key that is asked to continue.

Of sequences that go on from now, one is kept until the stream has gone on as far itself: a pair of windows,
both of the same moment. Were the model right, nobody could say which of the two is the generated one, and
swapping them would change nothing. So the energy distance (Székely & Rizzo 2013) between the generated and
the real windows of the last pairs,

    2 E|g − r| − E|g − g'| − E|r − r'|

stands beside what it becomes when each pair is swapped or not at random; the 99 % quantile of that is what
chance gives. So streams may wander, and a model may be asked hundreds of times at one moment: the next pair
of a key begins after the last one ended. No window is compared with its own partner.

A window is a point: its levels and its steps, each column in the deviation of all windows. Without steps, a
shuffled window would hardly be further away than another one. Distances are divided by four times the mean of
all, so that 1 is as far apart as can be; on average a right model has 0.

The cost, each time that a pair is complete: a product of a [2N, F] matrix with itself and one of [500, N]
with [N, N], three milliseconds for 64 pairs of 32 records with 6 columns.

Shapes: N pairs, J records, D features, F = 2JD − D values of a point.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from streamgen.records import Bools, Columns, Floats

PAIRS = 64  # the last of a key
FEWEST = 16  # with which there is a figure
RECORDS = 32  # of a sequence that are compared, its first
POOLS = 64  # keys (and lengths) of a partition: those asked last
SWAPS = 500
CHANCE = 0.99


class Distance(NamedTuple):
    """The distance, and what chance gives in all but one of a hundred cases; NaN: too few pairs."""

    value: float
    chance: float


NONE = Distance(float("nan"), float("nan"))


@dataclass(slots=True)
class _Waiting:
    """A sequence whose real records still come: those at `next_offset` and later, and no older ones."""

    generated_JD: Floats
    next_offset: int
    newest_ms: int
    late: int = 0
    real: list[Floats] = field(default_factory=list)

    def take(self, offset: int, time_ms: int, value_D: Floats) -> None:
        if offset < self.next_offset:
            return
        self.next_offset = offset + 1
        if time_ms < self.newest_ms:  # a generated sequence has no late records
            self.late += 1
            return
        self.newest_ms = time_ms
        self.real.append(value_D.copy())


@dataclass(slots=True)
class _Pool:
    """One key's pairs of one length."""

    waiting: _Waiting | None = None
    generated: deque[Floats] = field(default_factory=lambda: deque(maxlen=PAIRS))
    real: deque[Floats] = field(default_factory=lambda: deque(maxlen=PAIRS))
    distance: Distance = NONE


class Comparison:
    """The pairs of one partition's keys."""

    def __init__(self) -> None:
        self._pools: OrderedDict[tuple[str | None, int], _Pool] = OrderedDict()
        self._end = 0  # after what was fed
        self.compared = 0  # pairs that were ever complete

    def watch(self, key: str | None, next_offset: int, newest_ms: int, generated_TD: Floats) -> None:
        """A sequence that goes on from the key's newest record, of the time `newest_ms`; what comes at
        `next_offset` or later is its future. It is left out while an earlier one of the key waits."""
        generated_JD = np.array(generated_TD[:RECORDS])
        name = key, len(generated_JD)
        pool = self._pools.setdefault(name, _Pool())
        self._pools.move_to_end(name)
        if len(self._pools) > POOLS:
            self._pools.popitem(last=False)
        if pool.waiting is None:
            pool.waiting = _Waiting(generated_JD, next_offset, newest_ms)

    def feed(self, columns: Columns) -> None:
        """What the partition got, in its order; the same again changes nothing."""
        if len(columns):
            self._end = max(self._end, int(columns.offset_N[-1]) + 1)
        waiting: dict[str | None, list[_Pool]] = {}
        for (key, _), pool in self._pools.items():
            if pool.waiting is not None:
                waiting.setdefault(key, []).append(pool)
        for n in [n for n, key in enumerate(columns.key) if key in waiting]:
            for pool in waiting[columns.key[n]]:
                if pool.waiting is not None:
                    offset, time_ms = int(columns.offset_N[n]), int(columns.timestamp_N[n])
                    pool.waiting.take(offset, time_ms, columns.value_ND[n])
                    self._complete(pool, pool.waiting)

    def begin(self, offset: int) -> None:
        """What is fed next begins there: whoever waits for records in between waits in vain."""
        if offset > self._end:
            for pool in self._pools.values():
                pool.waiting = None

    def clear(self) -> None:
        """What the pairs were of is no more."""
        self._pools.clear()
        self._end = 0

    @property
    def distance(self) -> Distance:
        """Means over the keys that have enough pairs."""
        known = [pool.distance for pool in self._pools.values() if len(pool.real) >= FEWEST]
        return Distance(*np.mean(known, axis=0).tolist()) if known else NONE

    def _complete(self, pool: _Pool, one: _Waiting) -> None:
        length = len(one.generated_JD)
        if one.late >= length:  # the key's clock was set back
            pool.waiting = None
        if len(one.real) < length:
            return
        pool.waiting = None
        real_JD = np.array(one.real)
        there_JD = ~np.isnan(real_JD)
        # What is missing has the last value before it, in both, so that neither is known by that.
        pool.generated.append(_filled(one.generated_JD, there_JD))
        pool.real.append(_filled(real_JD, there_JD))
        self.compared += 1
        if len(pool.real) >= FEWEST:
            pool.distance = distance(np.array(pool.generated), np.array(pool.real))


def distance(generated_NJD: Floats, real_NJD: Floats) -> Distance:
    """Of N pairs."""
    N = len(real_NJD)
    point_MF = _points(np.concatenate([generated_NJD, real_NJD]))
    square_M = (point_MF**2).sum(axis=1)
    square_MM = square_M[:, None] + square_M - 2.0 * point_MF @ point_MF.T
    apart_MM = np.sqrt(np.maximum(square_MM, 0.0))
    gg_NN, rr_NN, gr_NN = apart_MM[:N, :N], apart_MM[N:, N:], apart_MM[:N, N:]
    between_NN, within_NN = gr_NN + gr_NN.T, gg_NN + rr_NN
    others_NN = ~np.eye(N, dtype=np.bool_)
    # Swapping one pair of i and j makes between within: it turns the sign of what i and j contribute.
    signed_NN = np.where(others_NN, between_NN - within_NN, 0.0)
    scale = float((between_NN + within_NN)[others_NN].sum())
    if scale == 0:  # nothing ever moved, and so it was generated
        return Distance(0.0, 0.0)
    swap_SN = np.random.default_rng(0).choice([-1.0, 1.0], (SWAPS, N))
    swapped_S = ((swap_SN @ signed_NN) * swap_SN).sum(axis=1) / scale
    return Distance(float(signed_NN.sum() / scale), float(np.quantile(swapped_S, CHANCE)))


def _points(window_MJD: Floats) -> Floats:
    """[M, F] levels and steps, each column in its own deviation."""
    parts = []
    for part in (window_MJD, np.diff(window_MJD, axis=1)):
        away = part - part.mean(axis=(0, 1)) if part.size else part
        # Of the largest first, so that no square overflows.
        most_D = np.abs(away).max(axis=(0, 1), initial=0.0)
        away = away / np.where(most_D > 0, most_D, 1.0)
        unit_D = np.sqrt((away**2).mean(axis=(0, 1))) if part.size else 1.0
        parts.append((away / np.where(unit_D > 0, unit_D, 1.0)).reshape(len(part), -1))
    return np.concatenate(parts, axis=1)


def _filled(window_JD: Floats, there_JD: Bools) -> Floats:
    """The values that are there, each kept until the next one, the first one from the beginning; 0 in a
    column that has none."""
    index_JD = np.maximum.accumulate(np.where(there_JD, np.arange(len(window_JD))[:, None], -1), axis=0)
    index_JD = np.where(index_JD < 0, there_JD.argmax(axis=0), index_JD)
    return np.where(there_JD.any(axis=0), np.take_along_axis(window_JD, index_JD, 0), 0.0)
