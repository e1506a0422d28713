"""Score detectors by the protocol of the Numenta Anomaly Benchmark (NAB) v1.1.

The data: `git clone --depth 1 https://github.com/numenta/NAB`. Every `data_dir` here is that checkout, or
a folder with `data/`, `combined_windows.json`, `profiles.json` and, for `nab_published`,
`published/DETECTOR.csv.gz` with the columns file,timestamp,score.

The protocol. The first 15 % of a file (at most 750 rows) is not scored. A row is detected when its
score is at or above one threshold for the whole corpus. A window is worth its best detected row, from
almost 1 at its left end down a sigmoid towards 0 past its right end, or `-fn` when none of its rows is
detected. A row detected outside of windows costs up to `fp`: little just behind a window, all of it far
behind one or before the first. The threshold is the one that gives the detector's best total, so it is
chosen with the labels; 0 is what a constant detector gets, 100 is every window detected at once and
nothing else.

Letters: S rows of a series, R scored rows of the whole corpus, K candidate thresholds.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PROFILES = {"standard": "standard", "reward_low_FP_rate": "low FP", "reward_low_FN_rate": "low FN"}

OUTSIDE = -1  # the window of a row that lies in none
NOTHING = 1.1  # a threshold above every score: detects nothing


class Profile(NamedTuple):
    """What a detected window is worth, a false alarm and a missed window cost."""

    tp: float
    fp: float
    fn: float


def position_value(position: Floats) -> Floats:
    """The sigmoid of the protocol: +0.987 at -1 (left end of a window), 0 at 0 and -1 beyond 3."""
    value: Floats = 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, 3.0))) - 1.0
    return np.where(position > 3.0, -1.0, value)


FULL = float(position_value(np.array([-1.0]))[0])


@dataclass(frozen=True, slots=True)
class Series:
    """One file. `unit_S` is what detecting a row is worth before weights: (0, 1] in a window, [-1, 0) out."""

    name: str
    timestamps: list[str]
    windows: int
    probation: int
    days: float  # event time from the first scored row to the last
    window_S: Ints
    unit_S: Floats


def series_of(name: str, timestamps: list[str], windows: Sequence[tuple[str, str]]) -> Series:
    """Place the windows (first and last timestamp, both inside, in order) on the rows."""
    time_S = np.array(timestamps, dtype="datetime64[us]")
    rows = len(time_S)
    window_S = np.full(rows, OUTSIDE, np.int64)
    behind_S = np.full(rows, np.inf)  # before the first window a false alarm costs everything
    inside_S = np.zeros(rows)
    for number, (left, right) in enumerate(windows):
        first, last = (_row_at(name, time_S, edge) for edge in (left, right))
        width = last - first + 1
        if width < 2 or (window_S[first : last + 1] != OUTSIDE).any():
            raise ValueError(
                f"{name}: window {left} to {right} is narrower than two rows or overlaps another"
            )
        window_S[first : last + 1] = number
        inside_S[first : last + 1] = np.arange(-width, 0) / width
        behind_S[last + 1 :] = np.arange(1, rows - last) / (width - 1)
    unit_S = np.where(window_S == OUTSIDE, position_value(behind_S), position_value(inside_S) / FULL)
    probation = min(math.floor(0.15 * rows), 750)
    days = float((time_S[-1] - time_S[probation]) / np.timedelta64(1, "D"))
    return Series(name, timestamps, len(windows), probation, days, window_S, unit_S)


def _row_at(name: str, time_S: NDArray[np.datetime64], timestamp: str) -> int:
    rows = np.flatnonzero(time_S == np.datetime64(timestamp))
    if not len(rows):
        raise ValueError(f"{name}: no row at {timestamp}, where a window begins or ends")
    return int(rows[0])


@dataclass(frozen=True, slots=True)
class Corpus:
    series: tuple[Series, ...]
    profiles: dict[str, Profile]
    window_R: Ints  # numbered over the whole corpus
    unit_R: Floats

    def scored_rows(self, scores: Mapping[str, Floats]) -> Floats:
        """One detector's scores of the rows that count. Every series must be there, row for row."""
        parts = []
        for series in self.series:
            score_S = scores[series.name]
            if score_S.shape != series.unit_S.shape:
                raise ValueError(f"{series.name}: {len(score_S)} scores for {len(series.unit_S)} rows")
            if not ((score_S >= 0) & (score_S <= 1)).all():  # catches NaN too
                raise ValueError(f"{series.name}: a score is not between 0 and 1")
            parts.append(score_S[series.probation :])
        return np.concatenate(parts)


def corpus_of(series: Sequence[Series], profiles: Mapping[str, Profile]) -> Corpus:
    windows, units, before = [], [], 0
    for one in series:
        window_S = one.window_S[one.probation :]
        windows.append(np.where(window_S == OUTSIDE, OUTSIDE, window_S + before))
        units.append(one.unit_S[one.probation :])
        before += one.windows
    return Corpus(tuple(series), dict(profiles), np.concatenate(windows), np.concatenate(units))


