"""Kafka in memory, for tests: a log, and a transport over it that fails on demand.

    log = MemoryLog()
    log.create_topic("orders", partitions=2)
    log.append("orders", b'{"x": 1}', key=b"a", timestamp_ms=0)
    transport = MemoryTransport(log, ["orders"], poll_sizes=[7])
    transport.inject(None, Fault.ABORT)  # the second publish from now on is aborted
    ...
    log.records("orders.scores")

Nothing here waits, and nothing depends on the clock: the same calls give the same results.
"""

from __future__ import annotations

import itertools
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from streamgen.errors import Fenced, OutcomeUnknown, PublishAborted, StopError, TopicError
from streamgen.kafka import pins
from streamgen.kafka.transport import Polled
from streamgen.records import Headers, OutputBatch, RawBatch, TopicPartition


class Fault(StrEnum):
    """What goes wrong with a publish."""

    ABORT = "abort"  # the transaction is aborted
    UNKNOWN_COMMITTED = "unknown_committed"  # it commits, but the answer is lost
    UNKNOWN_LOST = "unknown_lost"  # it does not commit, and the answer is lost
    FENCED = "fenced"  # another worker took over: nothing is written
    CRASH_BEFORE = "crash_before"  # the process ends before the commit
    CRASH_AFTER = "crash_after"  # the process ends after the commit, before it knows


