"""What a NAB run found, as data and as tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.nab_score import PROFILES, Tally


@dataclass(frozen=True)
class Judged:
    """One detector: NAB score and threshold by profile, and what its flags came to by category."""

    score: dict[str, float]
    threshold: dict[str, float]
    tally: dict[str, Tally]


@dataclass(frozen=True)
class Run:
    """One pass of streamgen over the corpus."""

    seed: int
    wall_s: float
    cpu_s: float
    records: int
    at_best: Judged
    own_flags: Judged


@dataclass(frozen=True)
class Report:
    command: str
    versions: dict[str, str]
    cpu: str
    peers: dict[str, Judged]
    runs: list[Run]


TEMPLATE = """\
# Numenta Anomaly Benchmark v1.1

`{command}`\\
{versions}; {cpu}

streamgen, seed {seeds}: {records:,} records a run, in {wall_s:.0f} s and with {cpu_s:.0f} s of CPU time
({cpu_us:.0f} µs a record, starting a process for each file included).{spread}

## Scores

0 is a constant detector, 100 perfect. Each threshold is the detector's best for the profile, chosen with
the labels, as the benchmark does; windows and false alarms are those at the standard profile's.
`is_anomaly` is the flag that streamgen raised by itself, before any label. False records in a row are one
alarm; the days are event time. The peers' scores are the ones that NAB publishes.

{scores}

## Standard score by category

At the threshold of the whole corpus. Without windows there is no scale: the false alarms' cost is given.

{categories}

## By category at `is_anomaly`

{own_flags}
"""
SPREAD = "\nFigures are mean ± standard deviation (smallest to largest) over the seeds."


def markdown(report: Report) -> str:
    runs = report.runs
    cpu_s = statistics.fmean(run.cpu_s for run in runs)
    return TEMPLATE.format(
        command=report.command,
        versions=", ".join(f"{name} {number}" for name, number in report.versions.items()),
        cpu=report.cpu,
        seeds=", ".join(str(run.seed) for run in runs),
        records=runs[0].records,
        wall_s=statistics.fmean(run.wall_s for run in runs),
        cpu_s=cpu_s,
        cpu_us=1e6 * cpu_s / runs[0].records,
        spread=SPREAD if len(runs) > 1 else "",
        scores="\n".join(_scores(report)),
        categories="\n".join(_categories(report)),
        own_flags="\n".join(_own_flags(runs)),
    )


def _scores(report: Report) -> list[str]:
    rows = []
    for name, judgements in _streamgen(report.runs).items():
        rows.append([name, *(_spread([one.score[profile] for one in judgements]) for profile in PROFILES)])
        rows[-1] += _found([one.tally["all"] for one in judgements])
    for name, peer in report.peers.items():
        rows.append(
            [name, *(f"{peer.score[profile]:.2f}" for profile in PROFILES), *_found([peer.tally["all"]])]
        )
    return _table(["detector", *PROFILES.values(), "windows caught", "false alarms a day"], rows)


def _streamgen(runs: Sequence[Run]) -> dict[str, list[Judged]]:
    return {
        "**streamgen**": [run.at_best for run in runs],
        "**streamgen**, `is_anomaly`": [run.own_flags for run in runs],
    }


def _categories(report: Report) -> list[str]:
    detectors = {**_streamgen(report.runs), **{name: [peer] for name, peer in report.peers.items()}}
    rows = []
    for category in report.runs[0].own_flags.tally:
        tallies = {name: [one.tally[category] for one in judged] for name, judged in detectors.items()}
        rows.append(
            [category, *(f"{statistics.fmean(map(_category_score, some)):.1f}" for some in tallies.values())]
        )
    return _table(["category", *detectors], rows)


def _category_score(tally: Tally) -> float:
    """In the standard profile a window is worth 1 and its loss costs 1."""
    return 100 * (tally.total + tally.windows) / (2 * tally.windows) if tally.windows else tally.total


def _own_flags(runs: Sequence[Run]) -> list[str]:
    rows = []
    for category in runs[0].own_flags.tally:
        tallies = [run.own_flags.tally[category] for run in runs]
        records = statistics.fmean(tally.false_records / tally.days for tally in tallies)
        rows.append([category, *_found(tallies), f"{records:.2f}", f"{tallies[0].days:.0f}"])
    return _table(["category", "windows caught", "false alarms a day", "false records a day", "days"], rows)


def _found(tallies: Sequence[Tally]) -> list[str]:
    caught = statistics.fmean(tally.caught for tally in tallies)
    alarms = statistics.fmean(tally.false_alarms / tally.days for tally in tallies)
    return [f"{caught:.4g} of {tallies[0].windows}", f"{alarms:.3f}"]


def _spread(figures: Sequence[float]) -> str:
    mean = f"{statistics.fmean(figures):.2f}"
    if len(figures) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
