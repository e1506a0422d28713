"""Errors that the loop meets: what it does about each, and that nothing of it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat

import pytest

from streamgen.errors import (
    BrokerUnavailable,
    LearnerFailed,
    LogGap,
    PublishAborted,
    Rebalanced,
    StateError,
    StopError,
    StoreFenced,
    StreamgenError,
    TaskError,
)
from streamgen.learners.task import Results, Task
from streamgen.loop import Loop
from streamgen.records import Columns, OutputBatch, TopicPartition
from streamgen.testing import LogRecord, MemoryLog, MemoryStore, MemoryTransport
from tests.memory_rig import filled, loop_over, outputs, until_read

ONE = TopicPartition("in", 1)
OFTEN = {"every_records": 20, "commit_interval_ms": 5}
Outputs = dict[str, list[LogRecord]]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="module")
def uninterrupted() -> Outputs:
    log = filled()
    loop, _ = loop_over(log, MemoryStore())
    loop.run(until_read(loop, log))
    return outputs(log)


class Failing(MemoryTransport):
    """Its publishes fail with these errors first."""

    errors: Sequence[StreamgenError] = ()
    publishes = 0

    def publish(self, outputs: Sequence[OutputBatch], offsets: Mapping[TopicPartition, int]) -> None:
        self.publishes += 1
        if self.publishes <= len(self.errors):
            raise self.errors[self.publishes - 1]
        super().publish(outputs, offsets)


def failing(log: MemoryLog, store: MemoryStore, *errors: StreamgenError) -> tuple[Loop, Failing]:
    transport = Failing(log, ["in"], poll_sizes=[20])
    transport.errors = errors
    return loop_over(log, store, transport=transport, **OFTEN)[0], transport


def reopened(loop: Loop) -> list[TaskError]:
    """The errors for which a task was opened again, as they come."""
    seen: list[TaskError] = []
    reopen = loop._tasks.reopen

    def noted(error: TaskError) -> None:
        seen.append(error)
        reopen(error)

    loop._tasks.reopen = noted  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("kind", [PublishAborted, Rebalanced, BrokerUnavailable])
def test_what_may_be_tried_again_is(
    store: MemoryStore, uninterrupted: Outputs, kind: type[StreamgenError]
) -> None:
    log = filled()
    loop, transport = failing(log, store, *[kind("no")] * 3)
    tasks = []

    def stopping() -> bool:
        tasks.extend(map(id, loop.pipelines.values()))
        return until_read(loop, log)()

    loop.run(stopping)
    assert outputs(log) == uninterrupted
    assert transport.publishes > 3
    assert len(set(tasks)) == 2  # the same two to the end


def test_a_rebalance_is_no_outage(store: MemoryStore) -> None:
    """The others wait for this worker's next poll: it does not back off, however often it happens."""
    log = filled()
    for kind, patient in ((Rebalanced, False), (PublishAborted, True)):
        loop, _ = failing(log, store, *[kind("no")] * 20)
        slept: list[float] = []
        loop._sleep = slept.append
        loop.run(until_read(loop, log))
        assert (max(slept) > 1) is patient
        log = filled()


def test_a_store_that_another_has_claimed_opens_its_task_again(
    store: MemoryStore, uninterrupted: Outputs
) -> None:
    log = filled()
    loop, _ = loop_over(log, store, polls=[9], **OFTEN)
    seen = reopened(loop)
    for _ in range(4):
        loop.turn()
    store.claim(ONE)
    loop.run(until_read(loop, log))
    assert [(type(error), error.source) for error in seen] == [(StoreFenced, ONE)]
    assert outputs(log) == uninterrupted


def test_a_learner_that_fails_once_opens_its_task_again(
    store: MemoryStore, uninterrupted: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails among others and not alone is nobody's dead letter."""
    process, failures = Task.process, chain([True], repeat(False))

    def fails(self: Task, columns: Columns) -> Results:
        if len(columns) > 5 and self.source == ONE and next(failures):
            raise ZeroDivisionError("by chance")
        return process(self, columns)

    monkeypatch.setattr(Task, "process", fails)
    log = filled()
    loop, _ = loop_over(log, store, polls=[9], **OFTEN)
    seen = reopened(loop)
    loop.run(until_read(loop, log))
    assert [(type(error), error.source) for error in seen] == [(LearnerFailed, ONE)]
    assert "ZeroDivisionError: by chance" in str(seen[0])
    assert outputs(log) == uninterrupted


@pytest.mark.parametrize("kind", [StopError, StateError, LogGap])
def test_what_a_person_must_judge_ends_the_worker(store: MemoryStore, kind: type[StopError]) -> None:
    log = filled()
    loop, transport = failing(log, store, kind("look at this"))
    with pytest.raises(kind, match="look at this"):
        loop.run(until_read(loop, log))
    assert transport.publishes == 1
    assert log.records("in.scores") == []
