"""Errors that the loop meets: what it does about each, and that nothing of it shows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat

import pytest

from streamgen.errors import (
    BrokerUnavailable,
    Fenced,
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
from streamgen.kafka.transport import Committed
from streamgen.learners.task import Results, Task
from streamgen.loop import Loop
from streamgen.records import Columns, OutputBatch, TopicPartition
from streamgen.testing import Fault, Inline, LogRecord, MemoryLog, MemoryStore, MemoryTransport
from tests.memory_rig import filled, loop_over, outputs, until_read

ONE = TopicPartition("in", 1)
OFTEN = {"every_records": 20, "commit_interval_ms": 5}
Outputs = dict[str, list[LogRecord]]


class Failing(MemoryTransport):
    """Its publishes fail with these errors first."""

    errors: Sequence[StreamgenError] = ()
    publishes = 0

    def publish(
        self,
        outputs: Sequence[OutputBatch],
        offsets: Mapping[TopicPartition, int],
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        self.publishes += 1
        if self.publishes <= len(self.errors):
            raise self.errors[self.publishes - 1]
        super().publish(outputs, offsets, topic_ids)


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


def test_a_task_that_is_opened_again_while_it_is_paused_goes_on(
    store: MemoryStore, uninterrupted: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamgen.loop.MAX_QUEUED", 30)
    monkeypatch.setattr("streamgen.loop.SLICE_RECORDS", 5)
    monkeypatch.setattr("streamgen.loop.MAX_PENDING", 10)
    process, calls = Task.process, 0

    def fails(self: Task, columns: Columns) -> Results:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise ZeroDivisionError("by chance")
        return process(self, columns)

    monkeypatch.setattr(Task, "process", fails)
    log = filled()
    loop, transport = loop_over(log, store, polls=[100], **OFTEN)
    seen, paused = reopened(loop), []
    pause = transport.pause
    transport.pause = lambda sources: (paused.extend(sources), pause(sources))[1]  # type: ignore[method-assign]
    loop.run(until_read(loop, log))
    assert seen[0].source in paused
    assert outputs(log) == uninterrupted


def test_an_outage_fills_no_memory(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgen.loop.MAX_PENDING", 20)
    monkeypatch.setattr("streamgen.loop.SLICE_RECORDS", 4)
    log = filled()
    loop, _ = failing(log, store, *[PublishAborted("no")] * 40)
    most = 0

    def stopping() -> bool:
        nonlocal most
        most = max(most, sum(pipeline.pending_records for pipeline in loop.pipelines.values()))
        return until_read(loop, log)()

    loop.run(stopping)
    assert most <= 20 + 2 * 4


def test_what_cannot_be_processed_fills_no_memory(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions are paused although the turn fails behind them."""
    monkeypatch.setattr("streamgen.loop.MAX_QUEUED", 30)
    log = filled()
    loop, _ = loop_over(log, store, polls=[10], **OFTEN)
    pin, failures = loop._tasks._pins.put_if_absent, iter(range(40))

    def unlucky(topic: str, name: str, value: object) -> object:
        if name == "features" and next(failures, None) is not None:
            raise BrokerUnavailable("no broker answered")
        return pin(topic, name, value)

    loop._tasks._pins.put_if_absent = unlucky  # type: ignore[method-assign]
    most = 0

    def stopping() -> bool:
        nonlocal most
        most = max(most, *(pipeline.queued for pipeline in loop.pipelines.values()), 0)
        return until_read(loop, log)()

    loop.run(stopping)
    assert next(failures, None) is None
    assert 30 < most <= 30 + 10


