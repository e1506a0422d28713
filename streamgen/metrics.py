"""Every Prometheus metric, in one file: names begin with `streamgen_`, units are base units.

No label is per key: a topic may have millions of them. docs/metrics.md says what each metric means and
when to worry; a test keeps the page and this file the same.
"""

from __future__ import annotations

import math
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Info, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

import streamgen
from streamgen.records import Reason, TopicPartition

TOPIC = ("topic",)
PARTITION = ("topic", "partition")
DRIFT = ("new", "vanished", "retyped")
SCORES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
LOSSES = (-100.0, -30.0, -10.0, -3.0, -1.0, 0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram(Collector):
    """A histogram that takes an array of observations in one call.

    The library's own takes one at a time, which is too slow for thousands of scores a second. Values that
    are not finite are left out: one of them would spoil the sum for good.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._le = [*map(str, bounds), "+Inf"]
        self._lock = threading.Lock()  # the loop observes, the HTTP server's threads collect
        self._series: dict[tuple[str, ...], tuple[NDArray[np.int64], float]] = {}
        registry.register(self)

    def observe(self, labels: tuple[str, ...], values: ArrayLike) -> None:
        """Count all of `values` (any shape) in the series of `labels`; none at all makes the series exist."""
        array = np.asarray(values, dtype=np.float64).ravel()
        array = array[np.isfinite(array)]
        # A bucket holds what is less than or equal to its bound: side="left".
        bucket = np.searchsorted(self._bounds, array, side="left")
        counts = np.bincount(bucket, minlength=len(self._le)).astype(np.int64)
        with self._lock:
            before, total = self._series.get(labels, (0, 0.0))
            self._series[labels] = (before + counts, total + float(array.sum()))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """For the registry's check of duplicate names."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape sees: cumulative counts for each series."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        with self._lock:
            series = dict(self._series)
        for labels, (counts, total) in series.items():
            buckets = list(zip(self._le, np.cumsum(counts).tolist(), strict=True))
            family.add_metric(labels, buckets, total)
        yield family


class Metrics:
    """What one worker tells Prometheus, in a registry of its own. Methods may be called from any thread.

    Call `assigned` for a partition before anything else about it: it makes its counters exist at zero, so
    that the first event is seen as an increase, and `revoked` when it is given up: its gauges disappear.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970; it only tells a checkpoint's age."""
        # Else each counter has a second series, its birth as a gauge, which no Prometheus needs. The library
        # knows this switch for the whole process only.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._clock = clock
        self._partitions: set[TopicPartition] = set()

        def counter(name: str, documentation: str, labels: Sequence[str] = TOPIC) -> Counter:
            return Counter(f"streamgen_{name}", documentation, labels, registry=registry)

        def gauge(name: str, documentation: str) -> Gauge:
            return Gauge(f"streamgen_{name}", documentation, PARTITION, registry=registry)

        def histogram(
            name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]
        ) -> Histogram:
            return Histogram(f"streamgen_{name}", documentation, labels, bounds, registry)

        self._records = counter("records", "Records read.", PARTITION)
        self._scored = counter("records_scored", "Records scored.", PARTITION)
        self._published = counter("results_published", "Scores whose transaction was committed.", PARTITION)
        self._dead = counter("dead_letters", "Records dead-lettered.", ("topic", "reason"))
        self._late = counter("late_records", "Records older than the newest of their key.")
        self._drift = counter("schema_drift", "Records unlike the pinned schema.", ("topic", "kind"))
        self._anomalies = counter("anomalies", "Records above the threshold.")
        self._opened = counter("episodes_opened", "Episodes opened.")
        self._closed = counter("episodes_closed", "Episodes closed.")
        self._updates = counter("updates", "Training updates made.")
        self._skipped = counter("updates_skipped", "Training updates skipped: loss or gradient not finite.")
        self._broken = counter("windows_broken", "Windows broken off by a gap in event time.")
        self._restarts = counter("key_clock_restarts", "Keys whose clock restarted at late records.")
        self._aborts = counter("transaction_aborts", "Transactions aborted.", ())
        self._lost = counter("log_gap_records", "Records that were gone before they could be learned.")
        self._failed = counter("checkpoint_failures", "Checkpoints that could not be stored.")
        self._rebalances = counter("rebalances", "Times that the assignment changed.", ())
        self._lag = gauge("lag_records", "Records between what was read and the end of the partition.")
        self._learners = gauge("learners", "Models that learn.")
        self._replay = gauge("replay_records", "Records left to replay before the partition is live.")
        self._paged = gauge("learners_paged", "Of these, models that wait on disk.")
        self._candidates = gauge("key_candidates", "Keys that have too few records for a model yet.")
        self._retention = gauge(
            "checkpoint_retention_ratio", "Time since the last checkpoint, of the input's retention."
        )
        self._age = gauge("checkpoint_age_seconds", "Time since the last checkpoint or, without, assignment.")
        self._offset = gauge("checkpoint_offset", "Offset of the last checkpoint.")
        self._score = histogram("score", "Scores.", TOPIC, SCORES)
        self._loss = histogram("loss", "Loss of each training update.", TOPIC, LOSSES)
        self._learn_s = histogram("learning_step_seconds", "Time of a training update.", TOPIC, SECONDS)
        self._checkpoint_s = histogram("checkpoint_seconds", "Time to write a checkpoint.", TOPIC, SECONDS)
        self._batch_s = histogram("batch_seconds", "Time from a poll's records to results.", (), SECONDS)
        self._transaction_s = histogram("transaction_seconds", "Time of a transaction.", (), SECONDS)
        for series in (self._batch_s, self._transaction_s):
            series.observe((), ())
        versions = {"version": streamgen.__version__, "python": platform.python_version()}
        Info("streamgen_build", "Versions.", registry=registry).info(versions)

    # --- partitions: called when the assignment changes

    def rebalanced(self) -> None:
        """The assignment changed."""
        self._rebalances.inc()

    def assigned(self, source: TopicPartition) -> None:
        """The partition is this worker's; its checkpoint's age counts from now until there is one."""
        self._partitions.add(source)
        labels = _labels(source)
        for by_partition in (self._records, self._scored, self._published):
            by_partition.labels(*labels)
        for by_topic in (self._late, self._anomalies, self._opened, self._closed, self._updates):
            by_topic.labels(source.topic)
        for by_topic in (self._skipped, self._broken, self._restarts, self._lost, self._failed):
            by_topic.labels(source.topic)
        for reason in Reason:
            self._dead.labels(source.topic, reason)
        for kind in DRIFT:
            self._drift.labels(source.topic, kind)
        for values in (self._score, self._loss, self._learn_s, self._checkpoint_s):
            values.observe((source.topic,), ())
        self._checkpointed_at(source, self._clock())

    def revoked(self, source: TopicPartition) -> None:
        """The partition is another's: its gauges disappear, its counters stay where they are."""
        self._partitions.discard(source)
        for gauge in (self._lag, self._learners, self._paged, self._candidates, self._replay, self._age):
            gauge.remove(*_labels(source))
        for gauge in (self._offset, self._retention):
            gauge.remove(*_labels(source))

    # --- the way of a record

    def received(self, source: TopicPartition, records: int) -> None:
        """`records` were read."""
        self._records.labels(*_labels(source)).inc(records)

    def lag(self, source: TopicPartition, records: int) -> None:
        """`records` lie between what was read and the end that a read_committed reader sees."""
        self._set(self._lag, source, records)

    def dead_lettered(self, topic: str, reason: Reason, records: int = 1) -> None:
        """`records` go to the dead-letter topic for `reason`."""
        self._dead.labels(topic, reason).inc(records)

    def late(self, topic: str, records: int) -> None:
        """`records` were older than the newest of their key."""
        self._late.labels(topic).inc(records)

    def drifted(self, topic: str, kind: str, records: int) -> None:
        """`records` had a field that is new, vanished or retyped (`kind`)."""
        if kind not in DRIFT:
            raise ValueError(f"no kind of schema drift: {kind!r}")
        self._drift.labels(topic, kind).inc(records)

    def scored(self, source: TopicPartition, scores: ArrayLike) -> None:
        """These scores (0 to 1) were given."""
        self._scored.labels(*_labels(source)).inc(np.size(scores))
        self._score.observe((source.topic,), scores)

    def anomalous(self, topic: str, records: int) -> None:
        """`records` were above the threshold."""
        self._anomalies.labels(topic).inc(records)

    def episodes(self, topic: str, opened: int, closed: int) -> None:
        """So many episodes were opened and closed."""
        self._opened.labels(topic).inc(opened)
        self._closed.labels(topic).inc(closed)

    def published(self, source: TopicPartition, results: int) -> None:
        """`results` are visible: their transaction was committed."""
        self._published.labels(*_labels(source)).inc(results)

    # --- learning

    def learners(self, source: TopicPartition, models: int, paged: int, candidates: int) -> None:
        """So many models learn the partition, so many of them wait on disk, so many keys have none yet."""
        self._set(self._learners, source, models)
        self._set(self._paged, source, paged)
        self._set(self._candidates, source, candidates)

    def learned(self, topic: str, losses: ArrayLike, seconds: ArrayLike) -> None:
        """An update was made for each of `losses`, each in its `seconds`."""
        self._updates.labels(topic).inc(np.size(losses))
        self._loss.observe((topic,), losses)
        self._learn_s.observe((topic,), seconds)

    def skipped(self, topic: str, updates: int) -> None:
        """`updates` were not made, for a loss or gradient that is not finite."""
        self._skipped.labels(topic).inc(updates)

    def windows_broken(self, topic: str, windows: int) -> None:
        """`windows` were broken off by a gap in event time."""
        self._broken.labels(topic).inc(windows)

    def clocks_restarted(self, topic: str, keys: int) -> None:
        """So many keys restarted their clock at late records."""
        self._restarts.labels(topic).inc(keys)

    def lost(self, topic: str, records: int) -> None:
        """`records` were gone from the log before they could be learned."""
        self._lost.labels(topic).inc(records)

    # --- the loop, transactions and checkpoints

    def checkpoint_failed(self, source: TopicPartition) -> None:
        """A checkpoint was not stored."""
        self._failed.labels(source.topic).inc()

    def batch(self, seconds: float) -> None:
        """What one poll brought became results in `seconds`."""
        self._batch_s.observe((), seconds)

    def transaction(self, seconds: float) -> None:
        """A transaction was committed in `seconds`."""
        self._transaction_s.observe((), seconds)

    def aborted(self) -> None:
        """A transaction was aborted."""
        self._aborts.inc()

    def checkpointed(self, source: TopicPartition, offset: int, seconds: float) -> None:
        """A checkpoint at `offset` was written just now and took `seconds`."""
        self._checkpoint_s.observe((source.topic,), seconds)
        self.restored(source, offset, self._clock())

    def restored(self, source: TopicPartition, offset: int, written: float) -> None:
        """The last checkpoint is at `offset` and was written at `written` (seconds since 1970)."""
        self._set(self._offset, source, offset)
        self._checkpointed_at(source, written)

    def retention_used(self, source: TopicPartition, share: float) -> None:
        """What was learned last is not stored for that share of the time that the log is kept."""
        self._set(self._retention, source, share)

    def replay_left(self, source: TopicPartition, records: int) -> None:
        """`records` are left to replay before the partition is live; 0 when it is."""
        self._set(self._replay, source, records)

    def _checkpointed_at(self, source: TopicPartition, written: float) -> None:
        if source in self._partitions:
            self._age.labels(*_labels(source)).set_function(lambda: max(0.0, self._clock() - written))

    def _set(self, gauge: Gauge, source: TopicPartition, value: float) -> None:
        # What is said of a partition after it was revoked would bring its gauge back for good.
        if source in self._partitions:
            gauge.labels(*_labels(source)).set(value)


