"""What `learn_anomalies` does to an incident, and to a new regime, in real series.

    python benchmarks/incidents.py NAB [--seeds 0 1 2] [--series 12] [--results DIR]

NAB is the folder of the Numenta Anomaly Benchmark. From each of so many of its series, spread evenly over the
alphabet, the first `BEFORE` records and those after them are taken, and moved up from there by `FAR` times
the usual distance of a value from its mean: for `LONG` records (an incident), or for good (a new regime). The
series have anomalies of their own; they are in all three columns alike.

- *Incident, last third*: how many of its last `LONG` / 3 records have p ≤ 0.001, of the series in which its
  first record has. It should be all of them.
- *After the incident*: the median p of the `LONG` records after it. 0.5 is well again.
- *New regime*: after how many records the median p of the last 50 is above 0.02; the median over series.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from machine import load, under

from streamgen.config import InputConfig
from streamgen.learners.task import Task
from streamgen.records import Columns, Floats, TopicPartition

MODES = ("yes", "clip", "skip")
BEFORE, LONG, AFTER = 1500, 60, 900
FAR = 30.0
STRANGE, NORMAL = 1e-3, 0.02


def read(folder: Path, count: int) -> dict[str, Floats]:
    """The beginnings of series that are long enough and move."""
    found = {}
    for path in sorted(folder.glob("data/*/*.csv")):
        with path.open() as file:
            value_N = np.array([float(row["value"]) for row in csv.DictReader(file)])
        value_N = value_N[: BEFORE + AFTER]
        if len(value_N) == BEFORE + AFTER and np.ptp(value_N[:BEFORE]) > 0:
            found[path.stem] = value_N
    names = list(found)
    return {names[n]: found[names[n]] for n in np.linspace(0, len(names) - 1, count).astype(int)}


def ranked(value_N: Floats, mode: str, seed: int) -> Floats:
    """p-values, by the default model."""
    config = InputConfig(topic="t", model={"name": "stream_ae", "learn_anomalies": mode})
    task, count = Task(TopicPartition("t", 0), config, ("value",), seed, "cpu"), np.arange(len(value_N))
    return task.process(Columns(count, count * 300_000, ["k"] * len(count), value_N[:, None], count)).p_N


def figures(value_N: Floats, mode: str, seed: int) -> tuple[float, float, float]:
    """Share of the incident's last third, NaN when its first record is not strange; median after it; and
    records until a new regime is normal, infinite when there are not enough."""
    far = FAR * np.abs(value_N[:BEFORE] - value_N[:BEFORE].mean()).mean()
    end = BEFORE + LONG
    incident_N, regime_N = value_N.copy(), value_N.copy()
    incident_N[BEFORE:end] += far
    regime_N[BEFORE:] += far
    p_N = ranked(incident_N, mode, seed)
    share = (p_N[end - LONG // 3 : end] <= STRANGE).mean() if p_N[BEFORE] <= STRANGE else np.nan
    after = float(np.median(p_N[end : end + LONG]))
    p_N = ranked(regime_N, mode, seed)[BEFORE:]
    until = (n for n in range(50, len(p_N)) if np.median(p_N[n - 50 : n]) > NORMAL)
    return float(share), after, float(next(until, np.inf))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("nab", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    before, series = load(), read(given.nab, given.series)
    lines = [
        "| `learn_anomalies` | incident seen | last third strange | p after it | new regime normal after |",
        "|---|---:|---:|---:|---:|",
    ]
    for mode in MODES:
        by_seed = [[figures(value_N, mode, seed) for value_N in series.values()] for seed in given.seeds]
        found_SNF = np.array(by_seed)
        print(mode, found_SNF.round(3).tolist(), file=sys.stderr, flush=True)
        seen_SN = ~np.isnan(found_SNF[:, :, 0])
        share_S = np.nanmean(found_SNF[:, :, 0], axis=1)
        spread = share_S.std(ddof=1) if len(given.seeds) > 1 else np.nan
        lines.append(
            f"| {mode} | {seen_SN.mean():.0%} | {share_S.mean():.1%} ± {spread:.1%} | "
            f"{np.median(found_SNF[:, :, 1]):.2f} | {np.median(found_SNF[:, :, 2]):.0f} records |"
        )
    text = (
        "# Incidents and new regimes\n\n"
        "Made by `python benchmarks/incidents.py NAB`; its docstring says what is measured. "
        f"{len(series)} series ({', '.join(series)}), seeds {', '.join(map(str, given.seeds))}; the spread "
        f"is that of the seeds. {under(before)}\n\n" + "\n".join(lines) + "\n"
    )
    (given.results / "incidents.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
