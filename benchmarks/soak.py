"""A worker at its limit for a long time: does its memory grow, does it keep threads or files?

    python benchmarks/soak.py [--minutes 30] [--results benchmarks/results]

There are always more records waiting than the worker can take, so the rate is the highest that it holds. Keys
come and go: each lives for a number of records and is never heard of again, and one record in ten has a key
of its own. Checkpoints go to Kafka every 10 s, or as often as what they may cost lets them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import Seen, load, told
from numpy.typing import NDArray
from real_worker import RealWorker, of, of_topic
from streams import ComersAndGoers

from streamgen.kafka.broker import EmbeddedBroker

TOPIC = "soak"
EVERY_S = 10.0  # between samples, and between checkpoints
WAITING = 4_000  # records that wait for the worker: a few seconds of its work
KEY_TTL = "20s"  # of event time; a key that lives has a record a second
FEED_S = 0.2  # between looks at how many do
# Half an hour of results and replaced states would be many gigabytes; nobody reads them here.
LIMITED = {
    "log.retention.bytes": str(256 << 20),
    "log.segment.bytes": str(64 << 20),
    "log.retention.check.interval.ms": "10000",
}
STORED, PUBLISHED = of_topic("checkpoint_seconds_count", TOPIC), of("results_published_total", TOPIC)


@dataclass(frozen=True, slots=True)
class Sample:
    """The worker at one moment."""

    at_s: float
    seen: Seen
    records: float
    learners: float
    candidates: float
    checkpoints: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through measurements in time."""

    slope: float  # MiB an hour
    error: float  # standard error of the slope
    level: float  # mean, MiB

    @property
    def flat(self) -> bool:
        """Within noise: no more than two standard errors, or downwards."""
        return self.slope <= 2 * self.error


def trend(hours: NDArray[np.float64], mib: NDArray[np.float64]) -> Trend:
    """Least squares. Neighbours are alike, as memory goes up and down with checkpoints: the error is that of
    as many independent measurements as the residuals' autocorrelation leaves (first order)."""
    centred = hours - hours.mean()
    slope = float(centred @ mib / (centred @ centred))
    rest = mib - mib.mean() - slope * centred
    square = float(rest @ rest)
    alike = max(0.0, float(rest[1:] @ rest[:-1]) / square) if square > 0 else 0.0
    fewer = (1 + alike) / max(1 - alike, 1 / len(mib))
    error = float(np.sqrt(square / max(1, len(mib) - 2) / (centred @ centred) * fewer))
    return Trend(slope, error, float(mib.mean()))


def soak(minutes: float, keys: int, lifetime: int) -> list[Sample]:
    """Samples every 10 s from the first result on."""
    with (
        EmbeddedBroker(properties=LIMITED) as broker,
        tempfile.TemporaryDirectory() as folder,
    ):
        stream = ComersAndGoers(broker.bootstrap_servers, TOPIC, keys, lifetime)
        config: dict[str, Any] = {
            "application_id": "soak",
            "kafka": {"bootstrap_servers": broker.bootstrap_servers},
            "inputs": [{"topic": TOPIC, "key_ttl": KEY_TTL}],
            "state": {"every_seconds": EVERY_S},
        }
        stream.send(WAITING)
        try:
            with RealWorker(Path(folder), config) as worker:
                samples = _watch(worker, stream, 60 * minutes)
                worker.stop()
        finally:
            stream.close()
    return samples


def _watch(worker: RealWorker, stream: ComersAndGoers, seconds: float) -> list[Sample]:
    worker.wait(lambda metrics: metrics.get(PUBLISHED, 0) > 0)
    samples: list[Sample] = []
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds or not samples:
        metrics = worker.metrics()
        # What was read, and waits inside the worker, comes on top.
        stream.send(max(0, int(metrics.get(of("records_total", TOPIC), 0.0)) + WAITING - stream.sent))
        if not samples or now >= samples[-1].at_s + EVERY_S:
            names = (PUBLISHED, of("learners", TOPIC), of("key_candidates", TOPIC), STORED)
            samples.append(Sample(now, worker.see(), *(metrics.get(name, 0.0) for name in names)))
        time.sleep(FEED_S)
    return samples


def report(samples: list[Sample], about: str, warm_up_s: float) -> str:
    """The figures as Markdown."""
    warm = [sample for sample in samples if sample.at_s >= warm_up_s]
    first, last = warm[0], warm[-1]
    found = trend(
        np.array([sample.at_s for sample in warm]) / 3600, np.array([sample.seen.rss_mib for sample in warm])
    )
    seconds = last.at_s - first.at_s
    stored = last.checkpoints - first.checkpoints
    threads, files = ([getattr(sample.seen, name) for sample in warm] for name in ("threads", "files"))
    rows = {
        "records scored and learned a second": f"{(last.records - first.records) / seconds:,.0f}",
        "CPU of the worker, cores": f"{(last.seen.cpu_s - first.seen.cpu_s) / seconds:.2f}",
        "checkpoints": f"{stored:.0f}, one every {seconds / max(1.0, stored):.0f} s",
        "learners, first and last": f"{first.learners:,.0f}, {last.learners:,.0f}",
        "keys without a learner yet, first and last": f"{first.candidates:,.0f}, {last.candidates:,.0f}",
        "resident memory, mean, MiB": f"{found.level:.0f}",
        "… slope, MiB an hour, ± standard error": f"{found.slope:+.1f} ± {found.error:.1f}",
        "threads, first and last (most)": f"{threads[0]}, {threads[-1]} ({max(threads)})",
        "open files, first and last (most)": f"{files[0]}, {files[-1]} ({max(files)})",
    }
    said = "flat: its slope is within two standard errors" if found.flat else "NOT flat"
    lines = ["# Soak", "", about, "", f"From {warm_up_s / 60:.1f} min on, {len(warm)} samples:", ""]
    lines += ["| | |", "|---|---:|", *(f"| {label} | {value} |" for label, value in rows.items())]
    lines += ["", f"**Memory is {said}.**", "", "| min | records | resident MiB | threads | files |"]
    lines += ["|---:|" + "---:|" * 4]
    lines += [
        f"| {s.at_s / 60:.1f} | {s.records:,.0f} | {s.seen.rss_mib:.0f} | {s.seen.threads} | {s.seen.files} |"
        for s in samples[:: max(1, len(samples) // 30)]
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--keys", type=int, default=300, help="that live at a time")
    parser.add_argument("--lifetime", type=int, default=200, help="records of a key")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    before = load()
    samples = soak(given.minutes, given.keys, given.lifetime)
    about = (
        f"Made by `python benchmarks/soak.py --minutes {given.minutes:g}`. {told(before)} {given.keys} keys "
        f"live at a time, each for {given.lifetime} records, and are forgotten when silent; one record in "
        f"ten has a key of its own; a sample every {EVERY_S:.0f} s."
    )
    text = report(samples, about, 60 * given.minutes / 3)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "soak.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
