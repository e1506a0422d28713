"""The loop's state: what is stored and when, and what a lost log or a failing learner does to it."""

from __future__ import annotations

import json
from concurrent.futures import Future
from typing import Any

import pytest
from memory_rig import N, filled, loop_over, outputs, until_read

from streamgen.errors import Fenced, LogGap, PublishAborted, StateError, StopError
from streamgen.learners.task import Results, Task
from streamgen.loop import Loop
from streamgen.records import Columns, TopicPartition
from streamgen.testing import Crash, Fault, LogRecord, MemoryLog, MemoryStore

Outputs = dict[str, list[LogRecord]]
OFTEN = {"commit_interval_ms": 5, "every_records": 10}
ONE = TopicPartition("in", 1)


def state_of(store: MemoryStore) -> dict[TopicPartition, tuple[int, str]]:
    """Offset and checksum of every task."""
    manifests = [checkpoint.manifest for s in store.sources() if (checkpoint := store.peek(s))]
    return {manifest.source: (manifest.offset, manifest.checksum) for manifest in manifests}


def test_the_stored_state_does_not_depend_on_when_it_was_stored(store: MemoryStore) -> None:
    log, other_log, other = filled(), filled(), MemoryStore()
    loop, _ = loop_over(log, store)
    loop.run(until_read(loop, log))
    often, _ = loop_over(other_log, other, polls=[7], **OFTEN)
    often.run(until_read(often, other_log))
    # How much more often is up to the thread that writes.
    assert len(other.written) > len(store.written) > 0
    assert state_of(store) == state_of(other)


def test_only_learners_that_changed_are_given_to_the_store(store: MemoryStore) -> None:
    log = filled()
    loop, _ = loop_over(log, store, **OFTEN)
    while not until_read(loop, log)():
        loop.turn()
    loop.finish()
    store.written.clear()
    offset = log.append("in", b'{"x": 1.0}', key=b"k0", timestamp_ms=N * 60_000, partition=1)
    while loop.pipelines[ONE].committed <= offset:
        loop.turn()
    loop.finish()
    assert store.written == [(ONE, offset + 1, 1)]


def test_a_checkpoint_never_holds_what_is_not_committed(store: MemoryStore) -> None:
    log = filled()
    loop, _ = loop_over(log, store, polls=[7], faults=[None, Fault.ABORT, None, Fault.CRASH_BEFORE], **OFTEN)
    with pytest.raises(Crash):
        loop.run(until_read(loop, log))
    assert state_of(store)
    for source, (offset, _) in state_of(store).items():
        assert offset <= log.committed["streamgen"][source]


@pytest.mark.parametrize("when", [0, 1, 3])
def test_a_checkpoint_that_was_not_stored_is_made_up_for(
    store: MemoryStore, uninterrupted: Outputs, when: int
) -> None:
    log = filled()
    store.failures = [*[None] * when, PublishAborted("the broker was away")]
    loop, _ = loop_over(log, store, polls=[9], faults=[*[None] * 12, Fault.CRASH_AFTER], **OFTEN)
    with pytest.raises(Crash):
        loop.run(until_read(loop, log))
    assert store.failures == []
    again, _ = loop_over(log, store, **OFTEN)
    again.run(until_read(again, log))
    assert outputs(log) == uninterrupted


def test_what_is_revoked_is_committed_and_stored_first(store: MemoryStore, uninterrupted: Outputs) -> None:
    log = filled()
    loop, transport = loop_over(log, store, polls=[11], commit_interval_ms=2000)
    for _ in range(4):
        loop.turn()
    position = loop.pipelines[ONE].position
    assert log.committed.get("streamgen", {}).get(ONE) is None
    transport.revoke(ONE)
    loop.turn()
    assert ONE not in loop.pipelines
    assert log.committed["streamgen"][ONE] == position
    assert state_of(store)[ONE][0] == position
    transport.assign(ONE)
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


@pytest.mark.parametrize("fault", [Fault.ABORT, Fault.FENCED, Fault.UNKNOWN_COMMITTED, Fault.UNKNOWN_LOST])
def test_what_cannot_be_committed_when_it_is_revoked_is_done_again(
    store: MemoryStore, uninterrupted: Outputs, fault: Fault
) -> None:
    log = filled()
    loop, transport = loop_over(log, store, polls=[11], faults=[fault], commit_interval_ms=2000)
    for _ in range(4):
        loop.turn()
    transport.revoke(ONE)
    loop.turn()
    transport.assign(ONE)
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_a_lost_partition_writes_nothing(store: MemoryStore) -> None:
    log = filled()
    loop, transport = loop_over(log, store, polls=[11], commit_interval_ms=2000)
    for _ in range(4):
        loop.turn()
    transport.lose(ONE)
    loop.turn()
    assert (store.sources(), log.committed, outputs(log)["in.scores"]) == ([], {}, [])


