"""Rows of a file judged by a state that has not learned them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamgen.config import InputConfig
from streamgen.detect import Choice, fit_file
from streamgen.errors import InputError
from streamgen.heldout import HeldOut, held_out
from streamgen.records import Floats

SMALL = {"name": "rvae", "hidden": 4, "latent": 2, "components": 2}


def write(path: Path, value_N: Floats, first: int = 0, timed: bool = True, key: str | None = None) -> Path:
    head = (["time"] if timed else []) + (["who"] if key else []) + ["x"]
    with path.open("w") as file:
        file.write(",".join(head) + "\n")
        for n, value in enumerate(value_N.tolist(), start=first):
            cells = [str(1_700_000_000 + 60 * n)] if timed else []
            file.write(",".join([*cells, *([key] if key else []), str(value)]) + "\n")
    return path


def fit(path: Path, state: Path, key: str | None = None, model: dict[str, object] | None = None) -> None:
    config = InputConfig.model_validate(
        {"topic": "t", "model": model or SMALL, "window": {"length": 8}, "min_records": 1}
    )
    fit_file(path, state, config, Choice(key=key))


def wave(N: int) -> Floats:
    return np.sin(np.arange(N) / 3) + 0.1 * np.random.default_rng(0).normal(size=N)


@pytest.mark.parametrize("timed", [True, False])
def test_rows_after_what_was_learned_are_judged(tmp_path: Path, timed: bool) -> None:
    """Those of a file without times always are. The whole file says of its end what the end says alone."""
    x_N = wave(300)
    fit(write(tmp_path / "a.csv", x_N[:200], timed=timed), tmp_path / "s")
    found = held_out(write(tmp_path / "b.csv", x_N[200:], 200, timed), tmp_path / "s", draws=4)
    assert (found.rows, found.learned, found.unknown) == (100, 0, 0)
    assert (found.windows, found.length, found.values) == (12, 8, 100)
    assert found.figures["one step ahead"] > found.figures["one step ahead, last value"] - 1.0
    assert found.figures["windows, importance-weighted"] >= found.figures["windows, evidence lower bound"]
    if timed:
        whole = held_out(write(tmp_path / "c.csv", x_N), tmp_path / "s", draws=4)
        assert (whole.rows, whole.learned, whole.figures) == (100, 200, found.figures)


def test_each_row_is_judged_by_its_keys_learner(tmp_path: Path) -> None:
    x_N = wave(120)
    paths = [write(tmp_path / f"{key}.csv", x_N * unit, key=key) for key, unit in (("a", 1.0), ("b", 50.0))]
    both = tmp_path / "both.csv"
    lines = [line for path in paths for line in path.read_text().splitlines()[1:]]
    both.write_text("time,who,x\n" + "\n".join(sorted(lines)) + "\n")
    fit(both, tmp_path / "s", key="who")

    def judged(name: str, unit: float) -> HeldOut:
        new = write(tmp_path / "new.csv", wave(150)[120:] * unit, 120, key=name)
        return held_out(new, tmp_path / "s", key_column="who", draws=2)

    of_a, of_b = judged("a", 1.0), judged("b", 50.0)
    # The noise of the two is another, what they saw is the same but for its unit.
    apart = of_a.figures["one step ahead, last value"] - of_b.figures["one step ahead, last value"]
    assert apart == pytest.approx(np.log(50.0))
    with pytest.raises(InputError, match="0 are not later than what it has learned, and 30 are of keys"):
        judged("c", 1.0)
    with pytest.raises(InputError, match="30 are of keys without a learner"):
        held_out(write(tmp_path / "new.csv", wave(30), 120), tmp_path / "s")


def test_what_was_learned_and_a_detector_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", wave(60))
    fit(path, tmp_path / "s")
    with pytest.raises(InputError, match="60 are not later than what it has learned"):
        held_out(path, tmp_path / "s")
    fit(path, tmp_path / "r", model={"name": "river", "n_trees": 2, "height": 2})
    with pytest.raises(InputError, match="river has no likelihood"):
        held_out(write(tmp_path / "b.csv", wave(30), 60), tmp_path / "r")


@pytest.mark.parametrize(("learned", "new"), [(3, 3), (3, 20)])
def test_a_key_with_fewer_records_than_a_window_is_judged(tmp_path: Path, learned: int, new: int) -> None:
    """A short key has a learner, that of few records: its rows count, alone and beside a long one's, and only
    whole windows have bounds."""
    x_N = wave(80)
    long, short = write(tmp_path / "l.csv", x_N[:60], key="long"), tmp_path / "s.csv"
    lines = write(short, x_N[60 - learned : 60], 60 - learned, key="short").read_text().splitlines()[1:]
    both = tmp_path / "both.csv"
    both.write_text("\n".join([*long.read_text().splitlines(), *lines]) + "\n")
    fit(both, tmp_path / "s", key="who")

    def judged(*names: str) -> HeldOut:
        sizes = {"long": 16, "short": new}
        paths = [write(tmp_path / f"new-{name}", x_N[60 : 60 + sizes[name]], 60, key=name) for name in names]
        rows = [line for path in paths for line in path.read_text().splitlines()[1:]]
        file = tmp_path / "new.csv"
        file.write_text("time,who,x\n" + "\n".join(rows) + "\n")
        return held_out(file, tmp_path / "s", key_column="who", draws=2)

    alone, other, together = judged("short"), judged("long"), judged("long", "short")
    assert (alone.rows, alone.learned, alone.unknown) == (new, 0, 0)
    assert (alone.values, alone.windows) == (new, new // 8)
    assert ("windows, importance-weighted" in alone.figures) == (new >= 8)
    assert np.isfinite(list(alone.figures.values())).all()
    assert (together.values, together.windows) == (16 + new, 2 + new // 8)
    sums = [one.figures["one step ahead"] * one.values for one in (alone, other, together)]
    assert sums[0] + sums[1] == pytest.approx(sums[2], rel=1e-5)
