"""What checkpoints cost a worker that is at its limit, and how fast it learns again what it had learned.

Both compare two runs over the same records: with checkpoints as the defaults have them against none, and
learning in silence after kill -9 without a checkpoint against learning live. On a machine that is shared, the
CPU time of the same work differs by more than a checkpoint costs; so its cost is also taken from within one
run: what the threads beside the loop's use while one is written, and what they use otherwise.
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
COPY_S = 50e-6  # to copy a learner of the default model, measured alone
NEVER = {"every_seconds": 1e6, "every_records": 10**9}


@dataclass(frozen=True, slots=True)
class Sample:
    """How far a worker was, and what it had used."""

    at: float
    records: float
    checkpoints: float
    checkpoint_s: float  # how long all of them took
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


@dataclass(frozen=True, slots=True)
class Cost:
    """One run with checkpoints and one without, over the same records."""

    stored: Span
    free: Span
    checkpoints: int
    beside_s: float  # CPU time of the threads beside the loop's for the last checkpoint
    loop_s: float  # CPU time of the loop's thread for copying all learners, if each takes `COPY_S`
    gap: float  # longest time without a result while the last checkpoint was written
    usual_gap: float  # and before it, over as long a time

    @property
    def difference(self) -> float:
        """CPU time that a record costs more with checkpoints, of that without."""
        return self.stored.cpu_us / self.free.cpu_us - 1

    @property
    def share(self) -> float:
        """CPU time of checkpoints, of that of the same run without them."""
        ours = self.checkpoints * (self.beside_s + self.loop_s)
        return ours / (self.stored.cpu_s - ours)


def cost(bootstrap: str, stream: Stream, name: str, keys: int, periods: int) -> Cost:
    """From the time when the learners are made to the end of a checkpoint (or of the stream), and the same
    records without."""
    first = float(LEAVING_OUT * keys)

    def over(samples: list[Sample]) -> bool:
        return samples[-1].checkpoints >= periods or samples[-1].records >= stream.sent

    stored, commits = _run(bootstrap, stream, f"{name}-with", {}, over)
    last = stored[-1].records
    free, _ = _run(bootstrap, stream, f"{name}-without", NEVER, lambda samples: samples[-1].records >= last)
    made, end = int(stored[-1].checkpoints), stored[-1].at
    took = stored[-1].checkpoint_s - next(
        (s.checkpoint_s for s in reversed(stored) if s.checkpoints < made), 0.0
    )
    before, begin, topic = end - 2 * took - EVERY_S, end - took - EVERY_S, f"{name}-with.scores"
    return Cost(
        span(stored, first, last),
        span(free, first, last),
        made,
        _beside(stored, begin, end) - _beside(stored, before, begin),
        keys * COPY_S,
        commits.longest_gap(topic, begin, end),
        commits.longest_gap(topic, before, begin),
    )


def _beside(samples: list[Sample], begin: float, end: float) -> float:
    """CPU time of the threads beside the loop's between two moments."""
    at, used = [s.at for s in samples], [s.cpu_s - s.main_s for s in samples]
    return float(np.diff(np.interp([begin, end], at, used))[0])


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
) -> tuple[list[Sample], Commits]:
    with (
        tempfile.TemporaryDirectory() as folder,
        RealWorker(Path(folder), _config(bootstrap, stream, name, state)) as worker,
    ):
        worker.wait(lambda metrics: metrics.get(of("results_published_total", stream.topic), 0) > 0)
        commits = Commits(bootstrap, [f"{name}.scores"])
        commits.start()
        try:
            samples = _samples(worker, stream.topic, done)
        finally:
            commits.end()
        return samples, commits


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
            names = (of_topic(f"checkpoint_seconds_{name}", topic) for name in ("count", "sum"))
            checkpoints, took = (metrics.get(name, 0.0) for name in names)
            used = (seen.cpu_s, seen.main_s, seen.waited_s)
            samples.append(Sample(time.monotonic(), records, checkpoints, took, *used))
        return bool(samples) and done(samples)

    worker.wait(look, EVERY_S)
    return samples
