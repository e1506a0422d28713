"""Running scales of one learner's features: level, spread, and the usual size of a step.

Averages over all records while there are few, then exponential with a memory of `MEMORY` records, so that
they follow the stream. Plain means of absolute deviations rather than of squares: an outlier moves them
less. D features; values are float64 in input units.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats

MEMORY = 4096
RECENT = 16
_TINY = 1e-30


def fields(D: int) -> dict[str, Field]:
    """The state of the scales."""
    return {
        "scale_last_D": Field((D,), fill=np.nan),  # the newest value of each feature
        "scale_count_D": Field((D,)),
        "scale_mean_D": Field((D,)),
        "scale_spread_D": Field((D,)),  # mean absolute deviation from the running mean
        "scale_step_D": Field((D,)),  # mean absolute difference of consecutive values
        "scale_recent_D": Field((D,)),  # mean of the last `RECENT` values, exponentially weighted
        "scale_wander_D": Field((D,)),  # mean absolute deviation of that from the running mean
    }


class Scale(NamedTuple):
    """The scales of one learner as they stand: views of its row."""

    last_D: Floats
    count_D: Floats
    mean_D: Floats
    spread_D: Floats
    step_D: Floats
    recent_D: Floats
    wander_D: Floats

    @classmethod
    def of(cls, slab: Slab, row: int) -> Scale:
        return cls(*(slab.host(name)[row] for name in fields(0)))

    def delta(self) -> Floats:
        """Unit of an increment, > 0: a column that never moved must not make the first move infinite."""
        return np.maximum(
            np.maximum(self.step_D, 1e-3 * self.spread_D), np.maximum(1e-6 * np.abs(self.mean_D), _TINY)
        )

    def strangeness(self, value_D: Floats, seen_D: Bools, dof: float) -> float:
        """How strange the seen values are for the stream at all, whatever came before: the tail term of
        their −log Student-t around the running means, in nats. NaN when no seen feature has a history."""
        return self._tail(value_D, self.unit(), seen_D, dof)

    def drift(self, value_D: Floats, seen_D: Bools, dof: float) -> float:
        """`strangeness` of the level of the last `RECENT` records, this one included, among such levels."""
        recent_D = self.recent_D + (value_D - self.recent_D) / np.minimum(self.count_D + 1, RECENT)
        return self._tail(recent_D, self._at_least(self.wander_D), seen_D, dof)

    def _tail(self, value_D: Floats, unit_D: Floats, seen_D: Bools, dof: float) -> float:
        known_D = seen_D & (self.count_D > 1)
        if not known_D.any():
            return math.nan
        square_D = np.minimum(((value_D - self.mean_D) / unit_D) ** 2, 1e12)
        return 0.5 * (dof + 1) * sum(math.log1p(square / dof) for square in square_D[known_D].tolist())

    def level(self, value_D: Floats) -> Floats:
        """Value in units of spread around the running mean, bounded to ±4."""
        return np.asarray(4.0 * np.tanh((value_D - self.mean_D) / self.unit() / 4.0))

    def unit(self) -> Floats:
        """Unit of a level, > 0."""
        return self._at_least(self.spread_D)

    def _at_least(self, unit_D: Floats) -> Floats:
        return np.maximum(np.maximum(unit_D, 1e-3 * self.step_D), 1e-6 * np.abs(self.mean_D) + _TINY)

    def observe(self, value_D: Floats, seen_D: Bools) -> None:
        """Take in one record; missing values leave their feature as it is."""
        known_D = seen_D & (self.count_D > 0)
        self.count_D[:] += seen_D
        memory_D = np.minimum(self.count_D, MEMORY)
        step_D = np.where(known_D, np.abs(value_D - self.last_D), 0.0)
        # The first difference is the second record's: one fewer than there are values.
        self.step_D[:] += np.where(known_D, (step_D - self.step_D) / np.maximum(memory_D - 1, 1), 0.0)
        rate_D = np.where(seen_D, 1.0 / np.maximum(memory_D, 1), 0.0)
        filled_D = np.where(seen_D, value_D, self.mean_D)
        self.mean_D[:] += (filled_D - self.mean_D) * rate_D
        self.spread_D[:] += (np.abs(filled_D - self.mean_D) - self.spread_D) * rate_D
        recent_D = (filled_D - self.recent_D) / np.minimum(np.maximum(self.count_D, 1), RECENT)
        self.recent_D[:] += np.where(seen_D, recent_D, 0.0)
        self.wander_D[:] += (np.abs(self.recent_D - self.mean_D) - self.wander_D) * rate_D
        self.last_D[:] = np.where(seen_D, value_D, self.last_D)