class Crash(Exception):
    """Stands for the end of the process: nothing that runs afterwards may use the transport."""


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
        self.committed: dict[str, dict[TopicPartition, int]] = {}  # by group
        self.owner: dict[str, MemoryTransport] = {}  # by group: the one member
        self._pins: dict[str, dict[bytes, bytes]] = {}

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Raises `TopicError` when it exists."""
        if topic in self._topics:
            raise TopicError(f"The topic {topic} exists already.")
        self._topics[topic] = [_Partition() for _ in range(partitions)]

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
        self, group: str, outputs: Iterable[OutputBatch], offsets: Mapping[TopicPartition, int]
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

    def all(self) -> dict[tuple[str, str], Any]:
        """Every pin by (topic, name)."""
        keys = (msgspec.json.decode(key) for key in self._records)
        return {(topic, name): self.get(topic, name) for _, topic, name in keys}


class MemoryTransport:
    """`streamgen.kafka.transport.Transport` over a `MemoryLog`, the only member of its group.

    `poll_sizes` are the most records of successive polls, used in turn; None: what the caller asks for.
    A second transport of the same group takes the partitions over: the first is fenced, as when its
    process had hung and was replaced.
    """

    def __init__(
        self,
        log: MemoryLog,
        topics: Sequence[str],
        group: str = "streamgen",
        poll_sizes: Sequence[int] | None = None,
    ) -> None:
        self.log, self.group = log, group
        self._all = [source for topic in topics for source in log.partitions(topic)]
        self._to_assign: set[TopicPartition] = set(self._all)
        self._to_revoke: set[TopicPartition] = set()
        self._to_lose: set[TopicPartition] = set()
        self._position: dict[TopicPartition, int | None] = {}  # of the assigned; None: not sought yet
        self._paused: set[TopicPartition] = set()
        self._faults: deque[Fault | None] = deque()
        self._sizes = None if poll_sizes is None else itertools.cycle(poll_sizes)
        self._first = 0
        self._void = self._crashed = self._closed = False
        self.published = 0  # publishes that committed
        log.owner[group] = self

    def inject(self, *faults: Fault | None) -> None:
        """Make the next publishes fail so, one fault each; None lets one through."""
        self._faults.extend(faults)

    def revoke(self, *sources: TopicPartition) -> None:
        """Give partitions up at the next poll."""
        self._to_revoke.update(sources)

    def lose(self, *sources: TopicPartition) -> None:
        """Take partitions away at the next poll."""
        self._to_lose.update(sources)

    def assign(self, *sources: TopicPartition) -> None:
        """Assign partitions (again) at the next poll."""
        self._to_assign.update(sources)

    def fence(self) -> None:
        """Void the membership: the next poll or publish raises `Fenced`, the one after it rejoins."""
        self._void = True

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        self._check()
        self._raise_if_void()
        lost = frozenset(self._to_lose & self._position.keys())
        revoked = frozenset(self._to_revoke & self._position.keys()) - lost
        for source in lost | revoked:
            del self._position[source]
        self._paused -= lost | revoked
        assigned = frozenset(self._to_assign - self._position.keys())
        self._position.update(dict.fromkeys(assigned))
        self._to_lose, self._to_revoke, self._to_assign = set(), set(), set()
        return Polled(self._fetch(max_records), assigned, revoked, lost)

    def seek(self, source: TopicPartition, offset: int) -> None:
        self._check()
        if source not in self._position:
            raise Fenced(f"{source} is not assigned to this worker any more.")
        self._position[source] = offset

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        self._check()
        self._paused.update(sources)

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._check()
        self._paused.difference_update(sources)

    def committed(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        self._check()
        offsets = self.log.committed.get(self.group, {})
        return {source: offsets.get(source) for source in sources}

    def bounds(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        self._check()
        logs = {source: self.log.partition(source) for source in sources}
        return {source: (log.start, log.end) for source, log in logs.items()}

    def offsets_at(self, sources: Iterable[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        self._check()
        found = {}
        for source in sources:
            log = self.log.partition(source)
            later = (record.offset for record in log.records if record.timestamp >= time_ms)
            found[source] = next(later, log.end)
        return found

    def partitions(self, topic: str) -> list[TopicPartition]:
        self._check()
        return self.log.partitions(topic)

    def publish(self, outputs: Sequence[OutputBatch], offsets: Mapping[TopicPartition, int]) -> None:
        self._check()
        self._raise_if_void()
        stale = offsets.keys() - self._position.keys()
        if stale:
            raise Fenced(f"{min(stale)} is not assigned to this worker any more.")
        fault = self._faults.popleft() if self._faults else None
        if fault is Fault.FENCED:
            self.fence()
            self._raise_if_void()
        if fault is Fault.ABORT:
            raise PublishAborted("The transaction was aborted (injected).")
        if fault is Fault.CRASH_BEFORE:
            self._crash()
        if fault is not Fault.UNKNOWN_LOST:
            self.log.commit(self.group, outputs, offsets)
            self.published += 1
        if fault in (Fault.UNKNOWN_COMMITTED, Fault.UNKNOWN_LOST):
            raise OutcomeUnknown("The answer to the commit was lost (injected).")
        if fault is Fault.CRASH_AFTER:
            self._crash()

    def close(self) -> None:
        self._closed = True
        if self.log.owner.get(self.group) is self:
            del self.log.owner[self.group]

    def _fetch(self, max_records: int) -> list[RawBatch]:
        left = max_records if self._sizes is None else min(max_records, next(self._sizes))
        # As Kafka does, another partition comes first each time, so that none starves.
        order = self._all[self._first :] + self._all[: self._first]
        self._first = (self._first + 1) % len(self._all)
        batches = []
        for source in order:
            position = self._position.get(source)
            if position is None or source in self._paused or left == 0:
                continue
            log = self.log.partition(source)
            if not log.start <= position <= log.end:
                raise StopError(f"Offset {position} of {source} is outside [{log.start}, {log.end}].")
            first = bisect_left(log.records, position, key=lambda record: record.offset)
            taken = log.records[first : first + left]
            self._position[source] = taken[-1].offset + 1 if taken else position
            left -= len(taken)
            if taken:
                batches.append(_raw_batch(source, taken))
        return batches

    def _raise_if_void(self) -> None:
        if self.log.owner.get(self.group) is not self or self._void:
            self._void = False
            self._position, self._paused = {}, set()
            self._to_assign = set(self._all)
            raise Fenced("Another worker of the group owns the partitions.")

    def _crash(self) -> None:
        self._crashed = True
        raise Crash

    def _check(self) -> None:
        if self._crashed:
            raise Crash
        if self._closed:
            raise StopError("The transport is closed.")


def _raw_batch(source: TopicPartition, records: list[LogRecord]) -> RawBatch:
    return RawBatch(
        source,
        np.array([record.offset for record in records], np.int64),
        np.array([record.timestamp for record in records], np.int64),
        [record.key for record in records],
        [record.value for record in records],
        [record.headers for record in records],
    )