class PublisherMetrics(Metrics):
    """What one publisher of sequences tells: its own, beside what every process with transactions tells."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970; it only tells a state's age."""
        super().__init__(clock)

        def counter(name: str, documentation: str, label: str) -> Counter:
            return Counter(f"streamgen_{name}", documentation, ("topic", label), registry=self.registry)

        def gauge(name: str, documentation: str) -> Gauge:
            return Gauge(f"streamgen_generate_{name}", documentation, PARTITION, registry=self.registry)

        self._asked = counter("generate_requests", "Requests for sequences read.", "kind")
        self._refused = counter("generate_errors", "Requests that were not answered.", "reason")
        self._sequences = counter("sequences_published", "Sequences whose transaction committed.", "kind")
        self._state_age = gauge("state_age_seconds", "Age of the state that sequences come from.")
        self._behind = gauge("behind_records", "Records since that state was stored.")
        self._compared = counter("generate_compared", "Sequences compared with what then came.", "partition")
        self._distance = gauge("distance_ratio", "How far they are from what then came, 0 to 1.")
        self._chance = gauge("distance_chance_ratio", "How far a right model's would be, in 99 of 100 cases.")
        self._generate_s = Histogram(
            "streamgen_generate_seconds", "Time to answer a request.", TOPIC, SECONDS, self.registry
        )

    def generates(self, topic: str, kinds: Iterable[str], reasons: Iterable[str]) -> None:
        """Sequences of a topic's keys are published: its counters exist at zero."""
        for kind in kinds:
            self._asked.labels(topic, kind)
            self._sequences.labels(topic, kind)
        for reason in reasons:
            self._refused.labels(topic, reason)
        self._generate_s.observe((topic,), ())

    def asked(self, topic: str, kind: str, seconds: float) -> None:
        """A request of that kind was read, and answered or refused in `seconds`."""
        self._asked.labels(topic, kind).inc()
        self._generate_s.observe((topic,), seconds)

    def refused(self, topic: str, reason: str) -> None:
        """A request was not answered."""
        self._refused.labels(topic, reason).inc()

    def generated_from(self, source: TopicPartition, written: float, behind: int) -> None:
        """A state was generated from that was stored at `written` (seconds since 1970), `behind` records
        before the partition's end."""
        self._state_age.labels(*_labels(source)).set(max(0.0, self._clock() - written))
        self._behind.labels(*_labels(source)).set(behind)

    def compared(self, source: TopicPartition, pairs: int, distance: float, chance: float) -> None:
        """So many more sequences were compared with what then came. Their distance, and what chance makes of
        it, are NaN while there are too few: then nothing is shown, nor what was shown before."""
        labels = _labels(source)
        self._compared.labels(*labels).inc(pairs)
        for gauge, value in ((self._distance, distance), (self._chance, chance)):
            if math.isnan(value):
                gauge.remove(*labels)
            else:
                gauge.labels(*labels).set(value)

    def sequences(self, topic: str, kind: str, sequences: int) -> None:
        """So many sequences are visible: their transaction was committed."""
        self._sequences.labels(topic, kind).inc(sequences)