# --- the log


def short_of(log: MemoryLog, store: MemoryStore, before: int) -> None:
    """A worker that ended, and a retention that went on."""
    loop, _ = loop_over(log, store, polls=[11], **OFTEN)
    for _ in range(8):
        loop.turn()
    loop.finish()
    assert 10 < log.committed["streamgen"][ONE] < before
    log.expire(ONE, before)


def test_a_gap_in_the_log_is_said_before_anything_is_read(store: MemoryStore) -> None:
    log = filled()
    short_of(log, store, 100)
    committed = log.committed["streamgen"][ONE]
    again, _ = loop_over(log, store)
    with pytest.raises(
        LogGap, match=rf"in-1 begins at offset 100 now.*from {committed}.*{100 - committed} were never"
    ):
        again.run(until_read(again, log))


def test_a_gap_in_the_log_may_be_passed(store: MemoryStore) -> None:
    log = filled()
    short_of(log, store, 100)
    again, _ = loop_over(log, store, input={"on_log_gap": "continue"})
    again.run(until_read(again, log))
    scored = [json.loads(r.value or b"")["source"]["offset"] for r in log.records("in.scores", 1)]
    assert len(scored) == len(set(scored))
    dead = [int(dict(r.headers)["__streams.errors.offset"]) for r in log.records("in.dlq", 1)]
    found = sorted(offset for offset in scored + dead if offset >= 100)
    assert found == list(range(100, log.partition(ONE).end))


@pytest.mark.parametrize("on_log_gap", ["fail", "continue"])
def test_retention_that_overtakes_the_reader(store: MemoryStore, on_log_gap: str) -> None:
    log = filled()
    loop, _ = loop_over(log, store, polls=[11], input={"on_log_gap": on_log_gap}, **OFTEN)
    for _ in range(3):
        loop.turn()
    log.expire(ONE, 100)
    if on_log_gap == "fail":
        with pytest.raises(LogGap, match="Retention removed"):
            loop.run(until_read(loop, log))
    else:
        loop.run(until_read(loop, log))
        scored = [json.loads(r.value or b"")["source"]["offset"] for r in log.records("in.scores", 1)]
        assert scored == sorted(set(scored))
        assert scored[-1] == log.partition(ONE).end - 1


def remade(log: MemoryLog, records: int = 300) -> None:
    log.delete_topic("in")
    log.create_topic("in", 2)
    for n in range(records):
        log.append("in", b'{"x": %d.5}' % (n % 7), key=b"k%d" % (n % 5), timestamp_ms=n)


def test_a_topic_that_was_made_again_is_said(store: MemoryStore) -> None:
    log = filled()
    loop, _ = loop_over(log, store)
    loop.run(until_read(loop, log))
    remade(log)
    again, _ = loop_over(log, store)
    with pytest.raises(LogGap, match="deleted and made again"):
        again.run(until_read(again, log))


def during(log: MemoryLog, store: MemoryStore, policy: str, records: int = 300) -> Loop:
    """A worker whose topic is made again while it works, and is longer than the old one at once, or not."""
    loop, _ = loop_over(log, store, polls=[20], input={"on_log_gap": policy}, commit_interval_ms=5)
    loop.run(until_read(loop, log))
    loop, _ = loop_over(log, store, polls=[20], input={"on_log_gap": policy}, commit_interval_ms=5)
    loop.turn()
    remade(log, records)
    return loop


def patiently(loop: Loop) -> None:
    """As long as it takes to be noticed."""
    for _ in range(10):
        loop.turn()
        loop._sleep(1)


@pytest.mark.parametrize("records", [300, 10])
def test_a_topic_that_is_made_again_while_it_is_read_is_said(store: MemoryStore, records: int) -> None:
    log = filled()
    loop = during(log, store, "fail", records)
    with pytest.raises(LogGap, match="deleted and made again"):
        patiently(loop)


def test_a_topic_that_is_made_again_while_it_is_read_may_be_begun_anew(store: MemoryStore) -> None:
    """What was read of it at the old offset, before it was noticed, has a second result; none is missing."""
    log = filled()
    loop = during(log, store, "continue")
    old = len(log.records("in.scores"))
    patiently(loop)
    loop.run(until_read(loop, log))
    for partition in range(2):
        found = [json.loads(r.value or b"")["source"]["offset"] for r in log.records("in.scores", partition)]
        assert set(found[-len(log.records("in", partition)) :]) == set(
            range(len(log.records("in", partition)))
        )
    assert len(log.records("in.scores")) >= old + 300


