"""What is tried, kept, given up and gone on with; the trials here are curves that are known beforehand."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from streamgen.config import InputConfig
from streamgen.errors import InputError, MissingDependency, StateError
from streamgen.tuning.compare import Outcome, compare
from streamgen.tuning.effects import Difference, against, best, tables, told
from streamgen.tuning.factors import Factor, Search, as_it_is, parse, settings_of, to_try
from streamgen.tuning.online import Online
from streamgen.tuning.study import FILE, Study, Tried
from streamgen.tuning.trial import PARTS, Point

SUBJECT = Online(InputConfig(topic="t"))
GRID = ("hidden=8,16,64", "layers=2,3")


class Known:
    """A score for each choice: `of` the settings, much that is of the seed, and a little noise."""

    unit = "points"
    way = "data"
    points = PARTS

    def __init__(self, of: Mapping[str, float], spoiled: Iterable[str] = ("nothing",)) -> None:
        """`spoiled`: settings that together are worse than each alone."""
        self.of, self.spoiled = of, set(spoiled)
        self.passes, self.parts = list[tuple[dict[str, Any], int]](), 0

    def __call__(self, settings: Mapping[str, Any], seed: int) -> Iterator[Point | None]:
        self.passes.append((dict(settings), seed))
        # What all choices have in common of a seed is far larger than what tells them apart.
        own = np.random.default_rng([seed, *map(ord, str(settings))]).normal() / 1000
        score = sum(self.of.get(f"{key}={value}", 0.0) for key, value in settings.items())
        score += 7.0 * seed + own + (1.5 if self.spoiled <= set(settings) else 0.0)
        for part in range(PARTS):
            yield None
            self.parts += 1
            yield Point(score + 5.0 / (part + 1), 0.5 * part)


def factors(*texts: str) -> list[Factor]:
    return [parse(SUBJECT, text) for text in texts]


def gone(
    folder: Path, trial: Any, varied: list[Factor], search: Search = "one", seconds: float = 60
) -> tuple[Outcome, list[str]]:
    study, said = Study(folder, search), list[str]()
    try:
        choices = to_try(SUBJECT, varied, search)
        return compare(study, trial, choices, SUBJECT, varied, search, 3, seconds, said.append), said
    finally:
        study.close()


def test_each_is_tried_with_every_seed_and_then_what_was_better_together(tmp_path: Path) -> None:
    varied = factors("layers=2", "hidden=8,64", "dof=3.0", "latent=1", "clip_norm=null")
    trial = Known(
        {
            "layers=2": -0.5, "hidden=8": -1.0, "hidden=64": -2.0, "dof=3.0": 0.7, "latent=1": -0.6,
            "clip_norm=None": -0.1,
        },
        spoiled={"hidden", "latent"},
    )  # fmt: skip
    outcome, said = gone(tmp_path, trial, varied)
    expected = ["as it is", "layers 2", "hidden 8", "hidden 64", "dof 3.0", "latent 1", "clip_norm null"]
    # The best first, and then one after the other; latent does not go with hidden.
    added = ["hidden 64, latent 1", "layers 2, hidden 64", "layers 2, hidden 64, clip_norm null"]
    assert [told(varied, one.choice) for one in outcome.tried] == expected + added
    assert [seed for settings, seed in trial.passes if settings == {"dof": 3.0}] == [0, 1, 2]
    assert len(trial.passes) == 3 * len(expected + added)
    assert outcome.complete
    assert settings_of(varied, outcome.best.choice) == {"hidden": 64, "layers": 2, "clip_norm": None}
    assert said == expected + added
    (table,) = tables("one", varied, outcome.tried, trial.unit)
    names = ["as it is", "layers", "hidden", "hidden", "dof", "latent", "clip_norm", *["together"] * 3]
    assert [row[0] for row in table.rows] == names
    assert [row[5] for row in table.rows] == ["", *["better"] * 3, "worse", *["better"] * 5]


def test_what_is_not_clearly_better_is_not_chosen(tmp_path: Path) -> None:
    varied = factors("hidden=8,64")
    outcome, _ = gone(tmp_path, Known({"hidden=8": -1e-5}), varied)
    assert outcome.best.choice == as_it_is(varied)
    assert len(outcome.tried) == 3  # nothing to try together


def test_a_difference_is_paired_and_its_interval_students() -> None:
    rng = np.random.default_rng(0)
    base_S, other_S = rng.normal(size=(2, 5)) + 10 * np.arange(5)
    base, other = (Tried({}, np.tile(one[:, None], PARTS), 1.0) for one in (base_S, other_S))
    found = ttest_rel(other_S, base_S).confidence_interval(0.95)
    difference = against(base, other)
    assert (difference.low, difference.high) == pytest.approx((found.low, found.high))
    assert difference.mean == pytest.approx((other_S - base_S).mean())
    verdicts = [Difference(0.0, *ends).verdict for ends in ((-2, -1), (-1, 1), (1, 2))]
    assert verdicts == ["better", "", "worse"]
    assert best(base, [base, other]) is (other if difference.high < 0 else base)


@pytest.mark.parametrize("search", ["one", "grid", "halving"])
def test_what_is_known_is_not_tried_again(tmp_path: Path, search: Search) -> None:
    varied = factors(*GRID)
    trial = Known({"hidden=8": -1.0, "layers=2": -0.5})
    first, _ = gone(tmp_path, trial, varied, search)
    count = len(trial.passes)
    again, said = gone(tmp_path, trial, varied, search)
    assert (len(trial.passes), said) == (count, [])
    assert [one.choice for one in again.tried] == [one.choice for one in first.tried]
    for one, other in zip(first.tried, again.tried, strict=True):
        assert one.curve_SP.tobytes() == other.curve_SP.tobytes()
    assert again.best.choice == first.best.choice


def test_halving_gives_up_what_is_not_among_the_best_third(tmp_path: Path) -> None:
    varied = factors("hidden=8,16,64,128", "layers=2,3,4,5")
    scores = {f"hidden={units}": 0.1 * n for n, units in enumerate((8, 16, 64, 128))}
    scores |= {f"layers={depth}": 0.05 * depth for depth in (2, 3, 4, 5)}
    halved, every = Known(scores), Known(scores)
    outcome, _ = gone(tmp_path / "a", halved, varied, "halving")
    full, _ = gone(tmp_path / "b", every, varied, "grid")
    assert len(outcome.tried) == len(full.tried) == 25
    assert all(one.whole for one in full.tried)
    assert halved.parts < every.parts / 2
    assert outcome.best.choice == full.best.choice
    points = {one.curve_SP.shape[1] for one in outcome.tried}
    assert points == {PARTS // 9, PARTS // 3, PARTS}
    assert outcome.tried[0].whole  # what is now is the measure of all
    marginal, ranking = tables("halving", varied, outcome.tried, "points")
    assert sum(int(row[2]) + int(row[3]) for row in marginal.rows) == 2 * 25
    assert ranking.rows[0][0] == told(varied, outcome.best.choice)


def test_the_time_ends_it_and_the_rest_is_tried_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clocked(Known):
        """A second passes with every part."""

        def monotonic(self) -> float:
            return float(self.parts)

    trial, varied = Clocked({"hidden=8": -1.0}), factors(*GRID)
    for module in ("study", "compare"):
        monkeypatch.setattr(f"streamgen.tuning.{module}.time", trial)
    a_trial = 3 * PARTS
    outcome, said = gone(tmp_path, trial, varied, seconds=2.5 * a_trial)
    assert not outcome.complete
    assert (len(outcome.tried), len(said)) == (2, 3)  # the third was under way
    assert trial.parts == pytest.approx(2.5 * a_trial, abs=2)
    outcome, rest = gone(tmp_path, trial, varied, seconds=100 * a_trial)
    assert outcome.complete
    assert rest[0] == said[2]
    assert len(outcome.tried) == 6


def test_a_choice_that_is_longer_than_the_time_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Known):
        """The first layer's choice takes ten times as long as the others."""

        now = 0.0

        def __call__(self, settings: Mapping[str, Any], seed: int, /) -> Iterator[Point | None]:
            for point in super().__call__(settings, seed):
                if point is not None:
                    self.now += 10.0 if settings == {"hidden": 8} else 1.0
                yield point

        def monotonic(self) -> float:
            return self.now

    trial, varied = Slow({}), factors("hidden=8", "layers=2", "dof=3.0")
    for module in ("study", "compare"):
        monkeypatch.setattr(f"streamgen.tuning.{module}.time", trial)
    said = []
    for _ in range(3):
        outcome, tried = gone(tmp_path, trial, varied, seconds=4.5 * PARTS)
        said.append(tried)
    assert said == [["as it is", "hidden 8"], ["hidden 8"], ["layers 2", "dof 3.0"]]
    assert not outcome.complete
    assert len(outcome.tried) == 3


