"""The end of partitions of a log in memory."""

from __future__ import annotations

from bisect import bisect_left

from streamgen.records import RawBatch, TopicPartition
from streamgen.testing.log import MemoryLog
from streamgen.testing.transport import raw_batch


class MemoryTail:
    """`streamgen.kafka.tail.Tail` over a `MemoryLog`, `most` records at a time."""

    def __init__(self, log: MemoryLog, most: int = 100) -> None:
        self._log, self._most = log, most
        self._position: dict[TopicPartition, int] = {}

    def begin(self, source: TopicPartition, offset: int) -> None:
        self._position[source] = max(offset, self._log.partition(source).start)

    def stop(self, source: TopicPartition) -> None:
        self._position.pop(source, None)

    def poll(self, timeout_s: float = 0.0) -> list[RawBatch]:
        batches = []
        for source, position in self._position.items():
            log = self._log.partition(source)
            first = bisect_left(log.records, position, key=lambda record: record.offset)
            taken = log.records[first : first + self._most]
            whole = first + len(taken) == len(log.records)
            self._position[source] = log.end if whole else taken[-1].offset + 1
            if taken:
                batches.append(raw_batch(source, taken))
        return batches

    def position(self, source: TopicPartition) -> int:
        return self._position[source]

    def first(self, source: TopicPartition) -> int:
        return self._log.partition(source).start

    def end(self, source: TopicPartition) -> int:
        return self._log.partition(source).end

    def topic_id(self, topic: str) -> str:
        return self._log.topic_ids[topic]

    def close(self) -> None:
        """Nothing is held."""
