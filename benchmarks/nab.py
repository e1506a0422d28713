"""Run `streamgen detect` over the Numenta Anomaly Benchmark and score it beside published detectors.

    git clone --depth 1 https://github.com/numenta/NAB
    python benchmarks/nab.py NAB                     # default configuration, seed 0
    python benchmarks/nab.py NAB --seeds 0,1,2       # mean and spread

Writes `nab.json` and `nab.md` under `benchmarks/results`. The peers are re-scored in the same run from
the scores that NAB publishes (`nab_published.py` says how well that reproduces their figures); they
were not run again, so wall and CPU time are streamgen's alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.nab_published import PUBLISHED, load_published
from benchmarks.nab_report import Judged, Report, Run, markdown
from benchmarks.nab_score import (
    Bools,
    Corpus,
    Floats,
    load_corpus,
    normalised,
    score_all,
    tally_all,
)

RESULTS = Path(__file__).parent / "results"
FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Detected(NamedTuple):
    timestamps: list[str]
    scores: Floats
    is_anomaly: Bools


@dataclass(frozen=True)
class Tool:
    """How one file is detected: `COMMAND detect FILE --out OUT --seed N OPTIONS`, some at a time."""

    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    processes: int = 2

    def detect(self, file: Path, out: Path, seed: int) -> Detected:
        line = [*self.command, "detect", str(file), "--out", str(out), "--seed", str(seed), *self.options]
        ended = subprocess.run(line, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"{file.name}: exit code {ended.returncode}: {ended.stderr.strip()[-500:]}")
        return read_detected(out)


def read_detected(path: Path) -> Detected:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Detected(
        [row["timestamp"] for row in rows],
        np.array([float(row["score"]) for row in rows]),
        np.array([FLAGS[row["is_anomaly"].lower()] for row in rows], bool),
    )


def detect_all(data_dir: Path, seed: int, tool: Tool, keep: Path | None = None) -> dict[str, Detected]:
    """Every file of the corpus by its name, one pass each; `keep` is a folder for what `detect` wrote."""
    files = sorted((data_dir / "data").glob("*/*.csv"), key=lambda file: -file.stat().st_size)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(tool.processes) as pool:
        pending = {}
        for file in files:
            name = f"{file.parent.name}/{file.name}"
            out = (keep or Path(folder)) / f"seed-{seed}" / name
            out.parent.mkdir(parents=True, exist_ok=True)
            pending[name] = pool.submit(tool.detect, file, out, seed)
        detected = {}
        try:
            for number, name in enumerate(pending, 1):
                detected[name] = pending[name].result()
                if sys.stderr.isatty():
                    print(f"\rseed {seed}: {number} of {len(pending)} files", end="", file=sys.stderr)
        finally:
            pool.shutdown(cancel_futures=True)  # one failed file ends the run, not after all the others
    return detected


def judge(corpus: Corpus, scores: dict[str, Floats]) -> Judged:
    """A detector at its best thresholds; windows and alarms are those at the standard profile's."""
    outcomes = score_all(corpus, scores)
    flags = {name: score_S >= outcomes["standard"].threshold for name, score_S in scores.items()}
    tallies = tally_all(corpus, flags, corpus.profiles["standard"])
    return Judged(
        {name: outcome.score for name, outcome in outcomes.items()},
        {name: outcome.threshold for name, outcome in outcomes.items()},
        tallies,
    )


def judge_flags(corpus: Corpus, flags: dict[str, Bools]) -> Judged:
    """A detector at the flags it raised itself, with no threshold chosen by the labels."""
    scores = {}
    for name, profile in corpus.profiles.items():
        scores[name] = normalised(corpus, profile, tally_all(corpus, flags, profile)["all"].total)
    return Judged(scores, {}, tally_all(corpus, flags, corpus.profiles["standard"]))


def run_seed(corpus: Corpus, data_dir: Path, seed: int, tool: Tool, keep: Path | None) -> Run:
    wall, cpu = time.perf_counter(), children_cpu_s()
    detected = detect_all(data_dir, seed, tool, keep)
    wall, cpu = time.perf_counter() - wall, children_cpu_s() - cpu
    for series in corpus.series:
        if detected[series.name].timestamps != series.timestamps:
            raise ValueError(f"{series.name}: the rows that came out are not the rows that went in")
    return Run(
        seed,
        wall,
        cpu,
        sum(len(one.timestamps) for one in detected.values()),
        judge(corpus, {name: one.scores for name, one in detected.items()}),
        judge_flags(corpus, {name: one.is_anomaly for name, one in detected.items()}),
    )


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_name() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="streamgen on the Numenta Anomaly Benchmark.")
    parser.add_argument(
        "data_dir", type=Path, metavar="DATA_DIR", help="a checkout of github.com/numenta/NAB"
    )
    parser.add_argument("--seeds", default="0", help="comma-separated; more than one gives mean and spread")
    parser.add_argument("--command", default="", help="what to run in place of this environment's streamgen")
    parser.add_argument("--options", default="", help='more options for detect, as in "--model rvae"')
    parser.add_argument("--processes", type=int, default=2, help="files at a time")
    parser.add_argument("--keep", type=Path, help="folder to keep what detect wrote")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for nab.json and nab.md")
    options = parser.parse_args(arguments)
    own = str(Path(sys.executable).with_name("streamgen"))
    command = tuple(shlex.split(options.command)) or (own,)
    tool = Tool(command, tuple(shlex.split(options.options)), options.processes)

    corpus = load_corpus(options.data_dir)
    peers = {}
    for detector in PUBLISHED:
        peers[detector] = judge(corpus, load_published(options.data_dir, corpus, detector))
    seeds = [int(seed) for seed in options.seeds.split(",")]
    runs = [run_seed(corpus, options.data_dir, seed, tool, options.keep) for seed in seeds]

    line = f"python benchmarks/nab.py DATA_DIR --seeds {options.seeds} --processes {options.processes}"
    if options.command:
        line += f" --command {shlex.quote(options.command)}"
    if options.options:
        line += f" --options {shlex.quote(options.options)}"
    packages = ("streamgen-kafka", "torch", "numpy", "river")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    report = Report(line, versions, f"{cpu_name()}, {os.cpu_count()} processors", peers, runs)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "nab.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
    text = markdown(report)
    (options.results / "nab.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
