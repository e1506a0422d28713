"""What the values of each feature have been so far: whole numbers or not, and where they end.

Counts, smallest and largest: they do not depend on the order of a key's records nor on how they were cut
into batches. What is generated comes out as such (`shaped`), by three rules:

- a feature whose values were all whole numbers gives whole numbers;
- one that was never negative in `ENOUGH` values is not negative, one that was never positive not positive,
  and one that lay within 0 and 1 lies there;
- one that stood at its smallest or largest value often, `OFTEN` times and in a share of `SHARE` at least,
  does not pass it.

A feature of true and false, which are 1 and 0 here, is one of whole numbers that ends at both.

Shapes: M learners, N records, D features.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats, Ints

ENOUGH = 64  # a feature symmetric around zero looks like one that is never negative once in 2⁶³
OFTEN, SHARE = 8, 0.01
LARGEST_WHOLE = 2.0**53  # beyond it every float is a whole number, which tells nothing


class Values:
    """The state is five numbers of each feature, in the learner's row."""

    @staticmethod
    def fields(D: int) -> Mapping[str, Field]:
        """The state."""
        return {
            "values_D": Field((D,), dtype="int64"),  # that there were
            "values_broken_D": Field((D,), dtype="int64"),  # that were no whole numbers
            "values_low_D": Field((D,), fill=np.inf),
            "values_high_D": Field((D,), fill=-np.inf),
            "values_at_low_D": Field((D,), dtype="int64"),
            "values_at_high_D": Field((D,), dtype="int64"),
        }

    def observe(self, slab: Slab, row_N: Ints, value_ND: Floats, late_N: Bools) -> None:
        """Take in a batch; late records and missing values change nothing."""
        there_ND = ~np.isnan(value_ND) & ~late_N[:, None]
        whole_ND = (np.floor(value_ND) == value_ND) & (np.abs(value_ND) <= LARGEST_WHOLE)
        np.add.at(slab.host("values_D"), row_N, there_ND)
        np.add.at(slab.host("values_broken_D"), row_N, there_ND & ~whole_ND)
        rows_R = np.unique(row_N)
        for end, sign in (("low", 1.0), ("high", -1.0)):
            end_MD, at_MD = slab.host(f"values_{end}_D"), slab.host(f"values_at_{end}_D")
            before_RD = end_MD[rows_R]
            further = np.minimum if sign > 0 else np.maximum
            further.at(end_MD, row_N, np.where(there_ND, value_ND, sign * np.inf))
            at_MD[rows_R] *= end_MD[rows_R] == before_RD
            np.add.at(at_MD, row_N, there_ND & (value_ND == end_MD[row_N]))

    def shaped(self, slab: Slab, row: int, value_D: Floats) -> Floats:
        """[..., D] generated values as the feature's own are."""
        seen_D = slab.host("values_D")[row]
        low_D, high_D = slab.host("values_low_D")[row], slab.host("values_high_D")[row]
        often_D = np.maximum(OFTEN, SHARE * seen_D)
        enough_D = seen_D >= ENOUGH
        share_D = enough_D & (low_D >= 0) & (high_D <= 1)
        least_D = np.where(enough_D & (low_D >= 0), 0.0, -np.inf)
        most_D = np.where(share_D, 1.0, np.where(enough_D & (high_D <= 0), 0.0, np.inf))
        least_D = np.where(slab.host("values_at_low_D")[row] >= often_D, low_D, least_D)
        most_D = np.where(slab.host("values_at_high_D")[row] >= often_D, high_D, most_D)
        return np.clip(np.where(self.whole(slab, row), np.round(value_D), value_D), least_D, most_D)

    def whole(self, slab: Slab, row: int) -> Bools:
        """Which features had whole numbers only, [D]."""
        none_D = slab.host("values_D")[row] == 0
        return np.asarray(~none_D & (slab.host("values_broken_D")[row] == 0))
