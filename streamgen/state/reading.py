"""Checkpoints as they are stored, for who follows the learners of other processes: nothing is claimed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from streamgen.errors import StateError
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Checkpoint

log = structlog.get_logger()


class StateReader(Protocol):
    """Follows the checkpoints of an application's tasks. Used from one thread."""

    @property
    def ready(self) -> bool:
        """Whether all that was stored when the reader was made is read."""

    def read(self) -> None:
        """Take up some of what was stored since. Raises `RetryError`, or `StateError` for a topic or a place
        that holds something else."""

    def newest(self) -> dict[TopicPartition, Checkpoint]:
        """The newest whole checkpoint of each task; the same object until there is another one."""

    def close(self) -> None:
        """Read no more."""


class Store(Protocol):
    """What is needed of a store that is not a log: looking again, and a cheap way to see whether to."""

    def sources(self) -> list[TopicPartition]: ...

    def version(self, source: TopicPartition) -> str | None:
        """Names the newest checkpoint; None: there is none."""

    def peek(self, source: TopicPartition) -> Checkpoint | None: ...


class StoreReader:
    """`StateReader` of a store that is looked at every `every_s` seconds by `clock`."""

    def __init__(
        self, store: Store, topics: Iterable[str], clock: Callable[[], float], every_s: float = 1.0
    ) -> None:
        self._store, self._topics, self._clock, self._every_s = store, set(topics), clock, every_s
        self._versions: dict[TopicPartition, str] = {}
        self._newest: dict[TopicPartition, Checkpoint] = {}
        self._due: float | None = None

    @property
    def ready(self) -> bool:
        return self._due is not None

    def read(self) -> None:
        if self._due is not None and self._clock() < self._due:
            return
        there = [source for source in self._store.sources() if source.topic in self._topics]
        for source in self._newest.keys() - set(there):
            del self._newest[source], self._versions[source]
        for source in there:
            self._look(source)
        self._due = self._clock() + self._every_s

    def newest(self) -> dict[TopicPartition, Checkpoint]:
        return dict(self._newest)

    def close(self) -> None:
        """Nothing is held."""

    def _look(self, source: TopicPartition) -> None:
        version = self._store.version(source)
        if version is None or self._versions.get(source) == version:
            return
        try:
            checkpoint = self._store.peek(source)
        except StateError as error:
            log.warning("a checkpoint cannot be used", source=str(source), reason=str(error))
            checkpoint = self._newest.get(source)
        self._versions[source] = version
        if checkpoint is not None:
            self._newest[source] = checkpoint
