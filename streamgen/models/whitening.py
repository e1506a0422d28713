"""Which combinations of a learner's features move together: a running second moment and its Cholesky factor.

    M_ij ← M_ij + r_ij (u_i u_j − M_ij),   r_ij = 1 / min(n_ij, MEMORY)       over records that have both
    M ≈ L Lᵀ,   e = L⁻¹ u has uncorrelated entries of mean square one (Kessy, Lewin & Strimmer 2018)

u are features in units of their scales (`scale`), so that neither units nor outliers enter. Equal columns,
and any collinear ones, make M singular, and moments over different records may make it indefinite: a ridge
relative to the diagonal is added. It keeps a direction in which nothing happens at a thousandth of the width
of the others, so that values drawn there move together as the stream's do. Averages over all records while
there are few, exponential later, as the scales are. D features, N records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streamgen.models.scale import MEMORY
from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats

RIDGE = 1e-6
_LARGEST = 8.0  # units beyond which a value counts no further: one outlier must not turn the axes
_NARROWEST = 1e-2  # mean square of a feature that never moved


def fields(name: str, D: int) -> dict[str, Field]:
    """The state of one running second moment."""
    return {f"{name}_moment_DD": Field((D, D)), f"{name}_count_DD": Field((D, D))}


class Whitening(NamedTuple):
    """One learner's second moment as it stands: views of its row."""

    moment_DD: Floats
    count_DD: Floats

    @classmethod
    def of(cls, slab: Slab, row: int, name: str) -> Whitening:
        return cls(*(slab.host(field)[row] for field in fields(name, 0)))

    def observe(self, unit_D: Floats, seen_D: Bools) -> None:
        """Take in one record, in units; what is not seen leaves its pairs as they are."""
        bounded_D = np.clip(np.where(seen_D, unit_D, 0.0), -_LARGEST, _LARGEST)
        both_DD = np.outer(seen_D, seen_D)
        self.count_DD[:] += both_DD
        rate_DD = both_DD / np.maximum(np.minimum(self.count_DD, MEMORY), 1.0)
        self.moment_DD[:] += rate_DD * (np.outer(bounded_D, bounded_D) - self.moment_DD)

    def factor(self) -> Floats:
        """L, lower triangular and never singular; the unit matrix before there is any record."""
        square_D = np.diag(self.moment_DD)
        width_D = np.sqrt(np.where(np.diag(self.count_DD) > 0, np.maximum(square_D, _NARROWEST), 1.0))
        correlation_DD = np.clip(self.moment_DD / np.outer(width_D, width_D), -1.0, 1.0)
        np.fill_diagonal(correlation_DD, 1.0)
        ridge = RIDGE
        while True:
            try:
                chosen_DD = (correlation_DD + ridge * np.eye(len(width_D))) / (1.0 + ridge)
                return np.asarray(width_D[:, None] * np.linalg.cholesky(chosen_DD))
            except np.linalg.LinAlgError:
                ridge *= 10.0  # at D the diagonal dominates: it ends