def test_a_topic_that_is_made_again_and_ends_before_what_was_read_may_be_begun_anew(
    store: MemoryStore,
) -> None:
    log = filled()
    loop = during(log, store, "continue", 10)
    old = len(log.records("in.scores"))
    patiently(loop)
    loop.run(until_read(loop, log))
    assert len(log.records("in.scores")) == old + 10


@pytest.mark.parametrize("when", ["while it is read", "before a start"])
def test_a_log_that_was_cut_ends_the_worker_whatever_is_allowed(store: MemoryStore, when: str) -> None:
    """What comes next has offsets that were scored already: to go on would be a second result of them."""
    log = filled()
    loop, _ = loop_over(log, store, input={"on_log_gap": "continue"})
    while not until_read(loop, log)():
        loop.turn()
    log.partition(ONE).end = 20
    del log.partition(ONE).records[20:]
    if when == "before a start":
        loop, _ = loop_over(log, store, input={"on_log_gap": "continue"})
    with pytest.raises(LogGap, match="in-1 was cut"):
        patiently(loop)


def test_the_committed_offset_of_a_topic_that_is_gone_answers_nothing(store: MemoryStore) -> None:
    """A commit of unknown outcome that did not happen, the first one to the new topic."""
    log = filled()
    loop, _ = loop_over(log, store)
    loop.run(until_read(loop, log))
    old = len(log.records("in.scores"))
    remade(log)
    anew = {"on_log_gap": "continue"}
    again, _ = loop_over(
        log, store, polls=[20], faults=[Fault.UNKNOWN_LOST], input=anew, commit_interval_ms=5
    )
    again.run(until_read(again, log))
    assert len(log.records("in.scores")) == old + 300


def test_a_topic_that_was_made_again_may_be_begun_anew(store: MemoryStore) -> None:
    """Also when it is longer than the old one, and through another restart before a checkpoint."""
    log, fresh = filled(), filled()
    loop, _ = loop_over(log, store)
    loop.run(until_read(loop, log))
    old = len(log.records("in.scores"))
    for one in (log, fresh):
        remade(one)
    anew, never = {"on_log_gap": "continue"}, 10_000
    faults, every = [None, Fault.CRASH_AFTER], {"every_records": never, "commit_interval_ms": 5}
    again, _ = loop_over(log, store, polls=[50], faults=faults, input=anew, **every)
    with pytest.raises(Crash):
        again.run(until_read(again, log))
    third, _ = loop_over(log, store, input=anew)
    third.run(until_read(third, log))
    other, _ = loop_over(fresh, MemoryStore())
    other.run(until_read(other, fresh))
    assert len(log.records("in.scores")) == old + 300
    for partition in range(2):
        new = log.records("in.scores", partition)[-len(fresh.records("in.scores", partition)) :]
        assert [r.value for r in new] == [r.value for r in fresh.records("in.scores", partition)]


