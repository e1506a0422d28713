"""Which keys' sequences are due at the inputs' rates.

Keys wait in line, so that requests are answered between them. A line that is not worked off when the next
time comes is gone on with, and that time is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from streamgen.config import InputConfig
from streamgen.publishing.following import Followed
from streamgen.publishing.requests import Request
from streamgen.publishing.waiting import Until
from streamgen.records import TopicPartition


@dataclass(slots=True)
class Due:
    """What is to be generated for one key; the seed is the number of the interval since 1970."""

    config: InputConfig
    source: TopicPartition
    key: str | None
    seed: int
    until: Until = field(default_factory=Until)

    @property
    def request(self) -> Request:
        """It as if somebody had asked."""
        what = self.config.generate
        return Request(
            kind=what.kind, key=self.key, length=what.length, count=what.count,
            partition=self.source.partition,
        )  # fmt: skip


class Rates:
    """The line of all inputs. `line` is worked off from its left end."""

    def __init__(self) -> None:
        self.line: deque[Due] = deque()
        self._intervals: dict[str, int] = {}  # by input: the last that was lined up

    def turn(
        self,
        config: InputConfig,
        now: float,
        followed: Mapping[TopicPartition, Followed],
        owned: Set[TopicPartition],
    ) -> None:
        """Line up what is due of an input at `now` (seconds since 1970): the keys of the partitions whose
        requests are owned."""
        every = config.generate.every
        if every is None:
            return
        interval = int(now // every.total_seconds())
        if self._intervals.setdefault(config.topic, interval) == interval:
            return
        self._intervals[config.topic] = interval
        if any(due.config.topic == config.topic for due in self.line):
            return
        for source, one in followed.items():
            if (
                source.topic == config.topic
                and TopicPartition(config.generate_topic, source.partition) in owned
            ):
                self.line.extend(Due(config, source, key, interval) for key in _keys(config, one))


def _keys(config: InputConfig, followed: Followed) -> Iterator[str | None]:
    learners = {} if followed.checkpoint is None else followed.checkpoint.learners
    for key in config.generate.keys or learners:
        if key in learners:
            yield key
