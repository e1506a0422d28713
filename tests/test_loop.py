"""The loop over a Kafka in memory: exactly once, and a state that is a function of the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pytest
from memory_rig import BAD, PARTITIONS, N, filled, loop_over, outputs, until_read

from streamgen import loop as loop_module
from streamgen.errors import BrokerUnavailable, StateError
from streamgen.kafka.transport import OnRevoke, Polled
from streamgen.loop import Loop
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Manifest, Tally
from streamgen.testing import Crash, Fault, LogRecord, MemoryLog, MemoryStore, MemoryTransport

MANIFEST = Manifest(TopicPartition("in", 0), 0, ("x",), 0, {}, "")
SCORE_FIELDS = [
    "key", "timestamp", "score", "p_value", "nll", "is_anomaly", "threshold", "warming_up", "late",
    "expected", "interval", "contributions", "imputed", "model", "step", "source",
]  # fmt: skip


def whole_run(state: MemoryStore, **settings: object) -> dict[str, list[LogRecord]]:
    log = filled()
    loop, _ = loop_over(log, state, **settings)
    loop.run(until_read(loop, log))
    return outputs(log)


def test_each_record_has_one_result_in_its_partition(uninterrupted: dict[str, list[LogRecord]]) -> None:
    log = filled()
    expected = [
        (partition, record.offset)
        for partition in range(PARTITIONS)
        for record in log.records("in", partition)
    ]
    scored = [json.loads(record.value or b"")["source"] for record in uninterrupted["in.scores"]]
    dead = [dict(record.headers) for record in uninterrupted["in.dlq"]]
    found = [(source["partition"], source["offset"]) for source in scored]
    assert found == sorted(found)  # in order
    found += [(int(h["__streams.errors.partition"]), int(h["__streams.errors.offset"])) for h in dead]
    assert sorted(found) == expected
    assert len(dead) == len(BAD)


def test_dead_letters_are_the_original_bytes_with_the_reason(
    uninterrupted: dict[str, list[LogRecord]],
) -> None:
    reasons = {
        r.value: dict(r.headers)["__streams.errors.exception"].decode() for r in uninterrupted["in.dlq"]
    }
    assert reasons == {
        b"{": "malformed",
        b"": "empty",
        b'{"x": null}': "no_usable_value",
        b'{"x": 1e999}': "not_finite",
        b'{"y": 1}': "no_usable_value",
    }


def test_a_score_says_what_is_documented(uninterrupted: dict[str, list[LogRecord]]) -> None:
    record = uninterrupted["in.scores"][-1]
    score = json.loads(record.value or b"")
    assert list(score) == SCORE_FIELDS
    assert record.key == score["key"].encode()
    assert score["interval"]["x"][0] < score["expected"]["x"] < score["interval"]["x"][1]
    assert sum(score["contributions"].values()) == pytest.approx(score["nll"])
    headers = dict(record.headers)
    source = score["source"]
    assert headers["ce_id"] == f"streamgen/in/{source['partition']}/{source['offset']}/score".encode()
    assert headers["ce_time"].decode() == score["timestamp"]


@pytest.mark.parametrize("polls", [[1], [7], [1, 50, 3]])
def test_how_the_log_was_cut_changes_nothing(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]], polls: list[int]
) -> None:
    log = filled()
    loop, _ = loop_over(log, store, polls=polls)
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_committing_every_record_changes_nothing(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log = filled()
    loop, transport = loop_over(log, store, polls=[1], commit_interval_ms=0)
    loop.run(until_read(loop, log))
    assert transport.published == N
    assert outputs(log) == uninterrupted


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.ABORT],
        [Fault.ABORT, Fault.ABORT, None, Fault.ABORT],
        [None, Fault.UNKNOWN_COMMITTED],
        [None, Fault.UNKNOWN_LOST, Fault.UNKNOWN_COMMITTED],
        [Fault.FENCED, None, Fault.FENCED],
        [None, Fault.ABORT, Fault.FENCED, Fault.UNKNOWN_LOST, None, Fault.ABORT],
    ],
)
def test_failed_publishes_lose_and_double_nothing(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]], faults: list[Fault | None]
) -> None:
    log = filled()
    loop, _ = loop_over(log, store, polls=[20], faults=faults, commit_interval_ms=5)
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
@pytest.mark.parametrize("every_records", [30, 10_000])
@pytest.mark.parametrize("when", [0, 1, 5])
def test_after_a_crash_the_rest_is_what_it_would_have_been(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]], fault: Fault, every_records: int, when: int
) -> None:
    log = filled()
    settings = {"commit_interval_ms": 5, "every_records": every_records}
    loop, _ = loop_over(log, store, polls=[11], faults=[*[None] * when, fault], **settings)
    with pytest.raises(Crash):
        loop.run(until_read(loop, log))
    again, _ = loop_over(log, store, polls=[13], **settings)
    again.run(until_read(again, log))
    assert outputs(log) == uninterrupted


def test_a_clean_stop_and_restart_changes_nothing(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log = filled()
    turns = 0

    def soon() -> bool:
        nonlocal turns
        turns += 1
        return turns > 6

    loop, _ = loop_over(log, store, polls=[11])
    loop.run(soon)
    assert 0 < sum(log.committed["streamgen"].values()) < N
    assert store.sources() == log.partitions("in")  # checkpointed at the end
    again, _ = loop_over(log, store)
    again.run(until_read(again, log))
    assert outputs(log) == uninterrupted


def test_a_partition_that_leaves_and_comes_back_changes_nothing(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log = filled()
    loop, transport = loop_over(log, store, polls=[11], commit_interval_ms=5)
    source = log.partitions("in")[1]
    for turn in range(12):
        loop.turn()
        if turn == 3:
            transport.revoke(source)
        if turn == 6:
            assert source not in loop.pipelines
            transport.assign(source)
        if turn == 9:
            transport.lose(source)
    transport.assign(source)
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_silent_learning_before_publish_from(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    """Published results begin at the time; they are what they would have been all the same."""
    log = filled()
    loop, _ = loop_over(log, store, input={"publish_from": "1970-01-01T02:00:00"})  # record 120
    loop.run(until_read(loop, log))
    late = [r for r in uninterrupted["in.scores"] if r.timestamp >= 120 * 60_000]
    assert outputs(log)["in.scores"] == late
    assert len(late) > 100


def test_start_is_resolved_once(store: MemoryStore) -> None:
    log = filled(bad=False)
    loop, _ = loop_over(log, store, input={"start": "latest"})
    loop.turn()
    log.append("in", b'{"x": 1.0}', key=b"k0", timestamp_ms=N * 60_000)
    loop.run(until_read(loop, log))
    assert len(outputs(log)["in.scores"]) == 1
    assert log.pins("streamgen").all("in#id-1").keys() == {"start", "publish_from", "features"}


def test_another_configuration_refuses_the_old_state(store: MemoryStore) -> None:
    log = filled()
    loop, _ = loop_over(log, store)
    loop.run(until_read(loop, log))
    again, _ = loop_over(log, store, seed=1)
    with pytest.raises(StateError, match="another configuration"):
        again.run(until_read(again, log))


def test_only_what_changes_learning_is_in_the_fingerprint(store: MemoryStore) -> None:
    log = filled()
    loop, _ = loop_over(log, store)
    loop.run(until_read(loop, log))
    log.append("in", b'{"x": 1.0}', key=b"k0", timestamp_ms=N * 60_000)
    again, _ = loop_over(log, store, input={"anomaly": {"alert_budget": 7.0}})
    again.run(until_read(again, log))
    assert len(outputs(log)["in.scores"]) == N - len(BAD) + 1


def test_the_schema_is_the_first_usable_records_and_stays(store: MemoryStore) -> None:
    log = MemoryLog()
    for topic in ("in", "in.scores", "in.anomalies", "in.dlq"):
        log.create_topic(topic, 1)
    for n, value in enumerate([b"[]", b'{"name": "a"}', b'{"x": 1, "z": true}', b'{"x": 2, "new": 5}']):
        log.append("in", value, key=b"k", timestamp_ms=n)
    loop, _ = loop_over(log, store, polls=[1])
    loop.run(until_read(loop, log))
    assert log.pins("streamgen").get("in#id-1", "features") == ["x", "z"]
    assert [json.loads(r.value or b"")["imputed"] for r in log.records("in.scores")] == [[], ["z"]]
    assert [r.value for r in log.records("in.dlq")] == [b"[]", b'{"name": "a"}']


class Unlucky(MemoryTransport):
    """Says that no broker answers at the given calls of `committed`."""

    silent: tuple[int, ...] = ()
    calls = 0

    def committed(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        self.calls += 1
        if self.calls in self.silent:
            raise BrokerUnavailable("no broker answered")
        return super().committed(sources)


def unlucky_loop(
    log: MemoryLog, state: MemoryStore, silent: tuple[int, ...], faults: Sequence[Fault | None] = ()
) -> Loop:
    transport = Unlucky(log, ["in"], poll_sizes=[20])
    transport.silent = silent
    return loop_over(log, state, faults=faults, transport=transport, commit_interval_ms=5)[0]


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_COMMITTED, Fault.UNKNOWN_LOST])
def test_a_doubt_is_kept_until_a_broker_answers(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]], fault: Fault
) -> None:
    """Nothing is sent again before it is known whether it is visible already."""
    log = filled()
    loop = unlucky_loop(log, store, silent=(3, 4, 5), faults=[None, fault])  # 1 and 2: opening
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_a_partition_that_could_not_be_opened_is_opened_later(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log = filled()
    loop = unlucky_loop(log, store, silent=(1, 3))
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_records_that_came_with_a_partition_that_cannot_be_opened_are_not_lost(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log = filled()
    loop = unlucky_loop(log, store, silent=(3, 4))
    transport = loop._transport
    assert isinstance(transport, Unlucky)
    one = log.partitions("in")[1]
    loop.turn()
    transport.revoke(one)
    loop.turn()
    transport.assign(one)  # opened at the third call, while the other partition delivers
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_features_that_could_not_be_pinned_are_pinned_later(store: MemoryStore) -> None:
    """The records that the pin was asked for are still there, and their dead letters are sent once."""
    log = MemoryLog()
    for topic in ("in", "in.scores", "in.anomalies", "in.dlq"):
        log.create_topic(topic, 1)
    for n, value in enumerate([b"[]", b'{"x": 1}', b'{"x": 2}', b"{", b'{"x": 3}']):
        log.append("in", value, key=b"k", timestamp_ms=n)
    loop, _ = loop_over(log, store, polls=[3])
    put, failures = loop._tasks._pins.put_if_absent, 2

    def unlucky(topic: str, name: str, value: object) -> object:
        nonlocal failures
        if name == "features" and failures:
            failures -= 1
            raise BrokerUnavailable("no broker answered")
        return put(topic, name, value)

    loop._tasks._pins.put_if_absent = unlucky  # type: ignore[method-assign]
    loop.run(until_read(loop, log))
    assert [json.loads(r.value or b"")["source"]["offset"] for r in log.records("in.scores")] == [1, 2, 4]
    assert [r.value for r in log.records("in.dlq")] == [b"[]", b"{"]


def test_results_have_the_kafka_timestamp_of_their_record(store: MemoryStore) -> None:
    """Not the event time: a broker refuses what is far ahead of its clock, and deletes what is far behind."""
    log = MemoryLog()
    for topic in ("in", "in.scores", "in.anomalies", "in.dlq"):
        log.create_topic(topic, 1)
    for n in range(400):
        value = {"x": n % 2 + (99 if n == 390 else 0), "at": 3600 * n}
        log.append("in", json.dumps(value).encode(), key=b"k", timestamp_ms=10**12 + n)
    limits = {"max_behind": None, "max_ahead": None}
    loop, _ = loop_over(log, store, input={"timestamp": {"field": "at", **limits}})
    loop.run(until_read(loop, log))
    scores = [(r.timestamp, json.loads(r.value or b"")["timestamp"]) for r in log.records("in.scores")]
    assert [time for time, _ in scores] == [10**12 + n for n in range(400)]
    assert scores[24][1] == "1970-01-02T00:00:00.000Z"
    assert log.records("in.anomalies")[0].timestamp == 10**12 + 390


def test_a_partition_that_is_gone_before_it_was_opened_stops_nothing(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log = filled()
    loop, transport = loop_over(log, store, polls=[20])
    gone = log.partitions("in")[1]
    seek = transport.seek

    def late(source: TopicPartition, offset: int) -> None:
        if source == gone:
            transport.seek = seek  # type: ignore[method-assign]
            transport._position.pop(gone)
        seek(source, offset)

    transport.seek = late  # type: ignore[method-assign]
    loop.turn()
    assert not loop.pipelines
    loop.turn()
    assert gone not in loop.pipelines
    transport.assign(gone)
    for _ in range(50):
        loop.turn()
    assert outputs(log) == uninterrupted


def test_what_is_learned_does_not_depend_on_when_the_schema_was_known(store: MemoryStore) -> None:
    """A replay knows the features from the start; what was dead before they were known stays dead."""
    log = MemoryLog()
    for topic in ("in", "in.scores", "in.anomalies", "in.dlq"):
        log.create_topic(topic, 2)
    log.append("in", b'{"x": 1e999, "y": 1}', key=b"k", partition=1)
    settings = {"commit_interval_ms": 0}
    loop, _ = loop_over(log, store, **settings)
    loop.turn()
    log.append("in", b'{"y": 1}', key=b"k", partition=0)
    loop.turn()
    log.append("in", b'{"y": 2}', key=b"k", partition=1)
    loop.turn()
    source = log.partitions("in")[1]
    again, _ = loop_over(log, store, **settings)  # nothing was stored: it replays
    for _ in range(3):
        again.turn()
    one, other = loop.pipelines[source].task, again.pipelines[source].task
    assert one is not None
    assert other is not None
    assert Tally.of(one.learners()).seal(MANIFEST) == Tally.of(other.learners()).seal(MANIFEST)


def test_an_outage_of_hours_is_waited_out(
    store: MemoryStore, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log = filled()
    loop = unlucky_loop(log, store, silent=tuple(range(1, 1200)))
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_dead_letters_do_not_pile_up(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "MAX_PENDING", 50)
    log = MemoryLog()
    for topic in ("in", "in.scores", "in.anomalies", "in.dlq"):
        log.create_topic(topic, 1)
    for n in range(300):
        log.append("in", b"{", timestamp_ms=n)
    loop, transport = loop_over(log, store, polls=[60], commit_interval_ms=1_000_000)
    for _ in range(6):
        loop.turn()
    assert len(log.records("in.dlq")) == 300
    assert transport.published == 5


class Waiting(MemoryTransport):
    """The group has not answered yet at the first polls."""

    left = 3

    def poll(self, timeout_s: float, max_records: int, on_revoke: OnRevoke | None = None) -> Polled:
        self.left -= 1
        return Polled(joined=False) if self.left >= 0 else super().poll(timeout_s, max_records, on_revoke)


def test_a_worker_is_not_ready_before_the_group_has_said_what_is_its(store: MemoryStore) -> None:
    log = filled()
    loop, _ = loop_over(log, store, transport=Waiting(log, ["in"]))
    for _ in range(3):
        loop.turn()
        assert set(loop._health.not_ready()) == {"assigned"}
    loop.run(until_read(loop, log))
    assert loop._health.not_ready() == {}
