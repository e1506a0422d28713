"""One assigned partition on its way: raw records in, encoded results out, positions kept.

    queue → decode → score and learn → encode → pending, until its commit is known

Results before `publish_from` are not published: the records are learned in silence. That is also how a
restored task catches up with the committed offset: a replay is the same path with its mouth shut.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping

import numpy as np
import structlog

from streamgen.config import InputConfig
from streamgen.encode import Encoder
from streamgen.errors import LearnerFailed, StreamgenError
from streamgen.formats.decode import Decoder, Drift, discover, unusable_before_discovery
from streamgen.learners.episodes import score_of
from streamgen.learners.task import Results, Task
from streamgen.metrics import Metrics
from streamgen.models.device import is_out_of_memory
from streamgen.records import Columns, DeadLetter, OutputBatch, RawBatch, Reason, TopicPartition, rows

log = structlog.get_logger()

MAX_DRIFT_TOLD = 100  # field names that are warned of once; names come from the records and have no bound


class Pipeline:
    """A task with its queue before it and its results after it.

    `position` is the next offset to process, `committed` the group's committed offset as last known;
    results from `publish_from` on are published. Without a task the features are discovered at the first
    usable record and given to `pin`, which answers with the ones that stand for the topic; `make_task` then
    makes it. The records at the offsets `failed` are dead letters, for a learner has failed at them; those at
    `alone` are processed one by one, to find which one it is.
    """

    def __init__(
        self,
        source: TopicPartition,
        config: InputConfig,
        task: Task | None,
        make_task: Callable[[tuple[str, ...]], Task],
        pin: Callable[[tuple[str, ...]], tuple[str, ...]],
        application_id: str,
        metrics: Metrics,
        position: int,
        committed: int,
        publish_from: int,
        topic_id: str = "",
        failed: Mapping[int, str] | None = None,
        alone: range = range(0),
    ) -> None:
        self.source, self.config, self.topic_id = source, config, topic_id
        self.position, self.committed = position, committed
        self.publish_from = max(publish_from, committed)
        self.pending: list[OutputBatch] = []
        self.pending_results = 0
        self._make_task, self._pin, self._metrics = make_task, pin, metrics
        self._encoder = Encoder(application_id, source, config, config.model.get("name", "stream_ae"))
        self.task = task
        self._decoder = None if task is None else Decoder(config, task.features)
        self._drift_told: set[str] = set()
        self._failed, self._alone = failed or {}, alone
        self._queue: deque[RawBatch] = deque()
        self.queued = 0

    def feed(self, raw: RawBatch) -> None:
        """Queue records. Those before the position (delivered again) are dropped: positions never regress."""
        first = int(np.searchsorted(raw.offset_N, self.position))
        if first < len(raw):
            self._queue.append(raw if first == 0 else rows(raw, first, len(raw)))
            self.queued += len(raw) - first
            self._metrics.received(self.source, len(raw) - first)

    def step(self, limit: int) -> int:
        """Process up to `limit` queued records of one batch; returns how many. When it raises a
        `RetryError` they are still queued, and nothing was done."""
        if not self._queue:
            return 0
        whole = self._queue[0]
        raw = rows(whole, 0, min(limit, self._until_failure(whole)))
        count, end = len(raw), int(raw.offset_N[-1]) + 1
        failed = self._failed.get(end - 1) if count == 1 else None
        if self.task is None:
            raw = self._discover(raw)
        self._queue.popleft()
        if count < len(whole):
            self._queue.appendleft(rows(whole, count, len(whole)))
        self.queued -= count
        if failed is not None:
            self._publish_dead(raw, [DeadLetter(0, Reason.LEARNER_FAILED, failed)])
        elif self.task is not None and self._decoder is not None and len(raw):
            decoded = self._decoder.decode(raw)
            self._drifted(decoded.drift)
            self._publish_dead(raw, decoded.dead)
            if len(decoded.columns):
                results = self._learn(decoded.columns, self.task)
                self._publish(raw, results, self.task)
                self._observe(results, self.task)
        done = end - self.position
        self.position = end
        return done

    def pass_over(self, position: int) -> None:
        """The next fetch begins at `position`: what lies before it and was not fed is never delivered."""
        if not self.queued:
            self.position = max(self.position, position)

    def _until_failure(self, raw: RawBatch) -> int:
        """How many of the records go in one batch: one at which a learner failed goes alone."""
        first = int(raw.offset_N[0])
        if first in self._failed or first in self._alone:
            return 1
        stops = [offset for offset in (*self._failed, *self._alone[:1]) if offset > first]
        return max(1, int(np.searchsorted(raw.offset_N, min(stops)))) if stops else len(raw)

    def _learn(self, columns: Columns, task: Task) -> Results:
        """Raises `LearnerFailed` for what may be the records' fault; what is the machine's goes through."""
        try:
            return task.process(columns)
        except (StreamgenError, OSError):
            raise
        except Exception as error:
            # Torch has no type of its own for what goes wrong on a GPU.
            if is_out_of_memory(error) or (isinstance(error, RuntimeError) and "CUDA" in str(error)):
                raise
            first, end = int(columns.offset_N[0]), int(columns.offset_N[-1]) + 1
            reason = f"{type(error).__name__}: {error}"
            raise LearnerFailed(self.source, first, end, reason, first in self._alone) from error

    @property
    def replaying(self) -> int:
        """Offsets left to replay in silence before the partition is live."""
        return max(0, self.committed - self.position)

    @property
    def pending_records(self) -> int:
        """Records to publish: results, episodes and dead letters."""
        return sum(map(len, self.pending))

    @property
    def uncommitted(self) -> bool:
        """Whether the position is ahead of the committed offset."""
        return self.position > self.committed

    def settle(self, committed: int) -> None:
        """The group's offset is known to be `committed`: results before it need not be sent again.

        A transaction commits all that was pending or none of it.
        """
        if committed >= self.position:
            self._metrics.published(self.source, self.pending_results)
            self.pending, self.pending_results = [], 0
        self.committed = committed

    def _discover(self, raw: RawBatch) -> RawBatch:
        """Fix the features by the first usable record; returns it and those after it. The ones before it
        are dead letters whatever the features are."""
        dead = unusable_before_discovery(self.config, raw)
        found = discover(self.config, raw)
        if found is not None:
            features = self._pin(found)  # asks a broker: fails before anything is kept, or not at all
            self.task, self._decoder = self._make_task(features), Decoder(self.config, features)
        self._publish_dead(raw, dead)
        return rows(raw, len(dead), len(raw))

    def _drifted(self, drift: Drift) -> None:
        for kind in ("new", "vanished", "retyped"):
            fields: Counter[str] = getattr(drift, kind)
            if not fields:
                continue
            self._metrics.drifted(self.source.topic, kind, fields.total())
            room = MAX_DRIFT_TOLD - len(self._drift_told)
            for name in sorted(fields.keys() - self._drift_told)[:room]:
                log.warning("a field is unlike the schema", source=str(self.source), field=name, kind=kind)
                self._drift_told.add(name)

    def _publish_dead(self, raw: RawBatch, letters: list[DeadLetter]) -> None:
        first = int(np.searchsorted(raw.offset_N, self.publish_from))
        dead = [letter for letter in letters if letter.n >= first]
        for letter in dead:
            self._metrics.dead_lettered(self.source.topic, letter.reason)
        if dead:
            self.pending.append(self._encoder.dead_letters(raw, dead))

    def _publish(self, raw: RawBatch, results: Results, task: Task) -> None:
        start = int(np.searchsorted(results.columns.offset_N, self.publish_from))
        if start == len(results.columns):
            return
        self.pending.append(self._encoder.scores(raw, results, task.features, start))
        self.pending_results += len(results.columns) - start
        episodes = self._encoder.episodes(raw, results, task.features, start)
        if len(episodes):
            self.pending.append(episodes)

    def _observe(self, results: Results, task: Task) -> None:
        metrics, topic, scores = self._metrics, self.source.topic, results.scores
        metrics.scored(self.source, score_of(results.p_N))
        metrics.anomalous(topic, int(results.verdicts.is_anomaly_N.sum()))
        opened = sum(episode.kind == "opened" for episode in results.verdicts.episodes)
        metrics.episodes(topic, opened, len(results.verdicts.episodes) - opened)
        metrics.late(topic, int(results.ticks.late_N.sum()))
        metrics.windows_broken(topic, int(results.ticks.broken_N.sum()))
        metrics.clocks_restarted(topic, int(results.ticks.restarted_N.sum()))
        metrics.learned(topic, scores.loss, scores.seconds)
        metrics.skipped(topic, len(scores.skipped))
        metrics.learners(self.source, task.resident + task.paged, task.paged, task.candidates)
