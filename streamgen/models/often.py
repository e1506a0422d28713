"""The value that a feature has again and again: a sensor at rest, a day of no sale, full sight.

Candidates and their counts by the algorithm of Misra & Gries 1982 ("Finding repeated elements"): a value that
is no candidate takes a place that is free, or one off all counts. With K places a value that is more than
N / (K + 1) of N is among the candidates, its count too low by N / (K + 1) at most. Values are compared
exactly, as they came.

D features, K places; values are float64 in input units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streamgen.models.slab import Field, Slab
from streamgen.records import Floats, Ints

PLACES = 8
SHARE = 8  # a value that is one of so many is the usual one
ENOUGH = 64  # values that tell a share


def fields(D: int) -> dict[str, Field]:
    """Candidates, their counts, and the number of values."""
    return {
        "often_KD": Field((PLACES, D), fill=np.nan),
        "often_count_KD": Field((PLACES, D), dtype="int64"),
        "often_seen_D": Field((D,), dtype="int64"),
    }


class Often(NamedTuple):
    """One learner's, as it stands: views of its row."""

    value_KD: Floats
    count_KD: Ints
    seen_D: Ints

    @classmethod
    def of(cls, slab: Slab, row: int) -> Often:
        return cls(*(slab.host(name)[row] for name in fields(0)))

    def observe(self, value_D: Floats) -> None:
        """Take in one record; NaN where there is no value."""
        there_D = ~np.isnan(value_D)
        self.seen_D[:] += there_D
        same_KD = self.value_KD == value_D
        known_D = same_KD.any(axis=0)
        d_D = np.arange(len(value_D))
        least_D = self.count_KD.argmin(axis=0)
        free_D = there_D & ~known_D & (self.count_KD[least_D, d_D] == 0)
        place_D = np.where(known_D, same_KD.argmax(axis=0), least_D)
        taken_D = known_D | free_D
        self.value_KD[place_D[taken_D], d_D[taken_D]] = value_D[taken_D]
        self.count_KD[place_D[taken_D], d_D[taken_D]] += 1
        self.count_KD[:, there_D & ~taken_D] -= 1

    def usual(self, otherwise_D: Floats) -> Floats:
        """[D] the value that each feature has most often, where that is at least one of `SHARE`."""
        d_D, most_D = np.arange(len(otherwise_D)), self.count_KD.argmax(axis=0)
        often_D = (self.seen_D >= ENOUGH) & (SHARE * self.count_KD[most_D, d_D] >= self.seen_D)
        return np.where(often_D, self.value_KD[most_D, d_D], otherwise_D)
