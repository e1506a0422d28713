"""Storing and restoring a task of many keys while another partition's stream goes on.

One worker has two inputs of one partition each: `many` with all the keys, and `few` with ten. Both get
records at a steady pace, so that every learner of `many` has changed at each checkpoint. In each round a
checkpoint is waited for, the worker is killed with signal 9 as soon as it is stored, and started again.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from real_worker import RealWorker, of, of_topic
from streams import Commits, Pace, Stream

from streamgen.kafka.broker import EmbeddedBroker

APPLICATION = "gaps"
MANY, FEW = "gaps-many", "gaps-few"
EVERY_S = 15.0  # between checkpoints, or what they may cost lets pass
FILLED = 20  # records of a key before: each learner has been trained once
FEW_KEYS = 10
FEW_RATE = 50.0  # records a second
AROUND_S = 0.3  # how exactly a checkpoint's begin and end are known


@dataclass(frozen=True, slots=True)
class Round:
    """One checkpoint and one restart. All times in seconds."""

    store: float  # from the checkpoint's offset until it is stored
    few_gap: float  # longest time without a result of `few` while it was stored
    many_gap: float
    usual_gap: float  # of `few`, over as long a time without a checkpoint
    restore: float  # from assignment to the first new result of `many`
    opened: float  # of that: until its state was read
    replayed: float  # records that were learned again
    restoring_gap: float  # longest time without a result of `few` from its first one until then
    stored_mib: float  # what the state topic's partition held on disk, older checkpoints included


def rounds(broker: EmbeddedBroker, keys: int, count: int) -> tuple[list[Round], int]:
    """So many rounds, and how many learners the last checkpoint of `many` has written."""
    bootstrap = broker.bootstrap_servers
    config: dict[str, Any] = {
        "application_id": APPLICATION,
        "kafka": {"bootstrap_servers": bootstrap},
        "inputs": [{"topic": MANY}, {"topic": FEW}],
        "state": {"every_seconds": EVERY_S},
    }
    many, few = Stream(bootstrap, MANY, keys), Stream(bootstrap, FEW, FEW_KEYS)
    many.fill(keys * FILLED)
    few.fill(FEW_KEYS * FILLED)
    # A round of all keys between two checkpoints.
    pace = Pace({many: 1.2 * keys / EVERY_S, few: FEW_RATE})
    measured: list[Round] = []
    with tempfile.TemporaryDirectory() as folder:
        worker = RealWorker(Path(folder), config)
        try:
            worker.wait(lambda metrics: metrics.get(of("results_published_total", MANY), 0) >= many.sent)
            commits = Commits(bootstrap, [f"{MANY}.scores", f"{FEW}.scores"])
            commits.start()
            pace.start()
            while len(measured) < count:
                stored = _one_store(worker, commits)
                mib = _on_disk_mib(broker)
                killed = time.monotonic()
                worker.kill()
                worker = RealWorker(Path(folder), config)
                restored = _one_restore(worker, commits, killed)
                measured.append(Round(*stored, *restored, mib))
        finally:
            pace.end()
            worker.kill()
            many.close()
            few.close()
    commits.end()
    return measured, learners_written(bootstrap)


def _one_store(worker: RealWorker, commits: Commits) -> tuple[float, float, float, float]:
    count, total = (of_topic(f"checkpoint_seconds_{name}", MANY) for name in ("count", "sum"))
    time.sleep(3.0)  # the backlog of the restart is gone
    before = worker.metrics()
    quiet = time.monotonic()
    after = worker.wait(lambda metrics: metrics.get(count, 0) > before.get(count, 0), 0.1)
    end = time.monotonic()
    store = after[total] - before[total]
    time.sleep(0.5)  # the results that end a gap come
    begin = end - store - AROUND_S
    usual = commits.longest_gap(f"{FEW}.scores", max(quiet, begin - store), begin)
    few, many = (commits.longest_gap(f"{topic}.scores", begin, end + 0.1) for topic in (FEW, MANY))
    return store, few, many, usual


def _one_restore(worker: RealWorker, commits: Commits, killed: float) -> tuple[float, float, float, float]:
    # A rebalance counts when its partitions are this worker's.
    worker.wait(lambda metrics: metrics.get("streamgen_rebalances_total", 0) >= 1, 0.02)
    assigned = time.monotonic()
    found: dict[str, float | None] = {FEW: None, MANY: None}
    while None in found.values():
        if time.monotonic() - assigned > 300:
            raise RuntimeError("no new result in 300 s")
        time.sleep(0.02)
        # What was committed before the kill may be read only after it.
        found = {topic: commits.first(f"{topic}.scores", max(killed + 0.5, assigned)) for topic in found}
    first = {topic: at for topic, at in found.items() if at is not None}
    openings = {event["source"]: event for event in worker.log() if event.get("event") == "task opened"}
    opening = openings[f"{MANY}-0"]
    gap = commits.longest_gap(f"{FEW}.scores", first[FEW], first[MANY])
    opened = _clock(opening["timestamp"]) - (time.time() - time.monotonic()) - assigned
    return first[MANY] - assigned, opened, opening["committed"] - opening["position"], gap


def _clock(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def _on_disk_mib(broker: EmbeddedBroker) -> float:
    logs = broker.data_dir.glob(f"log/{APPLICATION}-state-1/*.log")
    return float(sum(log.stat().st_size for log in logs)) / 2**20


def learners_written(bootstrap: str) -> int:
    """Of the newest checkpoint of `MANY`: of others the broker may have removed some already."""
    reader = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", group_id=None, metrics_enabled=False
    )
    partition = TopicPartition(f"{APPLICATION}-state", 1)
    end = reader.end_offsets([partition])[partition]
    reader.assign([partition])
    reader.seek_to_beginning(partition)
    newest = learners = 0
    while reader.position(partition) < end:
        for record in reader.poll(timeout_ms=200).get(partition, ()):
            if record.key.startswith(b'["learner","%s"' % MANY.encode()) and record.key.endswith(b",0]"):
                learners += record.value is not None
            elif record.key.startswith(b'["task","%s"' % MANY.encode()):
                newest, learners = learners, 0
    reader.close()
    return newest
