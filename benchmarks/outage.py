"""A broker that is away: what a worker does meanwhile, and when it has caught up.

    python benchmarks/outage.py [--minutes 5] [--results benchmarks/results]

One worker (`streamgen run`) at a pace that it keeps up with easily. The broker is killed, stays away, and is
started again on its data; then every record must have exactly one result.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer
from kafka import TopicPartition as ClientPartition
from machine import load, told
from real_worker import RealWorker, of
from streams import Commits, Stream

from streamgen.kafka.broker import EmbeddedBroker

TOPIC, KEYS, RECORDS = "outage", 20, 2_000


@dataclass(frozen=True, slots=True)
class Outage:
    """What was seen."""

    away_s: float
    cpu_s: float  # of the worker while the broker was away
    lines: int  # of its log meanwhile
    back_s: float  # from the broker's first answer to the first new result
    results: list[int]  # their offsets, in the order of their topic


def outage(seconds: float) -> Outage:
    """Half of the records wait while the broker is away: they were written, and not read yet."""
    with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
        stream = Stream(broker.bootstrap_servers, TOPIC, KEYS)
        config: dict[str, Any] = {
            "application_id": "outage",
            "kafka": {"bootstrap_servers": broker.bootstrap_servers},
            "inputs": [{"topic": TOPIC}],
            "state": {},
        }
        stream.fill(RECORDS // 2)
        with RealWorker(Path(folder), config) as worker:
            published = of("results_published_total", TOPIC)
            worker.wait(lambda metrics: metrics.get(published, 0) >= RECORDS // 2)
            stream.fill(RECORDS // 4)
            broker.kill()
            killed, seen, lines = time.monotonic(), worker.see(), len(worker.log())
            time.sleep(seconds)
            away, later, logged = time.monotonic() - killed, worker.see(), len(worker.log())
            broker.start()
            back = time.monotonic()
            commits = Commits(broker.bootstrap_servers, [f"{TOPIC}.scores"])
            commits.start()
            stream.fill(RECORDS - stream.sent)
            worker.wait(lambda metrics: metrics.get(published, 0) >= RECORDS)
            commits.end()
            worker.stop()
        stream.close()
        first = commits.first(f"{TOPIC}.scores", back) or float("nan")
        results = _offsets(broker.bootstrap_servers)
    return Outage(away, later.cpu_s - seen.cpu_s, logged - lines, first - back, results)


def _offsets(bootstrap: str) -> list[int]:
    reader = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False
    )
    partition = ClientPartition(f"{TOPIC}.scores", 0)
    reader.assign([partition])
    reader.seek_to_beginning()
    end, found = reader.end_offsets([partition])[partition], list[int]()
    while reader.position(partition) < end:
        for records in reader.poll(timeout_ms=100).values():
            found += [json.loads(record.value)["source"]["offset"] for record in records]
    reader.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    before = load()
    found = outage(60 * given.minutes)
    whole = found.results == list(range(RECORDS))
    rows = {
        "the broker was away, s": f"{found.away_s:.0f}",
        "CPU of the worker meanwhile, share of a core": f"{100 * found.cpu_s / found.away_s:.1f} %",
        "lines in its log meanwhile, a minute": f"{60 * found.lines / found.away_s:.1f}",
        "from the broker's first answer to the first new result, s": f"{found.back_s:.1f}",
        f"records with exactly one result, of {RECORDS:,}": f"{RECORDS:,}" if whole else "NOT ALL",
    }
    lines = ["# A broker that is away", ""]
    lines += [f"Made by `python benchmarks/outage.py --minutes {given.minutes:g}`. {told(before)}", ""]
    lines += ["| | |", "|---|---:|", *(f"| {label} | {value} |" for label, value in rows.items())]
    text = "\n".join(lines) + "\n"
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "outage.md").write_text(text)
    print(text)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