def test_a_checkpoint_that_the_log_is_about_to_pass_is_warned_of(
    store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    log = filled()
    loop, _ = loop_over(log, store, polls=[5], commit_interval_ms=5)
    loop._retention_s = {"in": 20.0}
    store.failures = [PublishAborted("no")] * 1000
    while "half the input's retention" not in capsys.readouterr().out:
        loop.turn()
        loop._sleep(1)
    ratio = {s.labels["partition"]: s.value for s in samples(loop, "streamgen_checkpoint_retention_ratio")}
    assert ratio["0"] > 0.5


def samples(loop: Loop, name: str) -> list[Any]:
    return [one for family in loop._metrics.registry.collect() for one in family.samples if one.name == name]


# --- a learner that fails


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The learner fails half-way at some values, each time; the attempts are counted."""
    attempts: list[int] = []
    process = Task.process

    def fails(self: Task, columns: Columns) -> Results:
        for n, value in enumerate(columns.value_ND[:, 0].tolist()):
            if value == 13.0:
                attempts.append(len(columns))
                if n:  # some of the batch are learned already
                    process(self, Columns(*(getattr(columns, name)[:n] for name in columns.__slots__)))
                raise ZeroDivisionError("poison")
        return process(self, columns)

    monkeypatch.setattr(Task, "process", fails)
    return attempts


def with_poison(*at: int) -> MemoryLog:
    log = MemoryLog()
    for topic in ("in", "in.scores", "in.anomalies", "in.dlq"):
        log.create_topic(topic, 2)
    for n in range(200):
        value = 13.0 if n in at else (n * 7) % 11 + 0.5
        log.append("in", json.dumps({"x": value}).encode(), b"k%d" % (n % 3), n * 60_000, partition=1)
    return log


@pytest.mark.parametrize("polls", [1, 17, 200])
def test_a_record_that_its_learner_fails_at_is_a_dead_letter(
    store: MemoryStore, poisoned: list[int], polls: int
) -> None:
    """The others of its batch are scored as if it had not been there."""
    log, clean = with_poison(50, 51, 120), with_poison()
    loop, _ = loop_over(log, store, polls=[polls], **OFTEN)
    loop.run(until_read(loop, log))
    dead = log.records("in.dlq", 1)
    assert [dict(r.headers)["__streams.errors.offset"] for r in dead] == [b"50", b"51", b"120"]
    assert {json.loads(r.value or b"")["x"] for r in dead} == {13.0}
    assert b"ZeroDivisionError: poison" in str(dead[0].headers).encode()
    scored = [json.loads(r.value or b"")["source"]["offset"] for r in log.records("in.scores", 1)]
    assert scored == [n for n in range(200) if n not in (50, 51, 120)]
    assert poisoned[-1] == 1  # each was tried alone
    for n in (50, 51, 120):  # the same log with those records unreadable
        clean.partition(ONE).records[n] = LogRecord(n, n * 60_000, b"k%d" % (n % 3), b"{", [])
    other, _ = loop_over(clean, MemoryStore())
    other.run(until_read(other, clean))
    assert [r.value for r in log.records("in.scores")] == [r.value for r in clean.records("in.scores")]


@pytest.mark.parametrize("begun", [False, True])
def test_what_failed_is_the_next_owners_to_try(
    store: MemoryStore, poisoned: list[int], begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that goes after its learner failed and comes back has no memory of that."""
    log = with_poison(50)
    loop, transport = loop_over(log, store, polls=[40], **OFTEN)
    while ONE not in loop._tasks._to_fail:
        loop.turn()
    if begun:  # to be opened again
        with monkeypatch.context() as slow:
            slow.setattr(loop._background, "submit", lambda *call: Future())
            loop.turn()
    assert bool(loop._tasks._alone) is begun
    assert bool(loop._tasks._to_fail) is not begun
    transport.lose(ONE)
    loop.turn()
    assert loop._tasks._alone == loop._tasks._to_fail == {}
    transport.assign(ONE)
    loop.run(until_read(loop, log))
    assert len(log.records("in.dlq")) == 1


def test_a_replay_does_not_decide_again(
    store: MemoryStore, poisoned: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version may not fail there; what is a dead letter stays one."""
    log = with_poison(50)
    loop, _ = loop_over(log, store)
    loop.run(until_read(loop, log))
    before = outputs(log)
    monkeypatch.undo()
    again, _ = loop_over(log, MemoryStore())  # nothing was stored: it replays
    again.run(until_read(again, log))
    assert outputs(log) == before
    task = again.pipelines.get(ONE)
    assert task is None
    log.append("in", b'{"x": 2.5}', b"k0", 200 * 60_000, partition=1)
    third, _ = loop_over(log, store)
    third.run(until_read(third, log))
    assert len(log.records("in.scores")) == 200


def test_a_learner_that_fails_at_everything_stops_the_worker(store: MemoryStore, poisoned: list[int]) -> None:
    log = with_poison(*range(20, 180))
    loop, _ = loop_over(log, store)
    with pytest.raises(StopError, match=r"failed at 101 records.*ZeroDivisionError"):
        loop.run(until_read(loop, log))


def test_a_failure_of_the_machine_stops_the_worker(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Task, columns: Columns) -> Results:
        raise MemoryError

    monkeypatch.setattr(Task, "process", full)
    log = filled()
    loop, _ = loop_over(log, store)
    with pytest.raises(MemoryError):
        loop.run(until_read(loop, log))
    assert outputs(log)["in.dlq"] == []


def test_a_fenced_store_at_the_end_is_no_error(store: MemoryStore) -> None:
    log = filled()
    loop, _ = loop_over(log, store)
    while not until_read(loop, log)():
        loop.turn()
    store.failures = [Fenced("another worker has it"), Fenced("and this")]
    loop.run(lambda: True)
    assert store.sources() == []


def test_the_fields_that_differ_are_named(store: MemoryStore) -> None:
    log = filled()
    loop, _ = loop_over(log, store)
    loop.run(until_read(loop, log))
    changed: dict[str, Any] = {"model": {"name": "stream_ae", "hidden": 5}, "window": {"length": 4}}
    again, _ = loop_over(log, store, input=changed)
    with pytest.raises(StateError, match=r"model\.hidden \(was 4, is 5\), window\.length \(was 16, is 4\)"):
        again.run(until_read(again, log))
