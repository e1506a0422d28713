"""The stacked state of many learners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from streamgen.errors import StateError
from streamgen.models.slab import ALIGN, SMALL, Field, Slab

FIELDS = {"a": Field((2,), fill=7.0), "w": Field((3,), dtype="float32", on_device=True)}


def filled(size: int, most: int | None = None) -> Slab:
    slab = Slab(FIELDS, most=most)
    for _ in range(size):
        row = slab.add()
        slab.host("a")[row] = row
        slab.tensor("w")[row] = float(row)
    return slab


def content(slab: Slab, row: int) -> list[Any]:
    return [field.tolist() for field in slab.row(row).values()]


def test_a_loaded_learner_is_the_one_that_was_copied() -> None:
    slab = filled(2)
    slab.load(0, filled(4).row(3))
    assert content(slab, 0) == [[3.0, 3.0], [3.0, 3.0, 3.0]]
    assert content(slab, 1) == [[1.0, 1.0], [1.0, 1.0, 1.0]]


def test_a_row_is_a_copy() -> None:
    slab = filled(1)
    copy = slab.row(0)
    slab.host("a")[0], slab.tensor("w")[0] = 9.0, 9.0
    assert [field.tolist() for field in copy.values()] == [[0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_removed_row_is_the_next_new_one(removed: int) -> None:
    slab = filled(3)
    slab.remove(removed)
    assert slab.size == 2
    assert slab.add() == removed
    assert content(slab, removed) == [[7.0, 7.0], [0.0, 0.0, 0.0]]
    assert slab.size == 3


def test_memory_is_taken_for_no_more_than_most() -> None:
    slab = filled(5, most=5)
    assert (slab.size, slab.capacity) == (5, 5)
    slab.remove(2)
    assert slab.add() == 2
    assert slab.capacity == 5


def test_compact_gives_memory_back_and_moves_what_is_left() -> None:
    slab = filled(SMALL)
    kept = [3, 40, SMALL - 1]
    for row in set(range(SMALL)) - set(kept):
        assert slab.sparse == (slab.size <= slab.capacity // 4)
        slab.remove(row)
    before, generation = slab.bytes_per_learner, slab.generation
    moved = slab.compact()
    assert moved == {3: 0, 40: 1, SMALL - 1: 2}
    for old, new in moved.items():
        assert content(slab, new) == [[float(old)] * 2, [float(old)] * 3]
    assert (slab.size, slab.capacity, slab.bytes_per_learner) == (3, 6, before)
    assert not slab.sparse
    assert slab.generation > generation  # views are stale
    assert slab.add() == 3
    assert content(slab, 3) == [[7.0, 7.0], [0.0, 0.0, 0.0]]


def test_every_row_starts_on_a_line() -> None:
    slab = filled(5)
    slab.remove(0)
    for _ in range(2):
        assert {slab.tensor("w")[row].data_ptr() % (4 * ALIGN) for row in range(slab.capacity)} == {0}
        slab.compact()


@pytest.mark.parametrize(
    "change",
    [{"a": None}, {"b": np.zeros(2)}, {"a": np.zeros(1)}, {"w": np.zeros(3)}],
)
def test_a_state_of_other_fields_is_refused(change: dict[str, Any]) -> None:
    state = {name: field for name, field in (filled(1).row(0) | change).items() if field is not None}
    slab = filled(2)
    with pytest.raises(StateError, match=f"another version of streamgen .{next(iter(change))} differ"):
        slab.load(1, state)
    assert content(slab, 1) == [[1.0, 1.0], [1.0, 1.0, 1.0]]


def test_what_is_shared_is_kept_once() -> None:
    shared = {
        "n": Field(dtype="int64", fill=2, shared=True),
        "s": Field((3,), dtype="float32", on_device=True, shared=True),
    }
    slab = Slab(FIELDS | shared)
    slab.add()
    slab.host("n")[0], slab.tensor("s")[0] = 5, torch.arange(3.0)
    for _ in range(SMALL):
        slab.add()
    assert (int(slab.host("n")[SMALL]), slab.tensor("s")[SMALL].tolist()) == (5, [0.0, 1.0, 2.0])
    slab.tensor("s")[SMALL].add_(1.0)
    slab.host("n")[SMALL] += 1
    for row in range(SMALL):
        slab.remove(row)
    slab.compact()
    slab.remove(slab.add())
    slab.add()  # a row that was another's: what is shared stays
    assert {name: array.tolist() for name, array in slab.shared().items()} == {"n": 6, "s": [1.0, 2.0, 3.0]}
    assert slab.row(0).keys() == FIELDS.keys()
    other = Slab(FIELDS | shared)
    other.load_shared(slab.shared())
    assert other.tensor("s")[0].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(StateError, match="n differ"):
        other.load_shared({"s": np.zeros(3, dtype=np.float32)})
