"""Which keys are silent for too long: the newest record is more than `key_ttl` older than stream time.

Stream time is the largest event time of the task so far. It never goes back, so a key that expired stays
expired until its own next record, and it does not matter when that is noticed: a look at the key's next
record and a sweep now and then give the same state. A key's newest time is the largest event time of its
records, whatever its clock was set back to.

The sweep's queue holds each key once, with a time that is its newest or an earlier one: a key that was heard
of meanwhile is put in again when its turn comes, once in a `key_ttl`. No sweep walks all keys.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import ClassVar

from streamgen.models.slab import Field


class Expiry:
    """When each key that has a learner was heard of."""

    FIELDS: ClassVar = {"key_newest": Field(dtype="int64")}

    def __init__(self, ttl_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._newest: dict[str | None, int] = {}
        self._queue: list[tuple[int, int, str | None]] = []  # time, place in the queue, key
        self._place: dict[str | None, int] = {}  # a key's entry is the one with this place; others are void
        self._places = 0  # they make entries comparable where keys are not

    def heard(self, key: str | None, time: int) -> None:
        """A record of the key."""
        if key not in self._newest:
            self._newest[key] = time
            self._enqueue(key)
        elif time > self._newest[key]:
            self._newest[key] = time

    def newest(self, key: str | None) -> int:
        """The largest event time of the key's records, ms."""
        return self._newest[key]

    def expired(self, key: str | None, now: int) -> bool:
        """Whether a key that was heard of is so no more at stream time `now`."""
        return key in self._newest and now - self._newest[key] > self._ttl_ms

    def forget(self, key: str | None) -> None:
        """The key's next record is a new key's."""
        del self._newest[key], self._place[key]

    def sweep(self, now: int) -> Iterator[str | None]:
        """All keys that are expired; each is to be forgotten before the next is asked for."""
        while self._queue and now - self._queue[0][0] > self._ttl_ms:
            _, place, key = heapq.heappop(self._queue)
            if self._place.get(key) != place:
                continue
            if self.expired(key, now):
                yield key
            else:
                self._enqueue(key)

    def _enqueue(self, key: str | None) -> None:
        self._places += 1
        self._place[key] = self._places
        heapq.heappush(self._queue, (self._newest[key], self._places, key))
