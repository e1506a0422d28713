"""The usual value of a feature, against a count of all values."""

from __future__ import annotations

import numpy as np
import pytest

from streamgen.models.often import ENOUGH, PLACES, Often, fields
from streamgen.models.slab import Slab
from streamgen.records import Floats


def often(value_ND: Floats) -> Often:
    slab = Slab(fields(value_ND.shape[1]))
    now = Often.of(slab, slab.add())
    for value_D in value_ND:
        now.observe(value_D)
    return now


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_misra_and_gries(seed: int) -> None:
    """Against their algorithm as it is written, a dictionary for each feature; and their bound."""
    rng = np.random.default_rng(seed)
    value_ND = rng.integers(0, 3 + 5 * seed, (500, 3)).astype(float)
    value_ND[rng.random(value_ND.shape) < 0.1] = np.nan
    now = often(value_ND)
    for d, value_N in enumerate(value_ND.T):
        counts: dict[float, int] = {}
        for value in value_N[~np.isnan(value_N)].tolist():
            if value in counts or len(counts) < PLACES:
                counts[value] = counts.get(value, 0) + 1
            else:
                counts = {one: count - 1 for one, count in counts.items() if count > 1}
        found = {
            value: count
            for value, count in zip(now.value_KD[:, d].tolist(), now.count_KD[:, d].tolist(), strict=True)
            if count
        }
        assert found == counts
        values, real = np.unique(value_N[~np.isnan(value_N)], return_counts=True)
        for value, count in zip(values.tolist(), real.tolist(), strict=True):
            assert count - real.sum() / (PLACES + 1) <= found.get(value, 0) <= count


def test_the_usual_value_is_the_one_that_is_there_most_often() -> None:
    rng = np.random.default_rng(0)
    noise_N = rng.normal(size=1000)
    rest_N = np.where(rng.random(1000) < 0.4, 40.0, noise_N)
    rare_N = np.where(rng.random(1000) < 0.05, 7.0, noise_N)
    now = often(np.stack([rest_N, rare_N, noise_N], 1))
    assert now.usual(np.array([1.0, 2.0, 3.0])).tolist() == [40.0, 2.0, 3.0]


def test_few_values_have_no_usual_one() -> None:
    otherwise_D = np.array([5.0])
    assert often(np.zeros((ENOUGH - 1, 1))).usual(otherwise_D).tolist() == [5.0]
    assert often(np.zeros((ENOUGH, 1))).usual(otherwise_D).tolist() == [0.0]
    assert often(np.full((ENOUGH, 1), np.nan)).usual(otherwise_D).tolist() == [5.0]
