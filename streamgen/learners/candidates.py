"""Keys that have no learner yet: how many records of each came.

A learner takes memory and says nothing for its first records, so a key gets one only with its
`min_records`-th record: ids that come once, or a few times, never do. What is counted is bounded too, by the
`MOST` candidates heard of most recently, and a candidate is known by a hash of its key, so that no key's
length counts. All of it is a function of the log, and a part of the task's state.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

MOST = 10_000

Fact = tuple[str, int, int]  # hash of the key, records, event time of its newest, ms


class Candidates:
    """Counts the records of keys without a learner. `ttl_ms`: a silence after which counting starts anew."""

    def __init__(self, min_records: int, ttl_ms: int | None) -> None:
        self._min_records, self._ttl_ms = min_records, ttl_ms
        self._heard: OrderedDict[str, tuple[int, int]] = OrderedDict()  # the longest unheard of first

    def __len__(self) -> int:
        return len(self._heard)

    def admit(self, key: str | None, time: int, now: int) -> bool:
        """Count a record, at `time`, of a key without a learner; whether the key gets one with it.

        `now` is stream time, this record included. A key that gets a learner is no candidate any more.
        """
        if self._min_records == 1:
            return True
        name = _hash(key)
        count, newest = self._heard.pop(name, (0, time))
        if self._ttl_ms is not None and now - newest > self._ttl_ms:
            count, newest = 0, time
        if count + 1 == self._min_records:
            return True
        self._heard[name] = count + 1, max(newest, time)
        if len(self._heard) > MOST:
            self._heard.popitem(last=False)
        return False

    def facts(self) -> list[Fact]:
        """All candidates, the longest unheard of first: JSON of at most half a megabyte."""
        return [(name, count, newest) for name, (count, newest) in self._heard.items()]

    def restore(self, facts: Iterable[Fact]) -> None:
        """Take on what `facts` gave, or what JSON made of it."""
        self._heard = OrderedDict((name, (count, newest)) for name, count, newest in facts)


def _hash(key: str | None) -> str:
    return hashlib.blake2b(msgspec.json.encode(key), digest_size=8).hexdigest()
