"""What a new key gains from what the other keys have learned: its first 200 records.

    python benchmarks/shared_start.py NAB [--seeds 0 1 2] [--results DIR]

NAB is the folder of the Numenta Anomaly Benchmark. Every other one of its series, in the order of the
alphabet, is a key that is there from the beginning and has sent `BEFORE` records; then the rest come as new
keys. One record a minute of each, in turns, all in one partition, by the default model. A figure is in nats
per value, more is better, less that of the same records when every key starts from noise: the mean over the
new keys, and over the seeds with their deviation.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import load, under

from streamgen.config import InputConfig
from streamgen.learners.task import Task
from streamgen.records import Columns, Floats, TopicPartition

WAYS: dict[str, dict[str, Any]] = {
    "noise": {},
    "start_from: shared": {"start_from": "shared"},
    "scope: task": {"scope": "task"},
}
BEFORE, NEW = 1500, 200
PARTS = {"records 5 to 50": slice(4, 50), "51 to 100": slice(50, 100), "101 to 200": slice(100, 200)}


def read(folder: Path) -> list[Floats]:
    """The beginnings of all series that move."""
    found = []
    for path in sorted(folder.glob("data/*/*.csv")):
        with path.open() as file:
            value_N = np.array([float(row["value"]) for row in csv.DictReader(file)])[:BEFORE]
        if len(value_N) == BEFORE and np.ptp(value_N[:NEW]) > 0:
            found.append(value_N)
    return found


def in_turns(series: list[Floats], first_key: int, first_minute: int, offset: int) -> Columns:
    """The records of as many keys, minute by minute."""
    N, K = len(series[0]), len(series)
    count = np.arange(N * K)
    keys: list[str | None] = [f"series-{first_key + k}" for k in range(K)]
    value_ND = np.stack(series, 1).reshape(-1, 1)
    return Columns(offset + count, (first_minute + count // K) * 60_000, keys * N, value_ND, count)


def likelihoods(series: list[Floats], way: dict[str, Any], seed: int) -> Floats:
    """[K, NEW] log-likelihoods of the new keys' records, nats."""
    config = InputConfig(topic="t", model={"name": "stream_ae", **way}, min_records=1)
    task = Task(TopicPartition("t", 0), config, ("value",), seed, "cpu")
    old, new = series[::2], [value_N[:NEW] for value_N in series[1::2]]
    task.process(in_turns(old, 0, 0, 0))
    scores = task.process(in_turns(new, len(old), BEFORE, len(old) * BEFORE)).scores
    return -(scores.nll_N + scores.log_step_N).reshape(NEW, len(new)).T


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("nab", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    before, series = load(), read(given.nab)
    found = {
        name: np.stack([likelihoods(series, way, seed) for seed in given.seeds]) for name, way in WAYS.items()
    }
    lines = [f"| new keys | {' | '.join(PARTS)} | keys that gain |", "|---|" + "---:|" * (len(PARTS) + 1)]
    for name, log_p_SKN in found.items():
        gain_SKN = log_p_SKN - found["noise"]
        cells = []
        for part in PARTS.values():
            gain_S = np.nanmean(gain_SKN[:, :, part], axis=(1, 2))
            spread = gain_S.std(ddof=1) if len(given.seeds) > 1 else np.nan
            cells.append(f"{gain_S.mean():+.3f} ± {spread:.3f}")
        gains = (np.nanmean(gain_SKN[:, :, 4:], axis=2) > 0).mean()
        lines.append(f"| {name} | {' | '.join(cells)} | {gains:.0%} |")
    text = (
        "# New keys\n\n"
        "Made by `python benchmarks/shared_start.py NAB`; its docstring says what is measured. "
        f"{len(series) - len(series[1::2])} old keys, {len(series[1::2])} new ones; seeds "
        f"{', '.join(map(str, given.seeds))}. {under(before)}\n\n" + "\n".join(lines) + "\n"
    )
    (given.results / "shared_start.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
