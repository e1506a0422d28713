"""A loop over a Kafka in memory, and what went in and came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np

from streamgen.config import Config
from streamgen.health import Health
from streamgen.loop import Loop
from streamgen.metrics import Metrics
from streamgen.state.store import Store
from streamgen.testing import Fault, Inline, LogRecord, MemoryLog, MemoryTransport

N, PARTITIONS = 240, 2
BAD = {17: b"{", 40: b"", 41: b'{"x": null}', 99: b'{"x": 1e999}', 150: b'{"y": 1}'}


class Ticking:
    """A clock that a test moves: every look takes a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def config(**settings: object) -> Config:
    one = {"topic": "in", "model": {"name": "stream_ae", "hidden": 4}, **settings.pop("input", {})}  # type: ignore[dict-item]
    every = settings.pop("every_records", 50_000)
    return Config.model_validate({"inputs": [one], "state": {"every_records": every}, **settings})


def filled(bad: bool = True) -> MemoryLog:
    log = MemoryLog()
    log.create_topic("in", PARTITIONS)
    for topic in ("in.scores", "in.anomalies", "in.dlq"):
        log.create_topic(topic, PARTITIONS)
    rng = np.random.default_rng(0)
    for n in range(N):
        value = json.dumps({"x": float(rng.normal()), "other": n}).encode()
        log.append("in", BAD.get(n, value) if bad else value, key=b"k%d" % (n % 5), timestamp_ms=n * 60_000)
    return log


def loop_over(
    log: MemoryLog,
    state: Store,
    polls: Sequence[int] | None = None,
    faults: Sequence[Fault | None] = (),
    background: Executor | None = None,
    transport: MemoryTransport | None = None,
    **settings: object,
) -> tuple[Loop, MemoryTransport]:
    made = config(**settings)
    transport = transport or MemoryTransport(log, ["in"], poll_sizes=polls)
    transport.inject(*faults)
    clock = Ticking()
    loop = Loop(
        made,
        transport,
        log.pins("streamgen"),
        state,
        Metrics(),
        Health(),
        clock=clock,
        sleep=clock.sleep,
        background=background or Inline(),
    )
    return loop, transport


def until_read(loop: Loop, log: MemoryLog) -> Callable[[], bool]:
    """Stop when everything was processed and committed."""

    def stopping() -> bool:
        return len(loop.pipelines) == len(log.partitions("in")) and all(
            pipeline.position == log.partition(source).end and not pipeline.uncommitted
            for source, pipeline in loop.pipelines.items()
        )

    return stopping


def outputs(log: MemoryLog) -> dict[str, list[LogRecord]]:
    return {
        topic: [
            LogRecord(0, r.timestamp, r.key, r.value, r.headers)
            for partition in range(PARTITIONS)
            for r in log.records(topic, partition)
        ]
        for topic in ("in.scores", "in.anomalies", "in.dlq")
    }
