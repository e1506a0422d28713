"""CPU time of streamgen's own loop over a topic, in a process of its own.

    python benchmarks/worker_cost.py BOOTSTRAP INPUT --records 20000 [--no-learner]

Prints JSON. `learner_s` is the CPU time of the loop's thread inside `Task.process` (clock, model,
calibration, episodes). With `--no-learner` that call answers with fixed numbers of the right shapes: what is
left is reading, decoding, encoding, producing and committing, at the rate at which those alone can go.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import uuid

import numpy as np

from streamgen.config import Config
from streamgen.health import Health
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.pins import KafkaPins
from streamgen.kafka.topics import ensure_topics
from streamgen.learners.episodes import Verdicts
from streamgen.learners.results import Results
from streamgen.learners.task import Task
from streamgen.loop import Loop
from streamgen.metrics import Metrics
from streamgen.models.device import use_device
from streamgen.models.online import Scores
from streamgen.records import Columns
from streamgen.state.files import FileStore
from streamgen.windows import Ticks


class Meter:
    """Stands in for `Task.process` and adds up its CPU time."""

    def __init__(self, learner: bool) -> None:
        self.seconds = 0.0
        self.records = 0
        self._learner, self._process = learner, Task.process

    def __call__(self, task: Task, columns: Columns) -> Results:
        began = time.thread_time()
        results = self._process(task, columns) if self._learner else fixed(columns)
        self.seconds += time.thread_time() - began
        self.records += len(columns)
        return results


def fixed(columns: Columns) -> Results:
    """Numbers as long as real ones, the same for every record."""
    N, D = columns.value_ND.shape
    scores = Scores.empty(N, D, 2)
    scores.nll_N[:] = 1.2345678901234567
    for array in (scores.expected_ND, scores.low_ND, scores.high_ND, scores.contribution_ND):
        array[:] = 0.1234567890123456
    no_N = np.zeros(N, dtype=np.bool_)
    verdicts = Verdicts(no_N, np.full(N, 0.0034), no_N, [])
    ticks = Ticks(no_N, no_N, no_N, np.full(N, 1000.0), np.zeros((N, 7)), np.zeros(N, dtype=np.int64))
    return Results(columns, scores, np.full(N, 0.3456789012345678), verdicts, ticks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--no-learner", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        config = Config.model_validate(
            {
                "application_id": f"cost-{uuid.uuid4().hex[:8]}",
                "kafka": {"bootstrap_servers": given.bootstrap},
                "inputs": [{"topic": given.topic}],
                "state": {"directory": state, "every_seconds": 1e6, "every_records": 10**9},
            }
        )
        device = use_device("cpu")
        ensure_topics(config)
        meter = Meter(not given.no_learner)
        Task.process = lambda task, columns: meter(task, columns)  # type: ignore[method-assign]
        transport = KafkaTransport(config, [given.topic], "cost")
        pins = KafkaPins(config.kafka, config.application_id)
        loop = Loop(config, transport, pins, FileStore(state), Metrics(), Health(), device)
        began = wall = 0.0

        def stopping() -> bool:
            nonlocal began, wall
            if not meter.records:  # joining the group and opening the tasks is not part of the loop
                began, wall = cpu_s(), time.perf_counter()
            done = sum(pipeline.committed for pipeline in loop.pipelines.values())
            return done >= given.records

        while not stopping():
            loop.turn()
        result = {
            "records": meter.records,
            "wall_s": time.perf_counter() - wall,
            "cpu_s": cpu_s() - began,
            "learner_s": meter.seconds,
        }
        transport.close()
    print(json.dumps(result))
    return 0


def cpu_s() -> float:
    """User and system time of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
