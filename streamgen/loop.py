"""The loop: Kafka → decode → score → learn → encode → publish → commit, exactly once.

One thread, one transport, one pipeline for each assigned partition. What holds (docs/guarantees.md): every
record from `publish_from` on has exactly one result or dead letter for a read_committed reader, whatever
ends this process and whenever; and the state behind a result is a function of the log.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from streamgen.config import Config, InputConfig
from streamgen.errors import OutcomeUnknown, PublishAborted, ReopenError, RetryError, StateError
from streamgen.health import Health
from streamgen.kafka.pins import Pins
from streamgen.kafka.transport import Transport
from streamgen.learners.task import Task
from streamgen.metrics import Metrics
from streamgen.pipeline import Pipeline
from streamgen.positions import Positions
from streamgen.records import TopicPartition
from streamgen.state.files import Checkpoint, FileStore

log = structlog.get_logger()

POLL_RECORDS = 2000  # the most that one poll brings
SLICE_RECORDS = 64  # processed between looks at the clock
MAX_QUEUED = 4000  # a partition with more waiting is paused: it keeps its place in the group
MAX_PENDING = 5000  # records that wait for one transaction
IDLE_S = 0.2  # the longest wait of a poll
LAG_S = 5.0  # between looks at the ends of the partitions
BACKOFF_S = (0.05, 5.0)  # first and longest wait after a failed publish


class Loop:
    """Runs the tasks that the group assigns to this worker.

    `clock` gives monotonic seconds. It decides when to commit and to checkpoint, never what.
    """

    def __init__(
        self,
        config: Config,
        transport: Transport,
        pins: Pins,
        store: FileStore,
        metrics: Metrics,
        health: Health,
        device: str = "cpu",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config, self._transport, self._store = config, transport, store
        self._pins, self._metrics, self._health = pins, metrics, health
        self._device, self._clock, self._sleep = device, clock, sleep
        self._inputs = {one.topic: one for one in config.inputs}
        self._positions = Positions(transport, pins)
        self.pipelines: dict[TopicPartition, Pipeline] = {}
        self._to_open: set[TopicPartition] = set()  # assigned, and not opened yet
        self._paused: set[TopicPartition] = set()
        self._in_doubt = False  # a commit was sent and its answer lost
        self._waiting_since: float | None = None  # when the oldest uncommitted result came
        self._failures = 0  # publishes that failed in a row
        self._checkpointed: dict[TopicPartition, tuple[int, float]] = {}  # offset, when
        self._lag_at = -LAG_S

    def run(self, stopping: Callable[[], bool]) -> None:
        """Turn until `stopping()`; then finish the batch, commit, checkpoint and leave the group."""
        try:
            while not stopping():
                self.turn()
            self.finish()
        finally:
            self._transport.close()

    def turn(self) -> None:
        """One turn:

        1. Poll: records, and the partitions that came and went.
        2. Drop the tasks that are another worker's now, and queue the records of the others.
        3. Open new tasks where their state left off; a partition that is far behind is paused, so that
           polling stays quick.
        4. Process the queues in small steps until a commit is due: decode, score, learn, encode.
        5. When the oldest result has waited `commit_interval_ms`: one transaction of all results, dead
           letters and positions.
        6. Checkpoint the tasks that are due, at the offset just committed.
        """
        self._health.turn()
        try:
            polled = self._transport.poll(self._patience(), POLL_RECORDS)
            if polled.assigned or polled.revoked or polled.lost:
                self._metrics.rebalanced()
            self._drop(polled.revoked | polled.lost)
            # Before anything that can fail: the client has moved on past these records.
            for raw in polled.batches:
                if raw.source in self.pipelines:
                    self.pipelines[raw.source].feed(raw)
            self._to_open |= polled.assigned
            for source in sorted(self._to_open):
                self._open(source)
                self._to_open.discard(source)
            if self._in_doubt:
                self._ask()
            self._process()
            self._pause_and_resume()
            if self._due():
                self._commit()
                self._checkpoint(self._due_for_checkpoint())
            self._tell()
        except ReopenError as error:
            log.warning("the claim on the tasks is void; rejoining", reason=str(error))
            self._drop(list(self.pipelines))
        except RetryError as error:
            self._back_off(error)

    def finish(self) -> None:
        """Commit what is pending and checkpoint, for a clean end. What cannot be committed now is done
        again by the next owner."""
        try:
            while any(p.uncommitted for p in self.pipelines.values()) and self._failures < 5:
                try:
                    self._commit()
                except RetryError as error:
                    self._back_off(error)
            self._checkpoint(self.pipelines)
        except ReopenError as error:
            log.warning("another worker has the tasks", reason=str(error))

    # --- partitions come and go

    def _open(self, source: TopicPartition) -> None:
        """Restore the newest state at or before the committed offset, and go on from there in silence."""
        config = self._inputs[source.topic]
        begun = self._positions.of(source, config)
        checkpoint = self._store.latest(source, at_most=begun.committed)
        pinned = self._pins.get(source.topic, "features")
        position = checkpoint.state.offset if checkpoint else begun.start
        if position < begun.retained:
            log.warning(
                "the log no longer reaches back to the state; learning goes on from what is retained",
                source=str(source), offset=position, retained=begun.retained,
            )  # fmt: skip
            position = begun.retained
        pipeline = Pipeline(
            source,
            config,
            make_task=lambda features: Task(source, config, features, self._config.seed, self._device),
            pin=lambda features: tuple(
                self._pins.put_if_absent(source.topic, "features", list(features))
                if config.features is None
                else features
            ),
            application_id=self._config.application_id,
            metrics=self._metrics,
            position=position,
            committed=begun.committed,
            publish_from=begun.publish_from,
        )
        features = tuple(config.features or pinned or ())
        self._metrics.assigned(source)
        if features:
            pipeline.start(features)
        if checkpoint:
            self._restore(pipeline, checkpoint, features)
        self._checkpointed[source] = (position, self._clock())
        self.pipelines[source] = pipeline
        self._transport.seek(source, position)
        log.info(
            "task opened", source=str(source), position=position, committed=begun.committed,
            restored=checkpoint is not None,
        )  # fmt: skip

    def _restore(self, pipeline: Pipeline, checkpoint: Checkpoint, features: tuple[str, ...]) -> None:
        """Raises `StateError` when what changes learning is not what it was."""
        expected = pipeline.config.fingerprint(self._config.seed, checkpoint.features)
        if checkpoint.fingerprint != expected or checkpoint.features != features or pipeline.task is None:
            raise StateError(
                f"The checkpoint of {pipeline.source} was learned with another configuration (format, "
                "features, key, timestamp, window, model or seed differ): change it back, choose another "
                f"application_id, or move {self._config.state.directory} away to learn again."
            )
        pipeline.task.restore(checkpoint.state)
        self._metrics.restored(pipeline.source, checkpoint.state.offset, checkpoint.written)

    def _drop(self, sources: Iterable[TopicPartition]) -> None:
        """Forget tasks without writing: whoever has them goes on from what is committed."""
        for source in sources:
            self._paused.discard(source)
            self._to_open.discard(source)
            if self.pipelines.pop(source, None) is not None:
                self._metrics.revoked(source)
                log.info("task dropped", source=str(source))
        if not any(p.uncommitted for p in self.pipelines.values()):
            self._waiting_since = None

    # --- records

    def _process(self) -> None:
        """Step every queue in turn until all are empty or a commit is due. At least one step is made, so
        that a slow learner still moves."""
        began, busy = self._clock(), False
        while sum(pipeline.step(SLICE_RECORDS) for pipeline in self.pipelines.values()):
            busy = True
            if self._waiting_since is None and any(p.uncommitted for p in self.pipelines.values()):
                self._waiting_since = began
            if self._due() or self._clock() - began > 1.0:
                break
        if busy:
            self._metrics.batch(self._clock() - began)

    def _pause_and_resume(self) -> None:
        full = {s for s, p in self.pipelines.items() if p.queued > MAX_QUEUED}
        drained = {s for s in self._paused if self.pipelines[s].queued <= MAX_QUEUED // 2}
        if full - self._paused:
            self._transport.pause(full - self._paused)
        if drained:
            self._transport.resume(drained)
        self._paused = (self._paused | full) - drained

    def _patience(self) -> float:
        """How long a poll may wait, s."""
        if any(p.queued for p in self.pipelines.values()):
            return 0.0
        if self._waiting_since is None:
            return IDLE_S
        left = self._waiting_since + self._config.commit_interval_ms / 1000 - self._clock()
        return min(max(left, 0.0), IDLE_S)

    # --- results

    def _due(self) -> bool:
        if sum(p.pending_records for p in self.pipelines.values()) >= MAX_PENDING:
            return True
        waited = None if self._waiting_since is None else self._clock() - self._waiting_since
        return waited is not None and waited * 1000 >= self._config.commit_interval_ms

    def _commit(self) -> None:
        """All that is pending and the positions it came from, in one transaction.

        A failed one leaves everything pending: learners are not rolled back, the encoded results are sent
        again. After an outcome unknown the committed offsets tell which it was.
        """
        if self._in_doubt:
            self._ask()
        offsets = {s: p.position for s, p in self.pipelines.items() if p.uncommitted}
        if not offsets:
            return
        outputs = [batch for source in offsets for batch in self.pipelines[source].pending]
        began = self._clock()
        try:
            self._transport.publish(outputs, offsets)
        except OutcomeUnknown as error:
            log.warning("asking for the committed offsets", reason=str(error))
            self._in_doubt = True
            self._ask()
        else:
            self._settle(offsets)
        self._metrics.transaction(self._clock() - began)

    def _ask(self) -> None:
        """Learn from the committed offsets which way a commit went whose answer was lost. Until that is
        known nothing is processed or sent: what is pending may be visible already."""
        known = self._transport.committed(self.pipelines)
        self._in_doubt = False
        self._settle({source: offset for source, offset in known.items() if offset is not None})

    def _settle(self, committed: Mapping[TopicPartition, int]) -> None:
        for source, offset in committed.items():
            self.pipelines[source].settle(offset)
        self._failures = 0
        if not any(p.uncommitted for p in self.pipelines.values()):
            self._waiting_since = None

    def _back_off(self, error: RetryError) -> None:
        self._failures += 1
        if isinstance(error, PublishAborted):
            self._metrics.aborted()
        self._health.broker(self._failures < 3)
        # Bounded: an outage of an hour fails a thousand times, and 2¹⁰²⁴ is no float.
        longest = min(BACKOFF_S[0] * 2 ** min(self._failures, 16), BACKOFF_S[1])
        # Jitter keeps a fleet from coming back all at once; it decides when, never what.
        wait = random.uniform(longest / 2, longest)
        log.warning("not published; the results are kept", reason=str(error), again_in_s=round(wait, 2))
        self._sleep(wait)

    # --- state

    def _due_for_checkpoint(self) -> list[TopicPartition]:
        state, now = self._config.state, self._clock()
        return [
            source
            for source, (offset, at) in self._checkpointed.items()
            if source in self.pipelines
            and self.pipelines[source].position > offset
            and (
                self.pipelines[source].position - offset >= state.every_records
                or now - at >= state.every_seconds
            )
        ]

    def _checkpoint(self, sources: Iterable[TopicPartition]) -> None:
        """Store the state of tasks whose position is committed: it is then the state at that offset."""
        for source in sources:
            pipeline = self.pipelines[source]
            if pipeline.task is None or pipeline.position != pipeline.committed:
                continue
            began, config = self._clock(), pipeline.config
            features = pipeline.task.features
            self._store.save(
                source,
                Checkpoint(
                    pipeline.task.state(pipeline.position),
                    features,
                    config.fingerprint(self._config.seed, features),
                    about(config, self._config.seed),
                ),
            )
            self._checkpointed[source] = (pipeline.position, self._clock())
            self._metrics.checkpointed(source, pipeline.position, self._clock() - began)

    def _tell(self) -> None:
        """Health every turn, lag now and then."""
        replaying = {s: p.replaying for s, p in self.pipelines.items()}
        self._health.assigned(len(self.pipelines))
        self._health.restoring(sum(left > 0 for left in replaying.values()))
        for source, left in replaying.items():
            self._metrics.replay_left(source, left)
        if self._clock() - self._lag_at >= LAG_S:
            for source, (_, end) in self._transport.bounds(self.pipelines).items():
                self._metrics.lag(source, max(0, end - self.pipelines[source].position))
            self._lag_at = self._clock()
            self._health.broker(True)


def about(config: InputConfig, seed: int) -> dict[str, object]:
    """What a reader of a checkpoint needs to build the same task again."""
    return {"input": config.model_dump(mode="json"), "seed": seed}
