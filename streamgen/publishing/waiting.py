"""Requests that wait for their answers.

Those of one partition are answered in its order, for that is how their offsets are committed. One that has to
wait, for its input is not readable, holds up no other partition's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

from streamgen.publishing.following import Followed
from streamgen.publishing.requests import Refused
from streamgen.records import RawBatch, TopicPartition


@dataclass(slots=True)
class Until:
    """How far the input has to be read before an answer: to where it ended when that was first asked for. (An
    end that moves on while it is read to might never be reached.)"""

    followed: Followed | None = None
    end: int = 0

    def reached(self, followed: Followed) -> bool:
        """Raises `BrokerUnavailable` when nobody tells the end."""
        if self.followed is not followed:
            self.end, self.followed = followed.end(), followed
        return followed.reached(self.end)


@dataclass(slots=True)
class Asked:
    """A request: its record, what it says, and what it waits for."""

    raw: RawBatch
    n: int
    request: Any | Refused
    until: Until

    @property
    def place(self) -> tuple[TopicPartition, int]:
        """Partition and offset."""
        return self.raw.source, int(self.raw.offset_N[self.n])


class Waiting:
    """All that wait, by partition. `parse` gives what a record's value asks for, or raises `Refused`."""

    def __init__(self, parse: Callable[[bytes | None], Any]) -> None:
        self._parse = parse
        self._queues: dict[TopicPartition, deque[Asked]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def count(self, source: TopicPartition) -> int:
        """How many wait in a partition."""
        return len(self._queues.get(source, ()))

    def add(self, raw: RawBatch) -> None:
        """Requests as they came."""
        queue = self._queues.setdefault(raw.source, deque())
        for n in range(len(raw)):
            try:
                queue.append(Asked(raw, n, self._parse(raw.value[n]), Until()))
            except Refused as refused:
                queue.append(Asked(raw, n, refused, Until()))

    def drop(self, gone: Container[TopicPartition]) -> None:
        """These partitions are another publisher's."""
        self._queues = {source: queue for source, queue in self._queues.items() if source not in gone}

    def ready(self, is_ready: Callable[[Asked], bool]) -> Iterator[Asked]:
        """The first of each partition, of those that are ready; `answered` takes it off."""
        for queue in list(self._queues.values()):
            if queue and is_ready(queue[0]):
                yield queue[0]

    def answered(self, asked: Asked) -> bool:
        """Take it off. False: its partition went meanwhile, and another publisher answers it."""
        queue = self._queues.get(asked.raw.source)
        if not queue or queue[0] is not asked:
            return False
        queue.popleft()
        # The others come first now: a turn may have time for one answer only.
        self._queues[asked.raw.source] = self._queues.pop(asked.raw.source)
        return True