class ImageMetrics(Metrics):
    """What a process that learns a topic of images tells, beside what all with transactions tell."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock`: see `Metrics`."""
        super().__init__(clock)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(
                f"streamgen_images_{name}", documentation, ("topic", *labels), registry=self.registry
            )

        self._rounds = Counter(
            "streamgen_images_rounds", "Batches learned.", ("topic", "outcome"), registry=self.registry
        )
        self._broken_off = Counter(
            "streamgen_images_trainings_failed",
            "Of these, diverged or collapsed.",
            TOPIC,
            registry=self.registry,
        )
        self._collected = gauge("collected", "Images of the next batch that are there.")
        self._step = gauge("step", "Steps of the batch that is learned.")
        self._losses = gauge("loss", "Losses of the newest step.", "loss")
        self._distances = gauge("distance_ratio", "Distance from images held out.", "model")
        self._round_s = gauge("round_seconds", "Time that the last batch took.")

    def learns(self, topic: str) -> None:
        """A topic is learned: its counters exist at zero."""
        for outcome in ("taken", "kept"):
            self._rounds.labels(topic, outcome)
        self._broken_off.labels(topic)

    def collected(self, topic: str, images: int) -> None:
        """So many images of the next batch are there."""
        self._collected.labels(topic).set(images)

    def trained(self, topic: str, step: int, losses: Mapping[str, float]) -> None:
        """A step was made."""
        self._step.labels(topic).set(step)
        for name, value in losses.items():
            self._losses.labels(topic, name).set(value)

    def training_failed(self, topic: str) -> None:
        """A training diverged or collapsed, and went back to its last good checkpoint."""
        self._broken_off.labels(topic).inc()

    def round_ended(self, topic: str, taken: bool, new: float, old: float | None, seconds: float) -> None:
        """A batch was learned in `seconds`, and its model taken or the one before kept; their distances from
        images that neither learned from."""
        self._rounds.labels(topic, "taken" if taken else "kept").inc()
        self._distances.labels(topic, "new").set(new)
        if old is not None:
            self._distances.labels(topic, "before").set(old)
        self._round_s.labels(topic).set(seconds)


def _labels(source: TopicPartition) -> tuple[str, str]:
    return source.topic, str(source.partition)