def test_no_time_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give more of it \(--budget\)"):
        gone(tmp_path, Known({}), factors(*GRID), seconds=0)


def test_a_trial_that_fails_is_no_result_and_is_tried_again(tmp_path: Path) -> None:
    class Failing(Known):
        def __call__(self, settings: Mapping[str, Any], seed: int) -> Iterator[Point | None]:
            yield from super().__call__(settings, seed)
            if settings == {"layers": 2} and self.fails:
                raise InputError("no")

        fails = True

    trial = Failing({})
    with pytest.raises(InputError, match="no"):
        gone(tmp_path, trial, factors("hidden=8", "layers=2"))
    trial.fails = False
    outcome, said = gone(tmp_path, trial, factors("hidden=8", "layers=2"))
    assert (len(outcome.tried), said) == (3, ["layers 2"])


def test_a_study_is_of_one_thing_only(tmp_path: Path) -> None:
    study = Study(tmp_path, "one")
    assert study.facts is None
    study.agree({"records": "abc", "seeds": 3})
    study.agree({"records": "abc", "seeds": 3})
    with pytest.raises(StateError, match="has a study with other seeds: go on with it as it was begun"):
        study.agree({"records": "abc", "seeds": 4})
    with pytest.raises(StateError, match="Another process works on the study"):
        Study(tmp_path, "one")
    study.close()
    again = Study(tmp_path, "one")
    assert again.facts == {"records": "abc", "seeds": 3}
    again.close()


def test_a_file_that_is_no_study_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("not a database, and long enough to be told from an empty one\n" * 40)
    with pytest.raises(StateError, match=r"study\.db cannot be used as a study"):
        Study(tmp_path, "one")
    with pytest.raises(InputError, match="Cannot write"):
        Study(tmp_path / FILE / "inside", "one")


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependency, match=r"pip install 'streamgen-kafka\[tune\]'"):
        Study(tmp_path, "one")