def test_what_is_not_known_of_the_lag_holds_nothing_up(
    store: MemoryStore, uninterrupted: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled()
    loop, transport = loop_over(log, store, polls=[20], **OFTEN)
    asked = []

    def unlucky(sources: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        asked.append(loop._clock())
        raise BrokerUnavailable("no broker answered")

    monkeypatch.setattr(transport, "ends", unlucky)
    while not until_read(loop, log)():
        loop.turn()
    assert outputs(log) == uninterrupted
    loop._sleep(5)
    for _ in range(20):
        loop.turn()
    assert len(asked) == 2
    assert loop._failures == 0


def test_the_group_is_left_before_what_is_under_way_ends(store: MemoryStore) -> None:
    """A read of a large state may take minutes: the others have the partitions meanwhile."""
    closed = []

    class Slow(Inline):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            closed.extend([transport._closed, store_closed])

    store_closed: list[bool] = []
    store.close = lambda: store_closed.append(True)  # type: ignore[method-assign]
    log = filled()
    loop, transport = loop_over(log, store, background=Slow(), **OFTEN)
    loop.run(until_read(loop, log))
    assert closed == [True, [True]]


def test_pins_that_another_fenced_are_asked_again(store: MemoryStore, uninterrupted: Outputs) -> None:
    """The transport did not raise it, and assigns its partitions again all the same."""
    log = filled()
    loop, _ = loop_over(log, store, **OFTEN)
    get, failures = loop._tasks._pins.get, [Fenced("another worker pins")]

    def unlucky(topic: str, name: str) -> object:
        if failures:
            raise failures.pop()
        return get(topic, name)

    loop._tasks._pins.get = unlucky  # type: ignore[method-assign]
    positions = loop._tasks._positions
    positions._pins = loop._tasks._pins
    loop.run(until_read(loop, log))
    assert failures == []
    assert outputs(log) == uninterrupted


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no"),
        OSError(28, "no space left"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_failure_of_the_machine_is_no_records_fault(
    store: MemoryStore, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Task, columns: Columns) -> Results:
        raise error

    monkeypatch.setattr(Task, "process", fails)
    log = filled(bad=False)
    loop, _ = loop_over(log, store, **OFTEN)
    with pytest.raises(type(error), match=re.escape(str(error))):
        loop.run(until_read(loop, log))
    assert log.records("in.dlq") == []


def test_what_is_never_delivered_is_committed_too(store: MemoryStore) -> None:
    """The marker of a producer's transaction is the last offset of many a topic: the group's lag is 0 all the
    same, and when retention has passed it nothing is missed."""
    log = filled()
    for source in log.partitions("in"):
        log.skip(source)
    loop, _ = loop_over(log, store, **OFTEN)
    loop.run(until_read(loop, log))
    ends = {source: log.partition(source).end for source in log.partitions("in")}
    assert log.committed["streamgen"] == ends
    for source, end in ends.items():
        log.expire(source, end)
    again, _ = loop_over(log, store, **OFTEN)
    again.run(until_read(again, log))


def test_dead_letters_alone_need_nothing_of_the_past(store: MemoryStore) -> None:
    log = MemoryLog()
    for topic in ("in", "in.scores", "in.anomalies", "in.dlq"):
        log.create_topic(topic, 1)
    for n in range(30):
        log.append("in", b"no JSON", key=b"k", timestamp_ms=n)
    loop, _ = loop_over(log, store, **OFTEN)
    loop.run(until_read(loop, log))
    log.expire(log.partitions("in")[0], 30)
    log.append("in", b'{"x": 1}', key=b"k", timestamp_ms=31)
    again, _ = loop_over(log, store, **OFTEN)
    again.run(until_read(again, log))
    assert len(log.records("in.dlq")) == 30
    assert len(log.records("in.scores")) == 1


def test_nothing_is_passed_over_while_a_commit_is_in_doubt(
    store: MemoryStore, uninterrupted: Outputs
) -> None:
    """The committed offset is the one that was sent: a position that moved on would not know it again."""
    log = filled()
    loop, transport = loop_over(log, store, faults=[None, Fault.UNKNOWN_COMMITTED], commit_interval_ms=5)
    committed, answers = transport.committed, [False] * 3

    def silent(sources: Iterable[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        if loop._in_doubt and answers:
            answers.pop()
            for source in log.partitions("in"):
                log.skip(source)
            raise BrokerUnavailable("no broker answered")
        return committed(sources)

    transport.committed = silent  # type: ignore[method-assign]
    transport._sizes = itertools.cycle([120])
    loop.run(until_read(loop, log))
    assert answers == []
    assert outputs(log) == uninterrupted
