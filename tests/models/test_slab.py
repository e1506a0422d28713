"""The stacked state of many learners."""

import numpy as np
import pytest

from streamgen.errors import StateError
from streamgen.models.slab import Field, Slab

FIELDS = {"a": Field((2,), fill=7.0), "w": Field((3,), dtype="float32", on_device=True)}


def filled(size: int) -> Slab:
    slab = Slab(FIELDS)
    for row in range(size):
        slab.add()
        slab.host("a")[row] = row
        slab.tensor("w")[row] = float(row)
    return slab


def test_a_row_added_after_a_load_is_new() -> None:
    slab = filled(4)
    slab.load(filled(2).rows(), 2)
    row = slab.add()
    assert slab.host("a")[row].tolist() == [7.0, 7.0]
    assert slab.tensor("w")[row].tolist() == [0.0, 0.0, 0.0]
    assert slab.host("a")[:2].tolist() == [[0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    "change",
    [{"a": None}, {"b": np.zeros((2, 1))}, {"a": np.zeros((2, 1))}, {"w": np.zeros((2, 3))}],
)
def test_a_state_of_other_fields_is_refused(change: dict[str, np.ndarray | None]) -> None:
    state = {name: field for name, field in (filled(2).rows() | change).items() if field is not None}
    slab = filled(1)
    with pytest.raises(StateError, match=f"another version of streamgen .{next(iter(change))} differ"):
        slab.load(state, 2)
    assert slab.size == 1
