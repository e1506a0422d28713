"""From `streamgen run` to the first committed score, and the memory of a worker with one key.

    python benchmarks/startup.py [--rounds 5] [--results benchmarks/results]

The broker runs already and the topic holds 500 records of one key. The time ends when a read_committed reader
has the first score; the memory is the worker's resident set once all records are scored. `import torch` alone
is measured beside it, in the same run: it is the floor of both.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from throughput import PARTITIONS, fill

from streamgen.kafka.broker import EmbeddedBroker

RECORDS = 500


def resident_mib(pid: int | str) -> float:
    """Resident set of a process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def one_start(bootstrap: str, topic: str) -> tuple[float, float]:
    """Seconds to the first committed score, and MiB once all are scored."""
    fill(bootstrap, topic, RECORDS, 1)
    reader = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", group_id=None)
    with tempfile.TemporaryDirectory() as state:
        line = [sys.executable, "-m", "streamgen", "run", "--input", topic, "--bootstrap", bootstrap]
        line += ["--application-id", topic, "--metrics-port", "0"]
        began = time.perf_counter()
        environment = os.environ | {"STREAMGEN_STATE__DIRECTORY": state}
        worker = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not reader.partitions_for_topic(f"{topic}.scores"):
            time.sleep(0.02)
        reader.assign([TopicPartition(f"{topic}.scores", n) for n in range(PARTITIONS)])
        reader.seek_to_beginning()
        first_s, seen = 0.0, 0
        while seen < RECORDS:
            seen += sum(map(len, reader.poll(timeout_ms=20).values()))
            if seen and not first_s:
                first_s = time.perf_counter() - began
        memory = resident_mib(worker.pid)
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    reader.close()
    return first_s, memory


def torch_alone() -> tuple[float, float]:
    """Seconds and MiB of a process that imports PyTorch and nothing else."""
    began = time.perf_counter()
    code = "import torch; print(open('/proc/self/statm').read().split()[1])"
    pages = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - began, int(pages) * os.sysconf("SC_PAGESIZE") / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    with EmbeddedBroker() as broker:
        runs = [
            (*one_start(broker.bootstrap_servers, f"start-{n}"), *torch_alone()) for n in range(given.rounds)
        ]
    first, memory, torch_s, torch_mib = (statistics.median(column) for column in zip(*runs, strict=True))
    text = (
        f"# Start and memory of a worker\n\nMedians of {given.rounds} starts, one key, one feature set of 4. "
        "Made by `python benchmarks/startup.py`.\n\n"
        "| | `streamgen run` | `import torch` alone |\n|---|---:|---:|\n"
        f"| to the first committed score (to the end of the import), s | {first:.1f} | {torch_s:.1f} |\n"
        f"| resident memory, MiB | {memory:.0f} | {torch_mib:.0f} |\n"
    )
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "startup.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
