"""The NAB run on a corpus of two small files, with a stand-in for the `streamgen` command."""

from __future__ import annotations

import csv
import gzip
import json
import shlex
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import nab, nab_published
from benchmarks.nab_score import load_corpus

ROWS = 100
WINDOWS = {"a/first.csv": (40, 49), "b/second.csv": (60, 79)}
TIMES = [str(datetime(2024, 1, 1) + timedelta(hours=row)) for row in range(ROWS)]

# Scores the value itself; with seed 1 it misses `second.csv`, and flags what is above 0.5 anyway.
STAND_IN = """
import csv, sys
command, file, _, out, _, seed, *rest = sys.argv[1:]
assert command == "detect", sys.argv
if rest == ["--fail"]:
    sys.exit("no such thing as a stream in " + file)
with open(file) as source, open(out, "w") as target:
    print("timestamp,score,p_value,is_anomaly", file=target)
    for row in csv.DictReader(source):
        value = 0.0 if seed == "1" and "second" in file else float(row["value"])
        print(row["timestamp"], value, 1 - value, "true" if value > 0.5 else "false", sep=",", file=target)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The value is 1 at the left end of each window, 0.9 in one row before the first, and 0 elsewhere."""
    for name, (first, _) in WINDOWS.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        values = {first: 1.0, 30: 0.9 if name == "a/first.csv" else 0.0}
        rows = [f"{time},{values.get(row, 0.0)}" for row, time in enumerate(TIMES)]
        path.write_text("\n".join(["timestamp,value", *rows]) + "\n")
    windows = {name: [[f"{TIMES[edge]}.000000" for edge in edges]] for name, edges in WINDOWS.items()}
    (tmp_path / "combined_windows.json").write_text(json.dumps(windows))
    costs = (("standard", 0.11, 1.0), ("reward_low_FP_rate", 0.22, 1.0), ("reward_low_FN_rate", 0.11, 2.0))
    matrices = {
        name: {"CostMatrix": {"tpWeight": 1.0, "fpWeight": fp, "fnWeight": fn}} for name, fp, fn in costs
    }
    (tmp_path / "profiles.json").write_text(json.dumps(matrices))
    (tmp_path / "published").mkdir()
    for detector in nab_published.PUBLISHED:
        with gzip.open(tmp_path / "published" / f"{detector}.csv.gz", "wt") as file:
            file.write("file,timestamp,score\n")
            file.writelines(f"{name},{time},0.5\n" for name in WINDOWS for time in TIMES)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return tmp_path


def run(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = shlex.join([sys.executable, str(folder / "stand_in.py")])
    assert nab.main([str(folder), "--command", command, "--results", str(folder / "results"), *options]) == 0
    text = (folder / "results" / "nab.md").read_text()
    return json.loads((folder / "results" / "nab.json").read_text()), text


def test_a_perfect_detector_gets_100_and_its_own_flags_pay_for_their_false_alarm(folder: Path) -> None:
    report, text = run(folder)
    (one,) = report["runs"]
    assert one["records"] == 2 * ROWS
    assert one["cpu_s"] > 0
    assert one["at_best"]["score"] == pytest.approx(dict.fromkeys(one["at_best"]["score"], 100.0))
    assert one["at_best"]["tally"]["all"]["false_records"] == 0
    assert one["own_flags"]["score"]["standard"] == pytest.approx(100 * (2 - 0.11 + 2) / 4)
    assert one["own_flags"]["tally"]["a"]["false_alarms"] == 1
    assert one["own_flags"]["tally"]["all"]["caught"] == 2
    assert "| **streamgen** | 100.00 | 100.00 | 100.00 | 2 of 2 | 0.000 |" in text
    assert "| **streamgen**, `is_anomaly` | 97.25 | 94.50 | 98.17 | 2 of 2 | 0.143 |" in text  # 7 days
    assert "| a | 1 of 1 | 0.286 | 0.29 | 4 |" in text
    assert "| a | 100.0 | 94.5 | 0.0 |" in text
    assert "| null | 0.00 | 0.00 | 0.00 | 0 of 2 | 0.000 |" in text
    assert str(Path(__file__).parents[2]) not in text.replace(sys.executable, "")


def test_seeds_give_mean_and_spread(folder: Path) -> None:
    report, text = run(folder, "--seeds", "0,1", "--keep", str(folder / "kept"))
    standard = [one["at_best"]["score"]["standard"] for one in report["runs"]]
    assert standard == pytest.approx([100.0, 50.0])
    assert "| **streamgen** | 75.00 ± 35.36 (50.00 to 100.00)" in text
    assert "1.5 of 2" in text
    with (folder / "kept" / "seed-1" / "b" / "second.csv").open() as file:
        assert len(list(csv.DictReader(file))) == ROWS


def test_a_file_that_fails_ends_the_run_with_what_was_said(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"\.csv: exit code 1: no such thing as a stream"):
        run(folder, "--options=--fail")


def test_rows_that_are_not_the_input_are_refused(folder: Path) -> None:
    script = folder / "stand_in.py"
    script.write_text(script.read_text().replace('row["timestamp"]', '"2024"'))
    with pytest.raises(ValueError, match="not the rows that went in"):
        run(folder)


def test_the_layout_of_a_checkout_is_read_too(folder: Path) -> None:
    for name, subfolder in (("combined_windows.json", "labels"), ("profiles.json", "config")):
        (folder / subfolder).mkdir()
        (folder / name).rename(folder / subfolder / name)
    corpus = load_corpus(folder)
    for name in WINDOWS:
        category, file = name.split("/")
        path = folder / "results" / "mine" / category / f"mine_{file}"
        path.parent.mkdir(parents=True)
        rows = [f"{time},7,{row / ROWS},0" for row, time in enumerate(TIMES)]
        path.write_text("\n".join(["timestamp,value,anomaly_score,label", *rows]) + "\n")
    scores = nab_published.load_published(folder, corpus, "mine")
    assert {name: score.tolist() for name, score in scores.items()} == {
        name: [row / ROWS for row in range(ROWS)] for name in WINDOWS
    }


def test_windows_and_alarms_are_those_at_the_standard_threshold(folder: Path) -> None:
    corpus = load_corpus(folder)
    scores = {name: np.zeros(ROWS) for name in WINDOWS}
    scores["a/first.csv"][[30, 40]] = 1.0, 0.9  # no catching the window without the false alarm
    scores["b/second.csv"][60] = 0.9
    judged = nab.judge(corpus, scores)
    assert judged.threshold["standard"] == 0.9
    assert judged.tally["all"].total == pytest.approx(2 - 0.11)
    assert (judged.tally["all"].caught, judged.tally["all"].false_alarms) == (2, 1)


def test_a_given_threshold_detects_what_reaches_it(folder: Path) -> None:
    corpus = load_corpus(folder)
    scores = {name: np.zeros(ROWS) for name in WINDOWS}
    scores["a/first.csv"][[30, 40]] = 0.3, 0.9
    for threshold, total in ((0.95, -2.0), (0.9, 0.0), (0.31, 0.0), (0.3, -0.11)):
        expected = pytest.approx(100 * (total + 2) / 4)
        assert nab_published.score_at(corpus, scores, "standard", threshold) == expected


def test_a_folder_that_is_no_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is it a checkout of numenta/NAB"):
        load_corpus(tmp_path)


def test_the_check_against_published_figures_can_fail(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nab_published.main([str(folder)]) == 1
    assert "off by more than" in capsys.readouterr().err
