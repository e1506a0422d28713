"""What the client gets wrong unless coded around, each with the guard that holds: one test a trap."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamgen.config import Config, InputConfig, KafkaConfig
from streamgen.errors import Fenced, OutcomeUnknown, PublishAborted, StopError
from streamgen.kafka import consumer as consumer_module
from streamgen.kafka import fastpath
from streamgen.kafka import producer as producer_module
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.client import client_settings
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.records import OutputBatch, TopicPartition

Reader = Callable[[str], list[Any]]


class Rig:
    """An input with one partition and ten records, and an output."""

    def __init__(self, kafka: KafkaConfig, fresh: Callable[[str], str]) -> None:
        from kafka import KafkaProducer

        self.config = Config(
            kafka=kafka, application_id=fresh("app"), inputs=[InputConfig(topic=fresh("source"))]
        )
        self.input = TopicPartition(self.config.inputs[0].topic, 0)
        self.output = TopicPartition(fresh("target"), 0)
        create_topics(kafka, [NewTopic(self.input.topic), NewTopic(self.output.topic)])
        feeder = KafkaProducer(**client_settings(kafka))
        for n in range(10):
            feeder.send(self.input.topic, b"%d" % n)
        feeder.close()
        self.open: list[KafkaTransport] = []

    def worker(self, name: str = "w0") -> KafkaTransport:
        self.open.append(KafkaTransport(self.config, [self.input.topic], name))
        return self.open[-1]

    def batch(self, *values: bytes) -> OutputBatch:
        n = len(values)
        return OutputBatch(self.output, [0] * n, [None] * n, list(values), [[] for _ in values])

    def join(self, worker: KafkaTransport, offset: int = 0) -> None:
        wait(lambda: self.input in poll(worker).assigned)
        worker.seek(self.input, offset)

    def read_one(self, worker: KafkaTransport) -> None:
        wait(lambda: poll(worker, 1).batches)


def poll(worker: KafkaTransport, max_records: int = 100) -> Any:
    return worker.poll(0.1, max_records)


def wait(until: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline


@pytest.fixture
def rig(kafka: KafkaConfig, fresh: Callable[[str], str]) -> Iterator[Rig]:
    made = Rig(kafka, fresh)
    yield made
    for worker in made.open:
        worker.close()


@pytest.fixture
def paused(broker: EmbeddedBroker) -> Iterator[Callable[[float], None]]:
    """Stop the broker's process, and let it go on after some seconds."""
    timers: list[threading.Timer] = []

    def pause(seconds: float) -> None:
        os.kill(broker.pid, signal.SIGSTOP)
        timers.append(threading.Timer(seconds, os.kill, (broker.pid, signal.SIGCONT)))
        timers[-1].start()

    yield pause
    for timer in timers:
        timer.join()


def values(records: list[Any]) -> list[bytes]:
    return [record.value for record in records]


