"""What checkpoints cost a worker that is at its limit, and how fast it learns again what it had learned.

Both compare two runs over the same records: with checkpoints as the defaults have them against none, and
learning in silence after kill -9 without a checkpoint against learning live.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from real_worker import RealWorker, of, of_topic
from streams import Commits, Stream

LEAVING_OUT = 5  # records of a key at a run's begin: its learners are made there
EVERY_S = 0.25  # between looks at the worker
NEVER = {"every_seconds": 1e6, "every_records": 10**9}


@dataclass(frozen=True, slots=True)
class Sample:
    """How far a worker was, and what it had used."""

    at: float
    records: float
    checkpoints: float
    cpu_s: float
    main_s: float
    waited_s: float


@dataclass(frozen=True, slots=True)
class Span:
    """From one record to another."""

    records: float
    wall_s: float
    cpu_s: float
    main_s: float  # of that, by the loop's own thread
    waited_s: float  # for which the loop's thread waited for a core that another process had

    @property
    def rate(self) -> float:
        """Records a second, as if the machine were the worker's own: without what its thread waited for a
        core."""
        return self.records / (self.wall_s - self.waited_s)

    @property
    def cpu_us(self) -> float:
        """CPU time a record."""
        return 1e6 * self.cpu_s / self.records

    @property
    def beside_us(self) -> float:
        """CPU time a record of the threads beside the loop's."""
        return 1e6 * (self.cpu_s - self.main_s) / self.records


@dataclass(frozen=True, slots=True)
class Cost:
    """One run with checkpoints and one without, over the same records."""

    stored: Span
    free: Span
    checkpoints: int
    stored_gap: float  # the longest time without a result
    free_gap: float

    @property
    def share(self) -> float:
        """CPU time that checkpoints add, of that without."""
        return self.stored.cpu_us / self.free.cpu_us - 1

    @property
    def beside_share(self) -> float:
        """That of the threads beside the loop's, which encode and send: less in the noise of a machine that
        is shared. The loop's own thread copies, tens of microseconds a learner."""
        return (self.stored.beside_us - self.free.beside_us) / self.free.cpu_us


def cost(bootstrap: str, stream: Stream, name: str, keys: int, periods: int) -> Cost:
    """From the time when the learners are made to the end of a checkpoint (or of the stream), and the same
    records without."""
    first = float(LEAVING_OUT * keys)

    def over(samples: list[Sample]) -> bool:
        return samples[-1].checkpoints >= periods or samples[-1].records >= stream.sent

    stored, stored_gap = _run(bootstrap, stream, f"{name}-with", {}, over)
    last = stored[-1].records
    free, free_gap = _run(
        bootstrap, stream, f"{name}-without", NEVER, lambda samples: samples[-1].records >= last
    )
    made = int(stored[-1].checkpoints)
    return Cost(span(stored, first, last), span(free, first, last), made, stored_gap, free_gap)


def replay(bootstrap: str, stream: Stream, name: str, keys: int) -> tuple[Span, Span]:
    """All records live, then again in silence after a kill; the same records of both."""
    first, last = float(LEAVING_OUT * keys), float(stream.sent)
    with tempfile.TemporaryDirectory() as folder:
        config = _config(bootstrap, stream, name, NEVER)
        with RealWorker(Path(folder), config) as worker:
            live = _samples(worker, stream.topic, lambda samples: samples[-1].records >= last)
        with RealWorker(Path(folder), config) as worker:
            again = _samples(worker, stream.topic, lambda samples: samples[-1].records >= last, last)
    return span(live, first, last), span(again, first, last)


def span(samples: list[Sample], first: float, last: float) -> Span:
    """Between two records, each where it lies between two looks."""
    records = [sample.records for sample in samples]
    used = (
        float(np.diff(np.interp([first, last], records, values))[0])
        for values in zip(*((s.at, s.cpu_s, s.main_s, s.waited_s) for s in samples), strict=True)
    )
    return Span(last - first, *used)


def _run(
    bootstrap: str, stream: Stream, name: str, state: dict[str, float], done: Callable[[list[Sample]], bool]
) -> tuple[list[Sample], float]:
    with (
        tempfile.TemporaryDirectory() as folder,
        RealWorker(Path(folder), _config(bootstrap, stream, name, state)) as worker,
    ):
        worker.wait(lambda metrics: metrics.get(of("results_published_total", stream.topic), 0) > 0)
        commits = Commits(bootstrap, [f"{name}.scores"])
        commits.start()
        began = time.monotonic()
        try:
            samples = _samples(worker, stream.topic, done)
        finally:
            commits.end()
        return samples, commits.longest_gap(f"{name}.scores", began, time.monotonic())


def _config(bootstrap: str, stream: Stream, name: str, state: dict[str, float]) -> dict[str, Any]:
    outputs = {kind: f"{name}.{kind}" for kind in ("scores", "anomalies", "dlq")}
    return {
        "application_id": name,
        "kafka": {"bootstrap_servers": bootstrap},
        "inputs": [{"topic": stream.topic, "outputs": outputs}],
        "state": state,
    }


def _samples(
    worker: RealWorker, topic: str, done: Callable[[list[Sample]], bool], replayed: float | None = None
) -> list[Sample]:
    """Look until `done`. `replayed`: so many records are learned in silence, and nothing is published."""
    samples: list[Sample] = []

    def look(metrics: dict[str, float]) -> bool:
        if replayed is None:
            records = metrics.get(of("results_published_total", topic), 0.0)
        else:
            records = replayed - metrics.get(of("replay_records", topic), replayed)
        # Nothing yet, or not a step on: what lies between two records is to be known.
        if records > (samples[-1].records if samples else 0):
            seen = worker.see()
            checkpoints = metrics.get(of_topic("checkpoint_seconds_count", topic), 0.0)
            used = (seen.cpu_s, seen.main_s, seen.waited_s)
            samples.append(Sample(time.monotonic(), records, checkpoints, *used))
        return bool(samples) and done(samples)

    worker.wait(look, EVERY_S)
    return samples
