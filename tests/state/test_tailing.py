"""Checkpoints from the records of the state topic: whole ones only. On a broker: tests/integration."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event

import msgspec
import numpy as np
import pytest

from streamgen.errors import StateError
from streamgen.records import OutputBatch, TopicPartition
from streamgen.state.checkpoint import Fields, LearnerState, Manifest
from streamgen.state.on_kafka import KafkaTaskStore
from streamgen.state.tailing import Changes

SOURCE, TARGET = TopicPartition("in", 0), TopicPartition("app-state", 1)
Records = list[tuple[bytes | None, bytes | None]]


class Written:
    """A producer whose transactions are kept."""

    is_open = True

    def __init__(self) -> None:
        self.transactions: list[Records] = []

    def publish(self, batches: list[OutputBatch]) -> None:
        self.transactions.append(
            [pair for batch in batches for pair in zip(batch.key, batch.value, strict=True)]
        )


def learner(n: float, size: int = 3) -> Fields:
    return {"weights_P": np.full(size, n, dtype=np.float32), "updates": np.array(int(n))}


def transactions(
    *steps: tuple[Mapping[str | None, Fields], tuple[str | None, ...]], source: TopicPartition = SOURCE
) -> list[Records]:
    """What the real store writes when these learners changed and these went."""
    from streamgen.state import on_kafka

    producer = Written()
    store = KafkaTaskStore(None, TARGET, source, producer, Event())  # type: ignore[arg-type]
    store._stored = on_kafka._Stored()
    for n, (changed, removed) in enumerate(steps, start=1):
        manifest = Manifest(
            source, 10 * n, ("x",), 0, {"model": {"name": "m"}}, "f", facts={"stream_time": n}
        )
        store.write(manifest, [LearnerState(key, fields) for key, fields in changed.items()], removed)
    return producer.transactions


def taken(changes: Changes, records: Records) -> None:
    for key, value in records:
        changes.take(key, value)
    changes.settle()


def state(changes: Changes) -> dict[str | None, float]:
    found = changes.newest().get(SOURCE)
    if found is None:
        return {}
    return {key: float(found.learners[key]["weights_P"][0]) for key in found.learners}


STEPS = [({"a": learner(1), None: learner(2)}, ()), ({"a": learner(3), "b": learner(4)}, (None,))]


def test_each_checkpoint_is_what_its_manifest_says() -> None:
    changes = Changes(["in"], "app-state")
    first, second = transactions(*STEPS)
    taken(changes, first)
    before = changes.newest()[SOURCE]
    assert (before.manifest.offset, before.manifest.facts, state(changes)) == (
        10, {"stream_time": 1}, {"a": 1.0, None: 2.0},
    )  # fmt: skip
    taken(changes, second)
    assert (changes.newest()[SOURCE].manifest.offset, state(changes)) == (20, {"a": 3.0, "b": 4.0})
    assert float(before.learners["a"]["weights_P"][0]) == 1.0  # what was given out stays what it was


def test_what_comes_without_its_manifest_is_not_there() -> None:
    changes = Changes(["in"], "app-state")
    first, second = transactions(*STEPS)
    taken(changes, first)
    for n in range(len(second)):
        partly = Changes(["in"], "app-state")
        taken(partly, first)
        taken(partly, second[:n])
        assert state(partly) == {"a": 1.0, None: 2.0}
        taken(partly, second[n:])
        assert state(partly) == {"a": 3.0, "b": 4.0}
        at_once = Changes(["in"], "app-state")
        taken(at_once, first + second[:n])
        assert state(at_once) == {"a": 1.0, None: 2.0}


def test_a_manifest_whose_learners_compaction_took_is_passed_over() -> None:
    first, second = transactions(*STEPS)
    changes = Changes(["in"], "app-state")
    taken(changes, [one for one in first if b'"a"' not in (one[0] or b"")])
    assert state(changes) == {}
    taken(changes, second)
    assert state(changes) == {"a": 3.0, "b": 4.0}


def test_a_damaged_learner_is_no_state() -> None:
    (first,) = transactions(STEPS[0])
    damaged = [
        (key, value[:-1] + b"?" if value and b"learner" in (key or b"") else value) for key, value in first
    ]
    changes = Changes(["in"], "app-state")
    taken(changes, damaged)
    assert state(changes) == {}


def test_learners_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgen.state.on_kafka.PART_BYTES", 100)
    first, second = transactions(({"a": learner(1, 500)}, ()), ({"a": learner(2, 3)}, ()))
    assert sum(b'"learner"' in (key or b"") for key, _ in first) > 10
    changes = Changes(["in"], "app-state")
    taken(changes, first)
    assert state(changes) == {"a": 1.0}
    taken(changes, second)  # fewer parts: the others are gone
    assert state(changes) == {"a": 2.0}


def test_tasks_and_topics_are_apart() -> None:
    other, foreign = TopicPartition("in", 1), TopicPartition("else", 0)
    (mine,), (theirs,) = transactions(STEPS[0]), transactions(({"a": learner(9)}, ()), source=other)
    (elsewhere,) = transactions(({"a": learner(7)}, ()), source=foreign)
    changes = Changes(["in"], "app-state")
    mixed = [one for pair in zip(mine, theirs, strict=False) for one in pair] + mine[len(theirs) :]
    taken(changes, [(b'["pin","in","start"]', b"{}"), *mixed, *elsewhere])
    assert changes.newest().keys() == {SOURCE, other}
    assert state(changes) == {"a": 1.0, None: 2.0}


def test_a_state_that_was_reset_is_no_state() -> None:
    first, second = transactions(*STEPS)
    changes = Changes(["in"], "app-state")
    taken(changes, first)
    taken(changes, [(msgspec.json.encode(["task", "in", 0]), None)])
    assert state(changes) == {}
    taken(changes, second)
    assert state(changes) == {"a": 3.0, "b": 4.0}


def test_a_manifest_of_another_version_leaves_the_checkpoint_before_it_and_the_other_tasks() -> None:
    other = TopicPartition("in", 1)
    first, second = transactions(*STEPS)
    (theirs,) = transactions(({"a": learner(9)}, ()), source=other)
    name = msgspec.json.encode(["task", "in", 0])
    newer = [(key, b'{"version": 999}' if key == name else value) for key, value in second]
    assert newer != second
    changes = Changes(["in"], "app-state")
    taken(changes, first)
    taken(changes, newer + theirs)
    assert changes.newest().keys() == {SOURCE, other}
    assert state(changes) == {"a": 1.0, None: 2.0}
    taken(changes, second[-1:])  # by the version that wrote the first
    assert state(changes) == {"a": 3.0, "b": 4.0}


def test_a_record_of_something_else_is_an_error() -> None:
    with pytest.raises(StateError, match="did not write"):
        Changes(["in"], "app-state").take(b"?", b"")
