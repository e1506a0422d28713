"""A log in memory: topics, committed offsets and pins."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamgen.errors import TopicError
from streamgen.kafka import pins
from streamgen.kafka.transport import Committed
from streamgen.records import Headers, OutputBatch, TopicPartition


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the log; `timestamp` in milliseconds since 1970-01-01 UTC."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class _Partition:
    records: list[LogRecord] = field(default_factory=list)
    start: int = 0
    end: int = 0


class MemoryLog:
    """Topics, the committed offsets of every group, and the pins of every application."""

    def __init__(self) -> None:
        self._topics: dict[str, list[_Partition]] = {}
        self._made = itertools.count(1)
        self.topic_ids: dict[str, str] = {}
        self.committed: dict[str, dict[TopicPartition, int]] = {}  # by group
        self._committed_of: dict[tuple[str, TopicPartition], str] = {}  # the topic's id then
        self.owner: dict[str, object] = {}  # by group: its one member
        self._pins: dict[str, dict[bytes, bytes]] = {}

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Raises `TopicError` when it exists."""
        if topic in self._topics:
            raise TopicError(f"The topic {topic} exists already.")
        self._topics[topic] = [_Partition() for _ in range(partitions)]
        self.topic_ids[topic] = f"id-{next(self._made)}"

    def delete_topic(self, topic: str) -> None:
        """As in Kafka, what a group has committed of it stays."""
        del self._topics[topic]

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Raises `TopicError` when there is no such topic."""
        if topic not in self._topics:
            raise TopicError(f"The topic {topic} does not exist: create it, or correct its name.")
        return [TopicPartition(topic, n) for n in range(len(self._topics[topic]))]

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        timestamp_ms: int = 0,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> int:
        """Write one record and return its offset. Without `partition` the key decides; no key: 0."""
        count = len(self.partitions(topic))
        chosen = zlib.crc32(key or b"") % count if partition is None and key is not None else partition or 0
        log = self._topics[topic][chosen]
        log.records.append(LogRecord(log.end, timestamp_ms, key, value, list(headers)))
        log.end += 1
        return log.end - 1

    def skip(self, source: TopicPartition, offsets: int = 1) -> None:
        """Use up offsets that no reader gets: markers of transactions, aborted or compacted records."""
        self.partition(source).end += offsets

    def expire(self, source: TopicPartition, before: int) -> None:
        """Drop the records before an offset, as retention does."""
        log = self.partition(source)
        log.start = min(max(log.start, before), log.end)
        log.records = [record for record in log.records if record.offset >= log.start]

    def partition(self, source: TopicPartition) -> _Partition:
        self.partitions(source.topic)
        return self._topics[source.topic][source.partition]

    def records(self, topic: str, partition: int | None = None) -> list[LogRecord]:
        """All committed records of a topic, partition by partition, in offset order."""
        chosen = self._topics[topic] if partition is None else [self._topics[topic][partition]]
        return list(itertools.chain.from_iterable(log.records for log in chosen))

    def commit(
        self,
        group: str,
        outputs: Iterable[OutputBatch],
        offsets: Mapping[TopicPartition, int],
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        """Write outputs and offsets at once; each written partition also gets a marker, as in Kafka."""
        written = set()
        for batch in outputs:
            columns = zip(batch.value, batch.key, batch.timestamp, batch.headers, strict=True)
            for value, key, timestamp, headers in columns:
                self.append(batch.target.topic, value, key, timestamp, batch.target.partition, headers)
            written.add(batch.target)
        for target in written:
            self.skip(target)
        self.committed.setdefault(group, {}).update(offsets)
        ids = self.topic_ids if topic_ids is None else topic_ids
        self._committed_of.update({(group, source): ids[source.topic] for source in offsets})

    def committed_by(self, group: str, source: TopicPartition) -> Committed | None:
        """What `Transport.committed` gives."""
        offset = self.committed.get(group, {}).get(source)
        return None if offset is None else Committed(offset, self._committed_of.get((group, source), ""))

    def pins(self, application_id: str) -> MemoryPins:
        return MemoryPins(self._pins.setdefault(application_id, {}))


class MemoryPins:
    """`streamgen.kafka.pins.Pins` in memory, through the same encoding."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self._records = records

    def get(self, topic: str, name: str) -> Any:
        key = pins.encode_key(topic, name)
        encoded = self._records.get(key)
        return None if encoded is None else pins.decode_value(key, encoded)

    def put_if_absent(self, topic: str, name: str, value: Any) -> Any:
        self._records.setdefault(pins.encode_key(topic, name), pins.encode_value(value))
        return self.get(topic, name)

    def all(self, topic: str) -> dict[str, Any]:
        return pins.names_of(topic, {key: pins.decode_value(key, one) for key, one in self._records.items()})
