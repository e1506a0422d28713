"""What a feature's values have been, and how generated ones come out; bits: tests/conformance."""

from __future__ import annotations

import numpy as np
import pytest

from streamgen.learners.values import ENOUGH, OFTEN, Values
from streamgen.models.slab import Slab
from streamgen.records import Floats

FIELDS = Values.fields(1)


def after(*batches: list[float], late: bool = False) -> Slab:
    slab = Slab(FIELDS)
    slab.add()
    for batch in batches:
        value_ND = np.array(batch, dtype=np.float64)[:, None]
        N = len(batch)
        Values().observe(slab, np.zeros(N, dtype=np.int64), value_ND, np.full(N, late))
    return slab


def shaped(values: list[float], drawn: list[float]) -> list[float]:
    drawn_L1 = np.array(drawn)[:, None]
    return Values().shaped(after(values), 0, drawn_L1)[:, 0].tolist()  # type: ignore[no-any-return]


def state(slab: Slab) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in slab.row(0).items()}


def test_how_a_stream_is_cut_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, 200).astype(np.float64).tolist()
    values[3] = float("nan")
    cut = [values[:1], values[1:7], values[7:150], values[150:]]
    assert state(after(values)) == state(after(*cut)) == state(after(*[[one] for one in values]))
    slab = after(values)
    there = np.array(values)[~np.isnan(values)]
    assert slab.host("values_D")[0, 0] == 199
    for end, value in (("low", there.min()), ("high", there.max())):
        assert slab.host(f"values_{end}_D")[0, 0] == value
        assert slab.host(f"values_at_{end}_D")[0, 0] == (there == value).sum()


def test_learners_of_one_batch_are_apart() -> None:
    slab = Slab(FIELDS)
    row_N = np.array([slab.add(), slab.add()])[[0, 1, 0, 1]]
    Values().observe(slab, row_N, np.array([[1.0], [0.5], [3.0], [-7.0]]), np.zeros(4, dtype=np.bool_))
    assert slab.host("values_low_D")[:2, 0].tolist() == [1.0, -7.0]
    assert slab.host("values_at_low_D")[:2, 0].tolist() == [1, 1]
    assert slab.host("values_broken_D")[:2, 0].tolist() == [0, 1]


def test_late_and_missing_values_change_nothing() -> None:
    assert state(after([1.0, 2.0], late=True)) == state(after([float("nan")])) == state(after())


@pytest.mark.parametrize(
    ("values", "drawn", "expected"),
    [
        ([1.0, 2.0, -5.0], [0.4, 0.6, -9.7], [0.0, 1.0, -10.0]),  # whole; too few for bounds
        ([1.0, 2.5], [0.4, -0.6], [0.4, -0.6]),
        ([0.0, 1.0] * ENOUGH, [0.4, 0.6, 7.0, -3.0], [0.0, 1.0, 1.0, 0.0]),
        ([n + 0.5 for n in range(ENOUGH)], [-0.2, 900.5], [0.0, 900.5]),  # never negative
        ([-n - 0.5 for n in range(ENOUGH)], [0.2, -900.5], [0.0, -900.5]),
        ([n / ENOUGH for n in range(ENOUGH)], [-0.2, 1.2, 0.9], [0.0, 1.0, 0.9]),  # a share
        ([100.0] * OFTEN + [50.5], [100.2, 3.5], [100.0, 3.5]),  # a ceiling that is met often
        ([100.0] * OFTEN + [0.5] * 100 * OFTEN, [100.2], [100.2]),  # once in more than a hundred
        ([1e300] * 3, [1.5e300 + 0.5], [1.5e300 + 0.5]),
        ([], [0.25], [0.25]),
    ],
)
def test_generated_values_are_as_the_features(
    values: list[float], drawn: list[float], expected: Floats
) -> None:
    assert shaped(values, drawn) == expected
