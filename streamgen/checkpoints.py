"""When to checkpoint, and how: a task's state is copied at an offset and written while records go on.

The loop's thread copies, a few learners at a time (`Snapshot`); a background thread encodes and stores what
was copied. A checkpoint begins only where a task's position is committed: it never holds what a reader cannot
see, so that a task can always go on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import Empty, Queue

import structlog

from streamgen.config import StateConfig
from streamgen.errors import ReopenError, RetryError, StoreFenced, StreamgenError
from streamgen.learners.task import Snapshot
from streamgen.metrics import Metrics
from streamgen.pipeline import Pipeline
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import LearnerState, Manifest
from streamgen.state.store import TaskStore

log = structlog.get_logger()

COPIED_AT_ONCE = 16  # learners, of 140 kB each by default: a few milliseconds
COPYING_S = 0.02  # the longest that a turn of the loop copies
ON_THE_WAY = 8  # copies of so many learners that wait for the store: more would be memory only
AT_ONCE = 2  # checkpoints under way
DEAREST = (
    20.0  # a checkpoint that took t seconds of CPU is followed by 20 t without one: at most 5 % of the time
)


class _GivenUp(StreamgenError):
    """The task is another's, or the loop ends: the checkpoint is not to be stored."""


@dataclass(slots=True)
class _Kept:
    """A task's store and when its state was stored last."""

    store: TaskStore
    offset: int
    at: float  # when it was tried last
    at_stored: float  # when it was stored last, or opened
    not_before: float = 0.0  # by the clock, see DEAREST


class _Writing:
    """One checkpoint under way. `copied` is the way from the loop's thread to the store's."""

    def __init__(self, snapshot: Snapshot, manifest: Manifest, began: float) -> None:
        self.snapshot, self.manifest, self.began = snapshot, manifest, began
        self.copied: Queue[list[LearnerState] | None] = Queue(ON_THE_WAY)
        self.told = False  # that there are no more
        self.given_up = False
        self.cpu_s = 0.0
        self.stored: Future[Manifest]

    def advance(self) -> bool:
        """Copy some learners, where the store keeps up; whether any was copied."""
        if self.told or self.copied.full():
            return False
        began = time.thread_time()
        learners = self.snapshot.take(COPIED_AT_ONCE)
        if learners:
            self.copied.put_nowait(learners)
        elif self.snapshot.done:
            self.copied.put_nowait(None)
            self.told = True
        self.cpu_s += time.thread_time() - began
        return bool(learners)

    def learners(self) -> Iterator[LearnerState]:
        """In the background thread: what was copied, as it comes."""
        while True:
            try:
                learners = self.copied.get(timeout=0.5)
            except Empty:
                learners = []
            if self.given_up:
                raise _GivenUp("The checkpoint was given up.")
            if learners is None:
                return
            yield from learners

    def write(self, store: TaskStore) -> Manifest:
        """In the background thread."""
        began = time.thread_time()
        try:
            return store.write(self.manifest, self.learners(), self.snapshot.removed)
        finally:
            self.cpu_s += time.thread_time() - began


