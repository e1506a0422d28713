"""The tasks of this worker: opened where their state left off, opened again when they failed, and dropped.

What the log no longer has, and what a learner failed at, is judged here: both are settled before a record is
processed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

import structlog

from streamgen.backoff import wait_s
from streamgen.checkpoints import Checkpoints
from streamgen.config import Config, InputConfig
from streamgen.errors import LearnerFailed, LogGap, ReopenError, RetryError, TaskError, TopicRemade
from streamgen.kafka.pins import Pins
from streamgen.kafka.transport import Transport
from streamgen.learners.task import Task
from streamgen.metrics import Metrics
from streamgen.opening import Opened, Opening, failed_pin
from streamgen.pipeline import Pipeline
from streamgen.positions import Positions, cut
from streamgen.records import TopicPartition
from streamgen.state.store import Store

log = structlog.get_logger()


class Tasks:
    """A pipeline for each partition that is open; the other assigned ones are opened in `background`.

    One that cannot be opened waits, and the others go on meanwhile.
    """

    def __init__(
        self,
        config: Config,
        transport: Transport,
        pins: Pins,
        store: Store,
        checkpoints: Checkpoints,
        metrics: Metrics,
        device: str,
        background: Executor,
        clock: Callable[[], float],
    ) -> None:
        self.pipelines: dict[TopicPartition, Pipeline] = {}
        self._config, self._transport, self._pins = config, transport, pins
        self._checkpoints, self._metrics, self._device = checkpoints, metrics, device
        self._inputs = {one.topic: one for one in config.inputs}
        self._positions = Positions(transport, pins)
        self._opening = Opening(store, config.seed, device, background)
        self._clock = clock
        self._to_open: dict[TopicPartition, float] = {}  # assigned, and not begun to open; not before
        self._failures = Counter[TopicPartition]()  # to open, in a row
        self._to_fail: dict[TopicPartition, LearnerFailed] = {}  # records to be tried alone, or given up
        self._alone: dict[TopicPartition, range] = {}  # of tasks being opened: records to be tried alone

    @property
    def opening(self) -> int:
        """How many are being opened."""
        return len(self._opening)

    @property
    def all(self) -> list[TopicPartition]:
        """The partitions that are open, being opened, or to be opened."""
        return [*self.pipelines, *self._to_open, *self._opening]

    def assign(self, sources: Iterable[TopicPartition]) -> None:
        """These are this worker's from now on."""
        self._to_open.update(dict.fromkeys(sources, self._clock()))

    def open(self) -> None:
        """Restore the newest state at or before the committed offset, and go on from there in silence.

        What fails for want of a broker is tried again later. Raises `LogGap` and `StateError` for what a
        person must judge, and `ReopenError` when another worker pins what the application must remember.
        """
        now = self._clock()
        for source in sorted(s for s, not_before in self._to_open.items() if not_before <= now):
            try:
                self._begin(source)
            except RetryError as error:
                self._later(source, error)
                break  # it may have waited for an answer: one such wait a turn
        for source, future in self._opening.done():
            try:
                opened = future.result()
            except (RetryError, ReopenError) as error:
                self._later(source, error)
            else:
                self._start(source, opened)

    def skip(self, source: TopicPartition, first: int) -> None:
        """The next record is gone, and the log begins at `first` now.

        Raises `TopicRemade` when it is the log of another topic, and `LogGap`.
        """
        pipeline = self.pipelines.get(source)
        if pipeline is None:
            return
        lost = first - pipeline.position - pipeline.queued
        if lost < 0:
            if self._transport.topic_id(source.topic) != pipeline.topic_id:
                raise TopicRemade(source, f"The topic {source.topic} was deleted and made again.")
            raise LogGap(cut(source, f"offset {pipeline.position} was read already"))
        _judge_gap(pipeline.config, f"Retention removed {lost} records of {source} before they were read.")
        self._metrics.lost(source.topic, lost)
        self._transport.seek(source, first)

    def reopen(self, error: TaskError) -> None:
        """Open a task again that was dropped because of `error`."""
        self._to_open[error.source] = self._clock()
        if isinstance(error, LearnerFailed):
            self._to_fail[error.source] = error

    def drop(self, sources: Iterable[TopicPartition]) -> None:
        """Forget tasks without writing: whoever has them goes on from what is committed."""
        for source in sources:
            for known in (self._to_open, self._failures, self._to_fail, self._alone):
                known.pop(source, None)
            self._opening.forget(source)
            self._checkpoints.remove(source)
            if self.pipelines.pop(source, None) is not None:
                self._metrics.revoked(source)
                log.info("task dropped", source=str(source))

    def _begin(self, source: TopicPartition) -> None:
        config = self._inputs[source.topic]
        begun = self._positions.of(source, config)
        if begun.remade:
            _judge_gap(
                config,
                f"The topic {source.topic} was deleted and made again since offset {begun.lost_at} of "
                f"{source} was committed: what was learned is of the old one, and what that had beyond "
                "the offset is lost.",
            )
        self._judge_failure(source, begun.topic)
        self._opening.begin(source, config, begun, self._pins)
        del self._to_open[source]

    def _later(self, source: TopicPartition, error: RetryError | ReopenError) -> None:
        """It could not be opened: not at once again."""
        self._failures[source] += 1
        wait = wait_s(self._failures[source])
        self._to_open[source] = self._clock() + wait
        log.warning(
            "a task could not be opened", source=str(source), reason=str(error), again_in_s=round(wait, 2)
        )

    def _start(self, source: TopicPartition, opened: Opened) -> None:
        config, begun, position = self._inputs[source.topic], opened.begun, opened.position
        self._checkpoints.add(source, opened.store, position)
        if position < begun.retained:
            never = max(begun.retained - begun.committed, 0)
            _judge_gap(
                config,
                f"{source} begins at offset {begun.retained} now, and its state goes on from {position}: "
                f"{begun.retained - position} records cannot be learned, of which {never} were never scored.",
            )
            self._metrics.lost(source.topic, begun.retained - position)
            position = begun.retained
        pipeline = Pipeline(
            source,
            config,
            opened.task,
            make_task=lambda features: Task(source, config, features, self._config.seed, self._device),
            pin=lambda features: tuple(
                self._pins.put_if_absent(begun.topic, "features", list(features))
                if config.features is None
                else features
            ),
            application_id=self._config.application_id,
            metrics=self._metrics,
            position=position,
            committed=begun.committed,
            publish_from=begun.publish_from,
            topic_id=begun.topic_id,
            failed=opened.failed,
            alone=self._alone.pop(source, range(0)),
        )
        self._failures.pop(source, None)
        self._metrics.assigned(source)
        if opened.manifest is not None:
            self._metrics.restored(source, opened.manifest.offset, opened.manifest.written)
        self.pipelines[source] = pipeline
        self._transport.seek(source, position)
        log.info(
            "task opened", source=str(source), position=position, committed=begun.committed,
            restored=opened.manifest is not None,
        )  # fmt: skip

    def _judge_failure(self, source: TopicPartition, topic: str) -> None:
        """A learner failed. A batch of records is tried again one by one; a record that failed alone is given
        up, which is a fact for every replay: it is pinned before its dead letter is sent."""
        failure = self._to_fail.get(source)
        if failure is None:
            return
        if failure.alone:
            fact = {"offset": failure.first, "detail": failure.reason}
            self._pins.put_if_absent(topic, failed_pin(source.partition, failure.first), fact)
        else:
            self._alone[source] = range(failure.first, failure.end)
        del self._to_fail[source]


def _judge_gap(config: InputConfig, what: str) -> None:
    if config.on_log_gap == "fail":
        raise LogGap(
            f"{what} Set `on_log_gap: continue` for {config.topic} to go on without them, or choose "
            "another application_id."
        )
    log.warning("the log has a gap, and learning goes on behind it", reason=what)
