"""What the loop relies on, of every transport: the one in memory and the one over a real Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from streamgen.config import Config, InputConfig, KafkaConfig
from streamgen.errors import Fenced, TopicError
from streamgen.kafka.transport import Polled, Transport
from streamgen.records import Headers, OutputBatch, RawBatch, TopicPartition
from streamgen.testing import MemoryLog, MemoryTransport

Row = tuple[int, int, bytes | None, bytes | None, Headers]  # partition, timestamp, key, value, headers


class World(Protocol):
    """A Kafka, real or not, with a topic of two partitions called `source` and another called `target`."""

    source: str
    target: str

    def append(self, partition: int, values: list[bytes | None]) -> None: ...
    def transport(self, worker: str = "w0") -> Transport: ...
    def rows(self, topic: str) -> list[Row]: ...


class MemoryWorld:
    source, target = "source", "target"

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.log.create_topic(self.source, 2)
        self.log.create_topic(self.target, 2)

    def append(self, partition: int, values: list[bytes | None]) -> None:
        for value in values:
            stamp = 1000 * self.log.partition(TopicPartition(self.source, partition)).end
            self.log.append(self.source, value, b"key", stamp, partition, [("h", b"1")])

    def transport(self, worker: str = "w0") -> Transport:
        return MemoryTransport(self.log, [self.source])

    def rows(self, topic: str) -> list[Row]:
        return [
            (tp.partition, record.timestamp, record.key, record.value, record.headers)
            for tp in self.log.partitions(topic)
            for record in self.log.records(topic, tp.partition)
        ]


class KafkaWorld:
    def __init__(
        self, kafka: KafkaConfig, fresh: Callable[[str], str], read: Callable[[str], list[Any]]
    ) -> None:
        from kafka import KafkaProducer

        from streamgen.kafka.client import client_settings
        from streamgen.kafka.topics import NewTopic, create_topics

        self.source, self.target, self.app = fresh("source"), fresh("target"), fresh("app")
        self.kafka, self.read = kafka, read
        create_topics(kafka, [NewTopic(self.source, 2), NewTopic(self.target, 2)])
        self.producer = KafkaProducer(**client_settings(kafka))
        self.written = [0, 0]
        self.open: list[Transport] = []

    def append(self, partition: int, values: list[bytes | None]) -> None:
        for value in values:
            stamp = 1000 * self.written[partition]
            self.written[partition] += 1
            self.producer.send(
                self.source, value, b"key", [("h", b"1")], partition=partition, timestamp_ms=stamp
            )
        self.producer.flush()

    def transport(self, worker: str = "w0") -> Transport:
        from streamgen.kafka.kafka_transport import KafkaTransport

        config = Config(kafka=self.kafka, application_id=self.app, inputs=[InputConfig(topic=self.source)])
        self.open.append(KafkaTransport(config, [self.source], worker))
        return self.open[-1]

    def rows(self, topic: str) -> list[Row]:
        return [(r.partition, r.timestamp, r.key, r.value, r.headers) for r in self.read(topic)]


@pytest.fixture(params=["memory", "kafka"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    made = KafkaWorld(*(request.getfixturevalue(name) for name in ("kafka", "fresh", "read_committed")))
    yield made
    for transport in made.open:
        transport.close()
    made.producer.close()


def committed(transport: Transport, source: TopicPartition) -> int | None:
    found = transport.committed([source])[source]
    return None if found is None else found.offset


def poll_until(
    transport: Transport, enough: Callable[[list[Polled]], bool], max_records: int = 100
) -> list[Polled]:
    """Poll until it is enough; fails after 20 s."""
    seen: list[Polled] = []
    deadline = time.monotonic() + 20
    while not enough(seen):
        assert time.monotonic() < deadline, seen
        seen.append(transport.poll(0.1, max_records))
    return seen


def assigned(seen: list[Polled]) -> set[TopicPartition]:
    return {source for polled in seen for source in polled.assigned}


def start(transport: Transport, offset: int = 0) -> None:
    """Join, and begin both partitions at an offset."""
    for source in assigned(poll_until(transport, lambda seen: len(assigned(seen)) == 2)):
        transport.seek(source, offset)


def records(seen: list[Polled]) -> list[tuple[int, int, bytes | None]]:
    """(partition, offset, value) as delivered."""
    return [
        (batch.source.partition, int(offset), value)
        for polled in seen
        for batch in polled.batches
        for offset, value in zip(batch.offset_N, batch.value, strict=True)
    ]


def read(transport: Transport, count: int, max_records: int = 100) -> list[tuple[int, int, bytes | None]]:
    return records(poll_until(transport, lambda seen: len(records(seen)) >= count, max_records))


def output(world: World, partition: int, *values: bytes | None) -> OutputBatch:
    n = len(values)
    target = TopicPartition(world.target, partition)
    return OutputBatch(target, list(range(n)), [b"k"] * n, list(values), [[("id", b"7")]] * n)


def test_nothing_is_delivered_before_seek(world: World) -> None:
    world.append(0, [b"a", b"b"])
    transport = world.transport()
    seen = poll_until(transport, lambda seen: len(assigned(seen)) == 2)
    seen += [transport.poll(0.1, 100) for _ in range(5)]
    assert records(seen) == []
    transport.seek(TopicPartition(world.source, 0), 1)
    assert read(transport, 1) == [(0, 1, b"b")]


def test_columns_of_a_batch(world: World) -> None:
    world.append(1, [b"a", None, b""])
    transport = world.transport()
    start(transport)
    seen = poll_until(transport, lambda seen: len(records(seen)) == 3)
    (batch,) = [batch for polled in seen for batch in polled.batches]
    assert isinstance(batch, RawBatch)
    assert batch.source == TopicPartition(world.source, 1)
    assert batch.offset_N.tolist() == [0, 1, 2]
    assert batch.timestamp_N.tolist() == [0, 1000, 2000]
    assert (batch.key, batch.value) == ([b"key"] * 3, [b"a", None, b""])
    assert batch.headers == [[("h", b"1")]] * 3


@pytest.mark.parametrize("max_records", [1, 3, 1000])
def test_polls_of_any_size_bring_every_record_once_in_order(world: World, max_records: int) -> None:
    values: list[bytes | None] = [b"%d" % n for n in range(20)]
    world.append(0, values[:13])
    world.append(0, values[13:])
    world.append(1, values)
    transport = world.transport()
    start(transport)
    polled = poll_until(transport, lambda seen: len(records(seen)) >= 40, max_records)
    assert all(len(records([one])) <= max_records for one in polled)
    for partition in (0, 1):
        own = [(offset, value) for number, offset, value in records(polled) if number == partition]
        assert own == list(enumerate(values))


def test_seek_goes_back_and_pause_holds(world: World) -> None:
    world.append(0, [b"a", b"b", b"c"])
    source = TopicPartition(world.source, 0)
    transport = world.transport()
    start(transport)
    assert len(read(transport, 3)) == 3
    transport.pause([source])
    transport.seek(source, 1)
    assert records([transport.poll(0.1, 100) for _ in range(3)]) == []
    transport.resume([source])
    assert read(transport, 2) == [(0, 1, b"b"), (0, 2, b"c")]


def test_a_partition_that_is_paused_in_mid_fetch_goes_on_when_resumed(world: World) -> None:
    """Also when another one was read to its end meanwhile: alone, the client would then deliver nothing."""
    world.append(0, [b"%d" % n for n in range(300)])
    world.append(1, [b"%d" % n for n in range(50)])
    transport = world.transport()
    start(transport)
    seen = [transport.poll(0.5, 10)]
    while not records(seen):
        seen.append(transport.poll(0.5, 10))
    (first,) = {partition for partition, _, _ in records(seen)}  # the one whose fetch is being read
    transport.pause([TopicPartition(world.source, first)])
    other = {0: 50, 1: 300}[first]
    assert len(read(transport, other)) == other
    transport.poll(0.1, 10)
    transport.resume([TopicPartition(world.source, first)])
    rest = 350 - other - len(records(seen))
    assert len(read(transport, rest)) == rest


def test_publish_is_seen_whole_with_its_offsets(world: World) -> None:
    world.append(0, [b"a", b"b"])
    source = TopicPartition(world.source, 0)
    transport = world.transport()
    start(transport)
    read(transport, 2)
    assert committed(transport, source) is None
    transport.publish([output(world, 0, b"x", None), output(world, 1, b"y")], {source: 2})
    assert world.rows(world.target) == [
        (0, 0, b"k", b"x", [("id", b"7")]),
        (0, 1, b"k", None, [("id", b"7")]),
        (1, 0, b"k", b"y", [("id", b"7")]),
    ]
    assert committed(transport, source) == 2
    transport.publish([], {source: 1})  # offsets alone, and back: refusing that is the caller's to do
    assert committed(transport, source) == 1


def test_a_second_publish_comes_after_the_first(world: World) -> None:
    transport = world.transport()
    start(transport)
    for n in range(5):
        transport.publish([output(world, 0, b"%d" % n)], {})
    assert [row[3] for row in world.rows(world.target)] == [b"%d" % n for n in range(5)]


def test_bounds_and_offsets_by_time(world: World) -> None:
    world.append(0, [b"a", b"b", b"c"])
    transport = world.transport()
    sources = transport.partitions(world.source)
    assert sources == [TopicPartition(world.source, 0), TopicPartition(world.source, 1)]
    first, second = sources
    assert transport.bounds(sources) == {first: (0, 3), second: (0, 0)}
    assert transport.offsets_at(sources, 1000) == {first: 1, second: 0}
    assert transport.offsets_at(sources, 1001) == {first: 2, second: 0}
    assert transport.offsets_at(sources, 99_000) == {first: 3, second: 0}


def test_the_end_lies_past_markers(world: World) -> None:
    transport = world.transport()
    start(transport)
    transport.publish([output(world, 0, b"x")], {})
    target = TopicPartition(world.target, 0)
    poll_until(transport, lambda _: transport.bounds([target])[target][1] > 0)
    assert transport.bounds([target]) == {target: (0, 2)}  # a record and the transaction's marker


def test_a_missing_topic_is_named(world: World) -> None:
    with pytest.raises(TopicError, match="no-such-topic"):
        world.transport().partitions("no-such-topic")


def test_seek_of_a_foreign_partition_is_fenced(world: World) -> None:
    transport = world.transport()
    start(transport)
    with pytest.raises(Fenced):
        transport.seek(TopicPartition(world.target, 0), 0)


def test_after_a_fence_the_next_poll_assigns_again(world: World) -> None:
    """Else a caller that dropped all its tasks would wait for them for ever."""
    world.append(0, [b"a"])
    transport = world.transport()
    start(transport)
    with pytest.raises(Fenced):
        transport.seek(TopicPartition(world.target, 0), 0)
    start(transport)
    assert read(transport, 1) == [(0, 0, b"a")]


def test_a_worker_that_stopped_is_followed_by_the_next(world: World) -> None:
    world.append(0, [b"a", b"b", b"c"])
    source = TopicPartition(world.source, 0)
    first = world.transport("w0")
    start(first)
    read(first, 3)
    first.publish([output(world, 0, b"x")], {source: 2})
    first.close()
    second = world.transport("w1")
    poll_until(second, lambda seen: len(assigned(seen)) == 2)
    reached = committed(second, source)
    assert reached == 2
    second.seek(source, reached)
    assert read(second, 1) == [(0, 2, b"c")]
