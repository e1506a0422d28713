"""The metrics as a scrape sees them, and the page that explains them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as ReferenceHistogram
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from streamgen.metrics import DRIFT, SCORES, Histogram, ImageMetrics, Metrics, PublisherMetrics
from streamgen.records import Reason, TopicPartition

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
PAGE = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def scrape(metrics: Metrics) -> dict[str, Metric]:
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    for family in scrape(metrics).values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def test_an_array_counts_as_each_of_its_values() -> None:
    rng = np.random.default_rng(1)
    # The bounds themselves, their neighbours, and what lies beyond them.
    values = np.concatenate([rng.uniform(-0.1, 1.1, 500), SCORES, np.nextafter(SCORES, 2)])
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("x", "X.", ("topic",), SCORES, ours)
    reference = ReferenceHistogram("x", "X.", ("topic",), buckets=SCORES, registry=theirs)
    for part in np.array_split(values, 7):
        histogram.observe(("a",), part)
    for one in values:
        reference.labels("a").observe(one)

    def samples(registry: CollectorRegistry) -> dict[str, float]:
        return {
            f"{one.name} {one.labels}": one.value
            for family in registry.collect()
            for one in family.samples
            if not one.name.endswith("_created")
        }

    assert samples(ours) == pytest.approx(samples(theirs))
    assert list(samples(ours)) == list(samples(theirs))


def test_values_that_are_not_finite_spoil_no_histogram() -> None:
    metrics = Metrics()
    metrics.learned("a", [0.5, np.nan, np.inf, -np.inf], 0.1)
    assert value(metrics, "streamgen_updates_total", topic="a") == 4
    assert value(metrics, "streamgen_loss_bucket", topic="a", le="+Inf") == 1


def test_counters_are_there_before_the_first_event() -> None:
    metrics = Metrics()
    metrics.assigned(A0)
    for family in scrape(metrics).values():
        if family.type == "counter":
            assert family.samples, family.name
            assert {one.value for one in family.samples} == {0}, family.name
    for reason in Reason:
        assert value(metrics, "streamgen_dead_letters_total", topic="a", reason=reason) == 0
    for kind in DRIFT:
        assert value(metrics, "streamgen_schema_drift_total", topic="a", kind=kind) == 0


def test_the_way_of_a_record() -> None:
    metrics = Metrics()
    metrics.assigned(A0)
    metrics.received(A0, 5)
    metrics.scored(A0, np.array([0.2, 0.3, 0.9995]))
    metrics.dead_lettered("a", Reason.MALFORMED)
    metrics.dead_lettered("a", Reason.EMPTY, 2)
    metrics.late("a", 2)
    metrics.drifted("a", "new", 4)
    metrics.anomalous("a", 1)
    metrics.episodes("a", opened=2, closed=1)
    metrics.published(A0, 3)
    metrics.skipped("a", 1)
    metrics.windows_broken("a", 6)
    metrics.clocks_restarted("a", 7)
    metrics.aborted()
    metrics.rebalanced()
    metrics.batch(0.02)
    metrics.transaction(0.3)
    a0 = {"topic": "a", "partition": "0"}
    assert value(metrics, "streamgen_records_total", **a0) == 5
    assert value(metrics, "streamgen_records_scored_total", **a0) == 3
    assert value(metrics, "streamgen_score_bucket", topic="a", le="0.25") == 1
    assert value(metrics, "streamgen_score_bucket", topic="a", le="0.999") == 2
    assert value(metrics, "streamgen_score_count", topic="a") == 3
    assert value(metrics, "streamgen_dead_letters_total", topic="a", reason="malformed") == 1
    assert value(metrics, "streamgen_dead_letters_total", topic="a", reason="empty") == 2
    assert value(metrics, "streamgen_late_records_total", topic="a") == 2
    assert value(metrics, "streamgen_schema_drift_total", topic="a", kind="new") == 4
    assert value(metrics, "streamgen_anomalies_total", topic="a") == 1
    assert value(metrics, "streamgen_episodes_opened_total", topic="a") == 2
    assert value(metrics, "streamgen_episodes_closed_total", topic="a") == 1
    assert value(metrics, "streamgen_results_published_total", **a0) == 3
    assert value(metrics, "streamgen_updates_skipped_total", topic="a") == 1
    assert value(metrics, "streamgen_windows_broken_total", topic="a") == 6
    assert value(metrics, "streamgen_key_clock_restarts_total", topic="a") == 7
    assert value(metrics, "streamgen_transaction_aborts_total") == 1
    assert value(metrics, "streamgen_rebalances_total") == 1
    assert value(metrics, "streamgen_batch_seconds_sum") == 0.02
    assert value(metrics, "streamgen_transaction_seconds_bucket", le="0.25") == 0
    assert value(metrics, "streamgen_transaction_seconds_bucket", le="0.5") == 1


def test_an_unknown_kind_of_drift_is_refused() -> None:
    with pytest.raises(ValueError, match="strange"):
        Metrics().drifted("a", "strange", 1)


def test_the_age_of_a_checkpoint_grows_between_scrapes() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    age = "streamgen_checkpoint_age_seconds"
    metrics.assigned(A0)
    clock.now += 5
    assert value(metrics, age, topic="a", partition="0") == 5  # none yet: since the assignment
    metrics.restored(A0, offset=70, written=clock.now - 100)
    assert value(metrics, age, topic="a", partition="0") == 100
    assert value(metrics, "streamgen_checkpoint_offset", topic="a", partition="0") == 70
    metrics.checkpointed(A0, offset=90, seconds=0.2)
    clock.now += 3
    assert value(metrics, age, topic="a", partition="0") == 3
    assert value(metrics, "streamgen_checkpoint_offset", topic="a", partition="0") == 90
    assert value(metrics, "streamgen_checkpoint_seconds_count", topic="a") == 1


def test_gauges_of_revoked_partitions_disappear() -> None:
    metrics = Metrics()
    for source in (A0, A1, B0):
        metrics.assigned(source)
        metrics.received(source, 1)
        metrics.lag(source, 9)
        metrics.learners(source, 2, 1, 3)
        metrics.retention_used(source, 0.1)
        metrics.replay_left(source, 4)
        metrics.checkpointed(source, 10, 0.1)
    metrics.revoked(A0)
    # What the loop still had to say of it brings nothing back.
    metrics.lag(A0, 9)
    metrics.checkpointed(A0, 11, 0.1)
    gauges = [family for family in scrape(metrics).values() if family.type == "gauge"]
    seen = {family.name: {(one.labels["topic"], one.labels["partition"]) for one in family.samples}
            for family in gauges if "build" not in family.name}  # fmt: skip
    assert len(seen) == 8
    assert set(map(frozenset, seen.values())) == {frozenset({("a", "1"), ("b", "0")})}
    assert value(metrics, "streamgen_records_total", topic="a", partition="0") == 1
    metrics.assigned(A0)
    metrics.lag(A0, 1)
    assert value(metrics, "streamgen_lag_records", topic="a", partition="0") == 1


def test_a_partition_revoked_before_anything_was_said_of_it() -> None:
    Metrics().revoked(A0)


def test_names_and_labels_keep_the_rules() -> None:
    metrics = Metrics()
    metrics.assigned(A0)
    for family in metrics.registry.collect():
        assert family.name.startswith("streamgen_")
        assert family.type in ("counter", "gauge", "histogram", "info")
        assert not re.search(r"_(ms|millis|milliseconds|minutes|percent)$", family.name)
        for sample in family.samples:
            allowed = {"topic", "partition", "reason", "kind", "le"}
            assert set(sample.labels) <= (allowed if family.type != "info" else {"version", "python"})


def test_two_workers_in_one_process_share_nothing() -> None:
    one, two = Metrics(), Metrics()
    one.aborted()
    assert value(two, "streamgen_transaction_aborts_total") == 0


def test_a_distance_is_shown_when_there_is_one() -> None:
    metrics = PublisherMetrics()
    metrics.compared(A0, 3, float("nan"), float("nan"))
    at = {"topic": "a", "partition": "0"}
    assert value(metrics, "streamgen_generate_compared_total", **at) == 3
    assert value(metrics, "streamgen_generate_distance_ratio", **at) is None
    metrics.compared(A0, 1, 0.25, 0.125)
    assert value(metrics, "streamgen_generate_compared_total", **at) == 4
    assert value(metrics, "streamgen_generate_distance_ratio", **at) == 0.25
    assert value(metrics, "streamgen_generate_distance_chance_ratio", **at) == 0.125
    metrics.compared(A0, 0, float("nan"), float("nan"))  # it is of nothing any more
    assert value(metrics, "streamgen_generate_distance_ratio", **at) is None
    assert value(metrics, "streamgen_generate_distance_chance_ratio", **at) is None
    assert value(metrics, "streamgen_generate_compared_total", **at) == 4


def test_every_metric_and_no_other_is_documented() -> None:
    metrics = PublisherMetrics()  # has those of a worker too
    metrics.assigned(A0)
    metrics.lag(A0, 1)
    metrics.learners(A0, 1, 0, 0)
    metrics.retention_used(A0, 0.0)
    metrics.replay_left(A0, 1)
    metrics.restored(A0, 1, 1.0)
    metrics.generates("a", ["continue"], ["failed"])
    metrics.generated_from(A0, 1.0, 2)
    metrics.compared(A0, 1, 0.1, 0.2)
    images = ImageMetrics()
    images.learns("a")
    images.trained("a", 1, {"bound": 0.5})
    images.collected("a", 1)
    images.round_ended("a", True, 0.1, 0.2, 1.0)
    code = {}
    for family in [*images.registry.collect(), *metrics.registry.collect()]:
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = {label for one in family.samples for label in one.labels} - {"le"}
        code[name] = (family.type, labels)
    rows = re.findall(
        r"^\| `(streamgen_\w+)` \| (\w+) \| (.*?) \| (.+?) \| (.+?) \|$", PAGE, flags=re.MULTILINE
    )
    page = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels, _, _ in rows}
    assert page == code
    mentioned = set(re.findall(r"streamgen_\w+", PAGE))
    suffixes = {f"{name}{suffix}" for name in code for suffix in ("_bucket", "_sum", "_count")}
    assert mentioned <= set(code) | suffixes
