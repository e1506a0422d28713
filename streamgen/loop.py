"""The loop: Kafka → decode → score → learn → encode → publish → commit, exactly once.

One thread, one transport, one pipeline for each assigned partition. What holds (docs/guarantees.md): every
record from `publish_from` on has exactly one result or dead letter for a read_committed reader, whatever
ends this process and whenever; and the state behind a result is a function of the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor

import structlog

from streamgen.backoff import wait_s
from streamgen.checkpoints import Checkpoints
from streamgen.config import Config
from streamgen.errors import (
    OutcomeUnknown,
    PublishAborted,
    Rebalanced,
    ReopenError,
    RetryError,
    StreamgenError,
    TaskError,
    TopicRemade,
)
from streamgen.health import Health
from streamgen.kafka.pins import Pins
from streamgen.kafka.transport import Transport
from streamgen.metrics import Metrics
from streamgen.pipeline import Pipeline
from streamgen.positions import is_of
from streamgen.records import TopicPartition
from streamgen.state.store import Store
from streamgen.tasks import Tasks

log = structlog.get_logger()

POLL_RECORDS = 2000  # the most that one poll brings
SLICE_RECORDS = 64  # processed between looks at the clock
MAX_QUEUED = 4000  # a partition with more waiting is paused: it keeps its place in the group
MAX_PENDING = 5000  # records that wait for one transaction
IDLE_S = 0.2  # the longest wait of a poll
LAG_S = 5.0  # between looks at the ends of the partitions
BUSY_S = 0.005  # the longest wait of a poll while state is copied or partitions are given up
LEAVE_S = 5.0  # the longest that a partition that was revoked waits for its checkpoint
FINISH_S = 25.0  # the longest that a worker that was told to end waits for checkpoints
THREADS = 4  # tasks that are opened or stored at once, beside the loop


class Loop:
    """Runs the tasks that the group assigns to this worker.

    `clock` gives monotonic seconds. It decides when to commit and to checkpoint, never what. `retention_s` is
    for how long an input's log is kept; None or absent: for ever.
    """

    def __init__(
        self,
        config: Config,
        transport: Transport,
        pins: Pins,
        store: Store,
        metrics: Metrics,
        health: Health,
        device: str = "cpu",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        background: Executor | None = None,
        retention_s: Mapping[str, float] | None = None,
    ) -> None:
        self._config, self._transport, self._store = config, transport, store
        self._metrics, self._health = metrics, health
        self._clock, self._sleep = clock, sleep
        self._background = background or ThreadPoolExecutor(THREADS, "streamgen-state")
        self._checkpoints = Checkpoints(config.state, config.seed, metrics, self._background, clock)
        self._tasks = Tasks(
            config, transport, pins, store, self._checkpoints, metrics, device, self._background, clock
        )
        self.pipelines = self._tasks.pipelines
        self._paused: set[TopicPartition] = set()
        self._joined = False  # the group has said which partitions are this worker's
        self._in_doubt = False  # a commit was sent and its answer lost
        self._waiting_since: float | None = None  # when the oldest uncommitted result came
        self._failures = 0  # publishes that failed in a row
        self._lag_at = -LAG_S
        self._retention_s = retention_s or {}
        self._at_risk: set[TopicPartition] = set()  # warned of: the log may pass their checkpoint

    def run(self, stopping: Callable[[], bool]) -> None:
        """Turn until `stopping()`; then finish the batch, commit, checkpoint and leave the group."""
        try:
            while not stopping():
                self.turn()
            self.finish()
        finally:
            self._drop(self._tasks.all)
            self._transport.close()  # first: the others have the partitions while the rest ends
            self._store.close()
            self._background.shutdown(wait=True)

    def turn(self) -> None:
        """One turn:

        1. Poll: records, and the partitions that came and went; those that are revoked in order are committed
           and checkpointed inside the poll, before they are given up.
        2. Drop the tasks that are another worker's now, and queue the records of the others; a partition that
           is far behind is paused, so that polling stays quick.
        3. Open new tasks where their state left off, in the background.
        4. Process the queues in small steps until a commit is due: decode, score, learn, encode.
        5. When the oldest result has waited `commit_interval_ms`: one transaction of all results, dead
           letters and positions.
        6. Checkpoint the tasks that are due, at the offset just committed: copy their state little by little,
           while the background stores it.
        """
        self._health.turn()
        try:
            polled = self._transport.poll(self._patience(), POLL_RECORDS, self._on_revoke)
            self._joined |= polled.joined
            if polled.assigned or polled.revoked or polled.lost:
                self._metrics.rebalanced()
            self._drop(polled.revoked | polled.lost)
            # Before anything that can fail: the client has moved on past these records.
            for raw in polled.batches:
                if raw.source in self.pipelines:
                    self.pipelines[raw.source].feed(raw)
            self._tasks.assign(polled.assigned)
            self._pause()
            for source, first in polled.gaps.items():
                try:
                    self._tasks.skip(source, first)
                except TaskError as error:  # the other gaps are told once
                    self._reopen(error)
            for source, position in polled.positions.items():
                # Not while a commit is in doubt: its offset is what tells whether it happened.
                if source in self.pipelines and not self._in_doubt:
                    self.pipelines[source].pass_over(position)
            self._tasks.open()
            if self._in_doubt:
                self._ask()
            self._process()
            self._resume()
            if self._due():
                self._commit()
            self._checkpoints.turn(self.pipelines)
            self._tell()
        except TaskError as error:
            self._reopen(error)
        except ReopenError as error:
            log.warning("the claim on the tasks is void; rejoining", reason=str(error))
            self._drop(self._tasks.all)
            self._transport.forget()
        except RetryError as error:
            self._back_off(error)

    def finish(self) -> None:
        """Commit what is pending and checkpoint, for a clean end. What cannot be committed or stored now is
        done again by the next owner."""
        try:
            while any(p.uncommitted for p in self.pipelines.values()) and self._failures < 5:
                try:
                    self._commit()
                except Rebalanced as error:
                    log.warning("not committed; the next owner does it again", reason=str(error))
                    break
                except RetryError as error:
                    self._back_off(error)
            self._checkpoint(self.pipelines, FINISH_S)
        except ReopenError as error:
            log.warning("another worker has the tasks", reason=str(error))

    def _on_revoke(self, sources: frozenset[TopicPartition]) -> None:
        """Inside a poll: partitions are about to be given up. What is computed of them is committed, and
        their state stored, so that the next owner has little to replay; what fails it does again."""
        leaving = {source: self.pipelines[source] for source in sources if source in self.pipelines}
        try:
            if any(pipeline.uncommitted for pipeline in leaving.values()):
                self._commit()
            self._checkpoint(leaving, LEAVE_S)
        except StreamgenError as error:
            log.warning("given up without a checkpoint", sources=sorted(map(str, sources)), reason=str(error))
            self._in_doubt = True  # what is kept may be committed, whatever the error says

    def _checkpoint(self, pipelines: Mapping[TopicPartition, Pipeline], seconds: float) -> None:
        """Checkpoint these tasks now, as far as `seconds` allow; what fails is not tried again."""
        end, tried = self._clock() + seconds, set[TopicPartition]()
        while self._clock() < end:
            left = {source for source, p in pipelines.items() if self._checkpoints.wanted(source, p)} - tried
            if not left and not self._checkpoints.under_way(pipelines):
                return
            try:
                tried |= self._checkpoints.turn(self.pipelines, now=left)
            except TaskError as error:
                log.warning("not stored", source=str(error.source), reason=str(error))
                tried.add(error.source)
            self._sleep(BUSY_S)

    def _reopen(self, error: TaskError) -> None:
        """Whether the partition is still ours the next polls tell; its state is to be read again."""
        log.warning("the task is opened again", source=str(error.source), reason=str(error))
        self._drop([error.source])
        self._tasks.reopen(error)

    def _drop(self, sources: Iterable[TopicPartition]) -> None:
        """Forget tasks without writing: whoever has them goes on from what is committed."""
        gone = set(sources)
        self._tasks.drop(gone)
        self._transport.resume(self._paused & gone)  # one that is opened again is to deliver
        self._paused -= gone
        if not any(p.uncommitted for p in self.pipelines.values()):
            self._waiting_since = None

    # --- records

    def _process(self) -> None:
        """Step every queue in turn until all are empty or a commit is due. At least one step is made, so
        that a slow learner still moves."""
        began, busy = self._clock(), False
        if self._waiting_since is None and any(p.uncommitted for p in self.pipelines.values()):
            self._waiting_since = began  # for what has no result: markers, records before `publish_from`
        if self._full():
            return  # until it is published: an outage must not fill the memory
        while sum(pipeline.step(SLICE_RECORDS) for pipeline in self.pipelines.values()):
            busy = True
            if self._waiting_since is None and any(p.uncommitted for p in self.pipelines.values()):
                self._waiting_since = began
            if self._due() or self._clock() - began > 1.0:
                break
        if busy:
            self._metrics.batch(self._clock() - began)

    def _pause(self) -> None:
        full = {s for s, p in self.pipelines.items() if p.queued > MAX_QUEUED} - self._paused
        if full:
            self._transport.pause(full)
            self._paused |= full

    def _resume(self) -> None:
        drained = {s for s in self._paused if self.pipelines[s].queued <= MAX_QUEUED // 2}
        if drained:
            self._transport.resume(drained)
            self._paused -= drained

    def _patience(self) -> float:
        """How long a poll may wait, s."""
        if any(p.queued for p in self.pipelines.values()):
            return 0.0
        if self._checkpoints.under_way(self.pipelines) or self._tasks.opening:
            return BUSY_S
        if self._waiting_since is None:
            return IDLE_S
        left = self._waiting_since + self._config.commit_interval_ms / 1000 - self._clock()
        return min(max(left, 0.0), IDLE_S)

    # --- results

    def _full(self) -> bool:
        return sum(p.pending_records for p in self.pipelines.values()) >= MAX_PENDING

    def _due(self) -> bool:
        if self._full():
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
            ids = {source.topic: self.pipelines[source].topic_id for source in offsets}
            self._transport.publish(outputs, offsets, ids)
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
        # An offset of a topic of that name that is gone says that this commit did not happen.
        self._settle(
            {
                source: one.offset
                for source, one in known.items()
                if one is not None and is_of(one, self.pipelines[source].topic_id)
            }
        )

    def _settle(self, committed: Mapping[TopicPartition, int]) -> None:
        for source, offset in committed.items():
            self.pipelines[source].settle(offset)
        self._failures = 0
        if not any(p.uncommitted for p in self.pipelines.values()):
            self._waiting_since = None

    def _back_off(self, error: RetryError) -> None:
        if isinstance(error, Rebalanced):
            # No outage. The client joins inside its polls, and the others wait for it.
            self._metrics.aborted()
            self._sleep(BUSY_S)
            return
        self._failures += 1
        if isinstance(error, PublishAborted):
            self._metrics.aborted()
        self._health.broker(self._failures < 3)
        wait = wait_s(self._failures)
        log.warning("not published; the results are kept", reason=str(error), again_in_s=round(wait, 2))
        self._sleep(wait)

    def _tell(self) -> None:
        """Health every turn, lag now and then."""
        replaying = {s: p.replaying for s, p in self.pipelines.items()}
        if self._joined:
            self._health.assigned(len(self._tasks.all))
        live = sum(left == 0 for left in replaying.values())
        self._health.restoring(len(self._tasks.all) - live, sum(replaying.values()))
        for source, left in replaying.items():
            self._metrics.replay_left(source, left)
        if self._clock() - self._lag_at >= LAG_S:
            self._lag_at = self._clock()
            for source in self.pipelines:
                self._tell_retention(source)
            try:
                self._tell_lag()
            except RetryError as error:  # results and checkpoints do not wait for it
                log.warning("the lag is not known", reason=str(error))
            else:
                self._health.broker(True)

    def _tell_lag(self) -> None:
        """Raises `TopicRemade`."""
        for source, pipeline in self.pipelines.items():
            if self._transport.topic_id(source.topic) != pipeline.topic_id:
                raise TopicRemade(source, f"The topic {source.topic} was deleted and made again.")
        for source, end in self._transport.ends(self.pipelines).items():
            self._metrics.lag(source, max(0, end - self.pipelines[source].position))

    def _tell_retention(self, source: TopicPartition) -> None:
        """A checkpoint that the log no longer reaches back to is worth nothing: said when half the time is
        over."""
        retention_s = self._retention_s.get(source.topic)
        if retention_s is None:
            return
        share = self._checkpoints.overdue_s(source, self.pipelines[source]) / retention_s
        self._metrics.retention_used(source, share)
        if share > 0.5 and source not in self._at_risk:
            log.warning(
                "the last checkpoint is older than half the input's retention: a restart may not find what "
                "it needs", source=str(source),
            )  # fmt: skip
        self._at_risk = self._at_risk | {source} if share > 0.5 else self._at_risk - {source}
