"""A transport over a log in memory that fails on demand."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import numpy as np

from streamgen.errors import Fenced, OutcomeUnknown, PublishAborted, StopError
from streamgen.kafka.transport import Committed, OnRevoke, Polled
from streamgen.records import OutputBatch, RawBatch, TopicPartition
from streamgen.testing.log import LogRecord, MemoryLog


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
        self._gaps: dict[TopicPartition, int] = {}
        self._faults: deque[Fault | None] = deque()
        self._sizes = None if poll_sizes is None else itertools.cycle(poll_sizes)
        self._first = 0
        self._void = self._crashed = self._closed = self._revoking = False
        self.published = 0  # publishes that committed
        log.owner[group] = self

    def inject(self, *faults: Fault | None) -> None:
        """Make the next publishes fail so, one fault each; None lets one through."""
        self._faults.extend(faults)

    def revoke(self, *sources: TopicPartition) -> None:
        """Give partitions up at the next poll, after `on_revoke`."""
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

    def poll(self, timeout_s: float, max_records: int, on_revoke: OnRevoke | None = None) -> Polled:
        self._check()
        self._raise_if_void()
        lost = frozenset(self._to_lose & self._position.keys())
        revoked = frozenset(self._to_revoke & self._position.keys()) - lost
        for source in lost:
            del self._position[source]
        if revoked and on_revoke is not None:
            self._revoking = True
            on_revoke(revoked)
            self._revoking = False
        for source in revoked:
            del self._position[source]
        self._paused -= lost | revoked
        assigned = frozenset(self._to_assign - self._position.keys())
        self._position.update(dict.fromkeys(assigned))
        self._to_lose, self._to_revoke, self._to_assign = set(), set(), set()
        batches = self._fetch(max_records)
        gaps, self._gaps = self._gaps, {}
        positions = {source: at for source, at in self._position.items() if at is not None}
        return Polled(batches, assigned, revoked, lost, gaps, positions=positions)

    def seek(self, source: TopicPartition, offset: int) -> None:
        self._check()
        if source not in self._position:
            self._forget(self._position)
            raise Fenced(f"{source} is not assigned to this worker any more.")
        self._position[source] = offset

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        self._check()
        self._paused.update(sources)

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._check()
        self._paused.difference_update(sources)

    def committed(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        self._check()
        return {source: self.log.committed_by(self.group, source) for source in sources}

    def topic_id(self, topic: str) -> str:
        self._check()
        return self.log.topic_ids[topic]

    def bounds(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        self._check()
        logs = {source: self.log.partition(source) for source in sources}
        return {source: (log.start, log.end) for source, log in logs.items()}

    def ends(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {source: end for source, (_, end) in self.bounds(sources).items()}

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

    def forget(self) -> None:
        self._check()
        self._forget(self._position)

    def publish(
        self,
        outputs: Sequence[OutputBatch],
        offsets: Mapping[TopicPartition, int],
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        self._check()
        self._raise_if_void()
        stale = offsets.keys() - self._position.keys()
        if stale:
            self._forget(self._position)
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
            self.log.commit(self.group, outputs, offsets, topic_ids)
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
            if position < log.start or position > log.end:
                self._gaps[source], self._position[source] = log.start, None
                continue
            first = bisect_left(log.records, position, key=lambda record: record.offset)
            taken = log.records[first : first + left]
            if first + len(taken) == len(log.records):
                self._position[source] = log.end  # beyond what no reader gets
            else:
                self._position[source] = taken[-1].offset + 1 if taken else position
            left -= len(taken)
            if taken:
                batches.append(raw_batch(source, taken))
        return batches

    def _raise_if_void(self) -> None:
        if self.log.owner.get(self.group) is not self or self._void:
            if not self._revoking:  # in the middle of a poll: the next one tells
                self._void = False
                self._forget(self._all)
            raise Fenced("Another worker of the group owns the partitions.")

    def _forget(self, again: Iterable[TopicPartition]) -> None:
        """Own nothing, and assign `again` at the next poll."""
        self._to_assign |= set(again)
        self._position, self._paused = {}, set()

    def _crash(self) -> None:
        self._crashed = True
        raise Crash

    def _check(self) -> None:
        if self._crashed:
            raise Crash
        if self._closed:
            raise StopError("The transport is closed.")


def raw_batch(source: TopicPartition, records: list[LogRecord]) -> RawBatch:
    return RawBatch(
        source,
        np.array([record.offset for record in records], np.int64),
        np.array([record.timestamp for record in records], np.int64),
        [record.key for record in records],
        [record.value for record in records],
        [record.headers for record in records],
    )