def sweep(score_R: Floats, window_R: Ints, unit_R: Floats, profile: Profile) -> tuple[Floats, Floats]:
    """The total at every threshold that makes a difference, highest first: `(threshold_K, total_K)`."""
    order = np.argsort(-score_R, kind="stable")
    score_R, window_R, unit_R = score_R[order], window_R[order], unit_R[order]
    gain_R = np.where(window_R == OUTSIDE, profile.fp * unit_R, 0.0)
    # As the threshold falls, a window's worth only grows: each row adds what it has above the best so far.
    inside = np.flatnonzero(window_R != OUTSIDE)
    inside = inside[np.argsort(window_R[inside], kind="stable")]
    windows = np.split(inside, np.flatnonzero(np.diff(window_R[inside])) + 1) if len(inside) else []
    for rows in windows:
        worth = np.concatenate(([-profile.fn], profile.tp * unit_R[rows]))
        gain_R[rows] = np.diff(np.maximum.accumulate(worth))
    last_K = np.flatnonzero(np.append(np.diff(score_R) != 0, True))
    missed = -profile.fn * len(windows)
    return np.append(NOTHING, score_R[last_K]), np.append(missed, missed + np.cumsum(gain_R)[last_K])


class Outcome(NamedTuple):
    score: float  # normalised: 0 a constant detector, 100 perfect
    threshold: float
    total: float


def score_all(corpus: Corpus, scores: Mapping[str, Floats]) -> dict[str, Outcome]:
    """A detector's NAB score in each profile, at the threshold that is best for it over the corpus."""
    score_R = corpus.scored_rows(scores)
    outcomes = {}
    for name, profile in corpus.profiles.items():
        threshold_K, total_K = sweep(score_R, corpus.window_R, corpus.unit_R, profile)
        best = int(np.argmax(total_K))  # the highest threshold among equals
        total = float(total_K[best])
        outcomes[name] = Outcome(normalised(corpus, profile, total), float(threshold_K[best]), total)
    return outcomes


def normalised(corpus: Corpus, profile: Profile, total: float) -> float:
    constant_R = np.zeros(len(corpus.unit_R))
    null = float(sweep(constant_R, corpus.window_R, corpus.unit_R, profile)[1].max())
    perfect = profile.tp * sum(series.windows for series in corpus.series)
    return 100.0 * (total - null) / (perfect - null)


@dataclass(frozen=True, slots=True)
class Tally:
    """What a set of flags amounts to over some series, their probation left out."""

    windows: int = 0
    caught: int = 0
    false_records: int = 0
    false_alarms: int = 0  # false records in a row are one alarm
    days: float = 0.0
    total: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.windows + other.windows,
            self.caught + other.caught,
            self.false_records + other.false_records,
            self.false_alarms + other.false_alarms,
            self.days + other.days,
            self.total + other.total,
        )


def tally(series: Series, flag_S: Bools, profile: Profile) -> Tally:
    window_S, unit_S = series.window_S[series.probation :], series.unit_S[series.probation :]
    flag_S = flag_S[series.probation :]
    present = np.unique(window_S[window_S != OUTSIDE])
    found = [unit_S[flag_S & (window_S == number)] for number in present]
    caught = [profile.tp * float(units.max()) for units in found if len(units)]
    false_S = flag_S & (window_S == OUTSIDE)
    alarms = int(np.count_nonzero(false_S & ~np.append(False, false_S[:-1])))
    total = (
        sum(caught) - profile.fn * (len(present) - len(caught)) + profile.fp * float(unit_S[false_S].sum())
    )
    return Tally(len(present), len(caught), int(false_S.sum()), alarms, series.days, total)


def tally_all(corpus: Corpus, flags: Mapping[str, Bools], profile: Profile) -> dict[str, Tally]:
    """By category (the folder that a file lies in), and the sum as `all`."""
    tallies: dict[str, Tally] = {}
    for series in corpus.series:
        one = tally(series, flags[series.name], profile)
        for name in (series.name.split("/")[0], "all"):
            tallies[name] = tallies.get(name, Tally()) + one
    return {name: tallies[name] for name in sorted(tallies, key=lambda name: (name == "all", name))}


def load_corpus(data_dir: Path) -> Corpus:
    windows = json.loads(
        _first_of(data_dir, "combined_windows.json", "labels/combined_windows.json").read_text()
    )
    costs = json.loads(_first_of(data_dir, "profiles.json", "config/profiles.json").read_text())
    profiles = {}
    for name in PROFILES:
        cost = costs[name]["CostMatrix"]
        profiles[name] = Profile(cost["tpWeight"], cost["fpWeight"], cost["fnWeight"])
    series = []
    for name in sorted(windows):
        with (data_dir / "data" / name).open(newline="") as file:
            timestamps = [row["timestamp"] for row in csv.DictReader(file)]
        series.append(series_of(name, timestamps, windows[name]))
    return corpus_of(series, profiles)


def _first_of(data_dir: Path, *names: str) -> Path:
    for name in names:
        if (data_dir / name).is_file():
            return data_dir / name
    raise FileNotFoundError(f"{data_dir} has neither {' nor '.join(names)}: is it a checkout of numenta/NAB?")


def load_scores(path: Path) -> dict[str, Floats]:
    """Columns file,timestamp,score in one CSV, gzipped or not; a file's rows in its own order."""
    scores: dict[str, list[float]] = {}
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        for row in csv.DictReader(file):
            scores.setdefault(row["file"], []).append(float(row["score"]))
    return {name: np.array(values) for name, values in scores.items()}