class Checkpoints:
    """The checkpoints of this worker's tasks. All methods are called by the loop's thread."""

    def __init__(
        self,
        config: StateConfig,
        seed: int,
        metrics: Metrics,
        background: Executor,
        clock: Callable[[], float],
    ) -> None:
        self._config, self._seed, self._metrics = config, seed, metrics
        self._background, self._clock = background, clock
        self._kept: dict[TopicPartition, _Kept] = {}
        self._writing: dict[TopicPartition, _Writing] = {}

    def add(self, source: TopicPartition, store: TaskStore, offset: int) -> None:
        """A task was opened whose stored state is the one at `offset`."""
        self._kept[source] = _Kept(store, offset, self._clock(), self._clock())

    def remove(self, source: TopicPartition) -> None:
        """A task is gone: what of it is under way is not stored."""
        writing, kept = self._writing.pop(source, None), self._kept.pop(source, None)
        if writing is not None:
            writing.given_up = True
        if kept is not None:
            self._background.submit(_close, kept.store, writing)

    def under_way(self, sources: Iterable[TopicPartition]) -> bool:
        """Whether a checkpoint of one of these is being written."""
        return any(source in self._writing for source in sources)

    def overdue_s(self, source: TopicPartition, pipeline: Pipeline) -> float:
        """For how long what was learned is not stored, s; 0 when nothing was learned since."""
        kept = self._kept.get(source)
        behind = kept is not None and pipeline.task is not None and pipeline.position > kept.offset
        return self._clock() - kept.at_stored if kept is not None and behind else 0.0

    def wanted(self, source: TopicPartition, pipeline: Pipeline) -> bool:
        """Whether there is something to store that is not stored."""
        return source in self._kept and self._may(source, pipeline)

    def turn(
        self, pipelines: Mapping[TopicPartition, Pipeline], now: Iterable[TopicPartition] = ()
    ) -> set[TopicPartition]:
        """Take note of what was stored, begin what is due (and what is asked for `now`), copy some more.

        Returns the tasks whose checkpoint was begun.

        Raises `StoreFenced` when a task's store has another owner, and `StopError` when a person must act.
        What failed otherwise is logged, counted and tried again when it is due.
        """
        for source in [s for s, writing in self._writing.items() if writing.stored.done()]:
            self._end(source, pipelines)
        asked, begun = set(now), set()
        for source, pipeline in pipelines.items():
            if source not in self._kept or source in self._writing or not self._may(source, pipeline):
                continue
            if len(self._writing) < AT_ONCE and (source in asked or self._due(source, pipeline)):
                self._begin(source, pipeline)
                begun.add(source)
        until = time.perf_counter() + COPYING_S
        for writing in self._writing.values():
            while writing.advance() and time.perf_counter() < until:
                pass
        return begun

    def _may(self, source: TopicPartition, pipeline: Pipeline) -> bool:
        committed = pipeline.position == pipeline.committed
        return committed and pipeline.task is not None and pipeline.position > self._kept[source].offset

    def _due(self, source: TopicPartition, pipeline: Pipeline) -> bool:
        kept, now = self._kept[source], self._clock()
        if now < kept.not_before:
            return False
        records = pipeline.position - kept.offset
        return records >= self._config.every_records or now - kept.at >= self._config.every_seconds

    def _begin(self, source: TopicPartition, pipeline: Pipeline) -> None:
        assert pipeline.task is not None
        task, store, config = pipeline.task, self._kept[source].store, pipeline.config
        snapshot = task.snapshot(pipeline.position, store.whole)
        manifest = Manifest(
            source,
            snapshot.offset,
            task.features,
            self._seed,
            config.model_dump(mode="json"),
            config.fingerprint(self._seed, task.features),
            pipeline.topic_id,
            snapshot.facts,
        )
        writing = self._writing[source] = _Writing(snapshot, manifest, self._clock())
        # What fits is copied before, so that a background that works at once finds a small task whole.
        while writing.advance() or not (writing.told or writing.copied.full()):
            pass
        writing.stored = self._background.submit(writing.write, store)

    def _end(self, source: TopicPartition, pipelines: Mapping[TopicPartition, Pipeline]) -> None:
        writing, now = self._writing.pop(source), self._clock()
        kept = self._kept[source]
        kept.at = now  # also of one that failed: it is not tried again at every turn
        kept.not_before = now + DEAREST * writing.cpu_s
        try:
            manifest = writing.stored.result()
        except (RetryError, ReopenError) as error:
            task = pipelines[source].task
            if task is not None:
                task.give_up(writing.snapshot)
            self._metrics.checkpoint_failed(source)
            if isinstance(error, ReopenError):
                raise StoreFenced(source, str(error)) from error
            log.warning(
                "a checkpoint was not stored; the one before it stands", source=str(source), reason=str(error)
            )
            return
        kept.offset, kept.at_stored = manifest.offset, now
        self._metrics.checkpointed(source, manifest.offset, now - writing.began)


def _close(store: TaskStore, writing: _Writing | None) -> None:
    """After what is under way: a store is used by one thread at a time."""
    try:
        if writing is not None:
            writing.stored.exception()
        store.close()
    except StreamgenError as error:
        log.warning("a store could not be closed", reason=str(error))