def test_records_that_expire_abort_the_transaction(
    rig: Rig, paused: Callable[[float], None], read_committed: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would commit a transaction whose records it gave up; only their futures tell."""
    monkeypatch.setattr(producer_module, "REQUEST_TIMEOUT_MS", 500)
    monkeypatch.setattr(producer_module, "DELIVERY_TIMEOUT_MS", 1000)
    monkeypatch.setattr(fastpath, "BATCH_BYTES", 1)  # one record a batch
    append = fastpath.append

    def expire(producer: Any, batch: OutputBatch, first: int, limit: int) -> Any:
        if batch.value[first] != b"2":
            return append(producer, batch, first, limit)
        time.sleep(0.3)  # the first record is written by now
        paused(1.5)
        made = append(producer, batch, first, limit)
        time.sleep(2.0)  # the broker is well again
        return made

    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    worker.publish([rig.batch(b"0")], {rig.input: 1})
    with monkeypatch.context() as patched:
        patched.setattr(fastpath, "append", expire)
        with pytest.raises(PublishAborted):
            worker.publish([rig.batch(b"1", b"2")], {rig.input: 3})
    wait(lambda: published(worker, rig.batch(b"1", b"2"), {rig.input: 3}))
    assert values(read_committed(rig.output.topic)) == [b"0", b"1", b"2"]
    assert worker.committed([rig.input]) == {rig.input: 3}


def published(worker: KafkaTransport, batch: OutputBatch, offsets: dict[TopicPartition, int]) -> bool:
    try:
        worker.publish([batch], offsets)
    except PublishAborted:
        return False
    return True


def test_an_expired_transaction_is_never_taken_for_committed(
    rig: Rig, read_committed: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the transaction's timeout the client's commit returns although nothing was committed."""
    monkeypatch.setattr(producer_module, "TRANSACTION_TIMEOUT_MS", 500)
    monkeypatch.setattr(fastpath, "BATCH_BYTES", 1)  # one record a batch
    append, calls = fastpath.append, 0

    def late(producer: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            time.sleep(2.5)
        return append(producer, *arguments)

    monkeypatch.setattr(fastpath, "append", late)
    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    with pytest.raises(Fenced):
        worker.publish([rig.batch(b"0", b"1")], {rig.input: 2})
    assert values(read_committed(rig.output.topic)) == []
    rig.join(worker)
    rig.read_one(worker)
    worker.publish([rig.batch(b"0", b"1")], {rig.input: 2})
    assert values(read_committed(rig.output.topic)) == [b"0", b"1"]


def test_a_worker_that_hung_cannot_commit_with_what_it_polled_before(
    rig: Rig, read_committed: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past max.poll.interval the client's metadata has generation -1, which the broker accepts."""
    short = {"max_poll_interval_ms": 1000, "heartbeat_interval_ms": 200}
    monkeypatch.setattr(consumer_module, "client_settings", lambda kafka: client_settings(kafka) | short)
    hung, other = rig.worker("w0"), None
    rig.join(hung)
    rig.read_one(hung)
    other = rig.worker("w1")
    rig.join(other)  # takes until the first one's time is up
    rig.read_one(other)
    other.publish([rig.batch(b"0")], {rig.input: 1})
    with pytest.raises(Fenced):
        hung.publish([rig.batch(b"0")], {rig.input: 1})
    assert values(read_committed(rig.output.topic)) == [b"0"]
    assert other.committed([rig.input]) == {rig.input: 1}


def test_a_void_membership_is_told_at_the_poll_and_then_joined_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"max_poll_interval_ms": 1000, "heartbeat_interval_ms": 200}
    monkeypatch.setattr(consumer_module, "client_settings", lambda kafka: client_settings(kafka) | short)
    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    time.sleep(1.8)
    seen: list[Any] = []

    def told() -> bool:
        try:
            seen.append(poll(worker))
        except Fenced:
            seen.append("fenced")
        return seen[-1] == "fenced" or rig.input in seen[-1].lost

    wait(told)
    assert not any(one.batches for one in seen if one != "fenced")
    if rig.input not in getattr(seen[-1], "assigned", ()):
        rig.join(worker, 4)
    else:
        worker.seek(rig.input, 4)
    seen.clear()
    wait(lambda: seen.append(poll(worker)) or seen[-1].batches)
    assert seen[-1].batches[0].offset_N[0] == 4


def test_records_polled_without_a_membership_are_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client may hand records of its old partitions over when its membership has just ended."""
    from kafka.structs import ConsumerGroupMetadata

    worker = rig.worker()
    rig.join(worker)
    void = ConsumerGroupMetadata(group_id=rig.config.application_id)
    with monkeypatch.context() as patched:
        patched.setattr(worker._consumer._consumer, "group_metadata", lambda: void)
        with pytest.raises(Fenced):
            poll(worker)
        assert not poll(worker).assigned  # not before it has joined again
        with pytest.raises(Fenced):
            worker.publish([rig.batch(b"0")], {rig.input: 1})
    rig.join(worker, 3)
    seen: list[Any] = []
    wait(lambda: seen.append(poll(worker)) or seen[-1].batches)
    assert seen[-1].batches[0].offset_N[0] == 3


def test_the_same_id_elsewhere_fences(rig: Rig, read_committed: Reader) -> None:
    old = rig.worker("w0")
    rig.join(old)
    rig.read_one(old)
    old.publish([rig.batch(b"0")], {rig.input: 1})
    new = producer_module.TransactionalProducer(rig.config.kafka, f"{rig.config.application_id}-w0")
    new.open()
    with pytest.raises(Fenced):
        old.publish([rig.batch(b"1")], {rig.input: 2})
    new.publish([rig.batch(b"2")])
    new.close()
    assert values(read_committed(rig.output.topic)) == [b"0", b"2"]


def test_an_answer_that_is_lost_leaves_the_committed_offset_to_tell(
    rig: Rig, paused: Callable[[float], None], read_committed: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    worker.publish([rig.batch(b"0")], {rig.input: 1})
    commit = fastpath.commit

    def lost(producer: Any, timeout_s: float) -> bool:
        paused(2.0)
        return commit(producer, 0.5)

    with monkeypatch.context() as patched:
        patched.setattr(fastpath, "commit", lost)
        with pytest.raises(OutcomeUnknown):
            worker.publish([rig.batch(b"1")], {rig.input: 2})
    committed = worker.committed([rig.input])[rig.input]
    assert values(read_committed(rig.output.topic)) == [b"0", b"1"][:committed]
    worker.publish([rig.batch(*[b"1", b"2"][(committed or 0) - 1 :])], {rig.input: 3})
    assert values(read_committed(rig.output.topic)) == [b"0", b"1", b"2"]


def test_a_record_that_is_too_large_stops_and_nothing_of_its_transaction_shows(
    rig: Rig, read_committed: Reader
) -> None:
    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    with pytest.raises(StopError, match=rf"{rig.output}.*max\.message\.bytes"):
        worker.publish([rig.batch(b"0", b"x" * 1_100_000, b"2")], {rig.input: 1})
    assert values(read_committed(rig.output.topic)) == []
    assert worker.committed([rig.input]) == {rig.input: None}
    worker.publish([rig.batch(b"0")], {rig.input: 1})
    assert values(read_committed(rig.output.topic)) == [b"0"]


def test_batches_are_cut_to_what_a_topic_takes(
    rig: Rig, kafka: KafkaConfig, fresh: Callable[[str], str], read_committed: Reader
) -> None:
    small = fresh("small")
    create_topics(kafka, [NewTopic(small, settings={"max.message.bytes": "20000"})])
    worker = rig.worker()
    batch = rig.batch(*[b"%03d" % n + b"x" * 1000 for n in range(100)])
    batch = OutputBatch(TopicPartition(small, 0), batch.timestamp, batch.key, batch.value, batch.headers)
    wait(lambda: published(worker, batch, {}))
    assert values(read_committed(small)) == batch.value


def test_a_joining_worker_takes_partitions_and_leaves_the_rest_running(
    rig: Rig, kafka: KafkaConfig, fresh: Callable[[str], str]
) -> None:
    topic = fresh("wide")
    create_topics(kafka, [NewTopic(topic, 4)])
    config = Config(kafka=kafka, application_id=fresh("app"), inputs=[InputConfig(topic=topic)])
    owned: list[set[TopicPartition]] = [set(), set()]
    workers: list[KafkaTransport] = []

    def poll_all() -> list[int]:
        for own, worker in zip(owned, workers, strict=False):
            polled = poll(worker)
            assert not polled.lost
            own -= polled.revoked
            assert not own & polled.assigned
            own |= polled.assigned
        return [len(own) for own in owned]

    for name in ("w0", "w1"):
        workers.append(KafkaTransport(config, [topic], name))
        rig.open.append(workers[-1])
        wait(lambda: sum(poll_all()) == 4 and min(map(len, owned[: len(workers)])) == 4 // len(workers))
    assert not owned[0] & owned[1]


def test_a_worker_goes_on_when_the_broker_was_killed(fresh: Callable[[str], str]) -> None:
    from kafka import KafkaConsumer

    with EmbeddedBroker() as broker:
        rig = Rig(KafkaConfig(bootstrap_servers=broker.bootstrap_servers), fresh)
        worker = rig.worker()
        rig.join(worker)
        rig.read_one(worker)
        worker.publish([rig.batch(b"0")], {rig.input: 1})
        broker.kill()
        killed = time.monotonic()
        restart = threading.Timer(0.5, broker.start)
        restart.start()
        # The client alone would lose the request that was under way and wait for the delivery timeout.
        wait(lambda: published(worker, rig.batch(b"1"), {rig.input: 2}))
        assert time.monotonic() - killed < producer_module.DELIVERY_TIMEOUT_MS / 1000
        restart.join()
        settings = client_settings(rig.config.kafka)
        reader = KafkaConsumer(
            rig.output.topic,
            **settings,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            consumer_timeout_ms=1500,
        )
        assert values(list(reader)) == [b"0", b"1"]
        reader.close()
        assert worker.committed([rig.input]) == {rig.input: 2}
        worker.close()
