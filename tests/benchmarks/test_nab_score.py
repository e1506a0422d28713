"""The NAB scorer against values worked out by hand and against a slow transcription of the protocol."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest

from benchmarks.nab_score import (
    NOTHING,
    Corpus,
    Floats,
    Outcome,
    Profile,
    Series,
    corpus_of,
    normalised,
    score_all,
    series_of,
    sweep,
    tally,
    tally_all,
)

STANDARD = Profile(tp=1.0, fp=0.11, fn=1.0)
LOW_FN = Profile(tp=1.0, fp=0.11, fn=2.0)
Edges = dict[str, list[tuple[int, int]]]
FULL = math.tanh(2.5)  # 2 * sigmoid(5) - 1: the left end of a window


def times(rows: int) -> list[str]:
    return [str(datetime(2024, 1, 1) + timedelta(minutes=5 * row)) for row in range(rows)]


def series(name: str, rows: int, *windows: tuple[int, int]) -> Series:
    timestamps = times(rows)
    return series_of(name, timestamps, [(timestamps[first], timestamps[last]) for first, last in windows])


def scores(rows: int, **at: float) -> Floats:
    """All 0 but for the given rows: `r40=1.0`."""
    score = np.zeros(rows)
    for row, value in at.items():
        score[int(row[1:])] = value
    return score


def total(one: Series, *detected: int, profile: Profile = STANDARD) -> float:
    flags = np.zeros(len(one.timestamps), bool)
    flags[list(detected)] = True
    return tally(one, flags, profile).total


ONE = series("a/one.csv", 100, (40, 49))  # 15 rows of probation, a window of 10


def test_the_left_end_of_a_window_is_worth_everything() -> None:
    assert total(ONE, 40) == pytest.approx(1.0)
    assert total(ONE, 40, profile=Profile(3.0, 0.11, 1.0)) == pytest.approx(3.0)


@pytest.mark.parametrize(("row", "position"), [(41, -0.9), (45, -0.5), (49, -0.1)])
def test_later_in_a_window_is_worth_less(row: int, position: float) -> None:
    assert total(ONE, row) == pytest.approx(math.tanh(-2.5 * position) / FULL)


def test_a_window_counts_its_best_row_once() -> None:
    assert total(ONE, 43, 44, 49) == total(ONE, 43)


def test_nothing_detected_costs_the_window() -> None:
    assert total(ONE) == -1.0
    assert total(ONE, profile=LOW_FN) == -2.0


@pytest.mark.parametrize("row", [15, 39, 77, 99])
def test_a_false_alarm_far_from_a_window_or_before_it_costs_the_full_weight(row: int) -> None:
    assert total(ONE, 40, row) == pytest.approx(1.0 - 0.11, abs=1e-12)


@pytest.mark.parametrize("row", [50, 55, 76])  # the distance counts in windows of 9 steps; 27 rows are 3
def test_a_false_alarm_soon_after_a_window_costs_less(row: int) -> None:
    assert total(ONE, 40, row) == pytest.approx(1.0 - 0.11 * math.tanh(2.5 * (row - 49) / 9), abs=1e-12)


def test_the_nearest_window_behind_counts() -> None:
    two = series("a/two.csv", 100, (20, 24), (60, 79))
    assert total(two, 20, 60, 85) == pytest.approx(2.0 - 0.11 * math.tanh(2.5 * 6 / 19))
    assert total(two, 20, 60, 26) == pytest.approx(2.0 - 0.11 * math.tanh(2.5 * 2 / 4))


def test_probation_is_15_percent_and_at_most_750_rows() -> None:
    assert total(ONE, 14, 40) == pytest.approx(1.0)
    assert total(ONE, 15, 40) == pytest.approx(0.89)
    assert series("a/b.csv", 4_999).probation == 749
    assert series("a/b.csv", 5_000).probation == 750
    assert series("a/b.csv", 9_000).probation == 750


def test_a_window_that_begins_in_probation_can_be_caught_after_it() -> None:
    early = series("a/early.csv", 100, (10, 19))
    assert total(early, 10) == -1.0
    assert total(early, 15) == pytest.approx(math.tanh(2.5 * 0.5) / FULL)


def test_a_window_inside_probation_is_no_part_of_the_total_but_of_perfect() -> None:
    hidden = series("a/hidden.csv", 100, (2, 5), (40, 49))
    assert total(hidden) == -1.0
    corpus = corpus_of([hidden], {"standard": STANDARD})
    assert normalised(corpus, STANDARD, 1.0) == pytest.approx(100 * (1 + 1) / (2 + 1))


def test_perfect_is_100_and_a_constant_is_0() -> None:
    other = series("b/other.csv", 200, (100, 120), (150, 160))
    corpus = corpus_of([ONE, other], {"standard": STANDARD, "low FN": LOW_FN})
    perfect = {"a/one.csv": scores(100, r40=0.7), "b/other.csv": scores(200, r100=0.9, r150=0.7)}
    constant = {"a/one.csv": np.full(100, 0.3), "b/other.csv": np.full(200, 0.3)}
    for name, missed in (("standard", -3.0), ("low FN", -6.0)):
        assert score_all(corpus, perfect)[name] == pytest.approx(Outcome(100.0, 0.7, 3.0))
        assert score_all(corpus, constant)[name] == Outcome(0.0, NOTHING, missed)


def test_one_threshold_for_all_series() -> None:
    # Apart, each would reach 1; together 0.5 catches both windows and pays for one false alarm.
    other = series("b/other.csv", 100, (40, 49))
    corpus = corpus_of([ONE, other], {"standard": STANDARD})
    best = score_all(
        corpus, {"a/one.csv": scores(100, r40=0.5), "b/other.csv": scores(100, r40=0.9, r90=0.6)}
    )["standard"]
    assert best.total == pytest.approx(2.0 - 0.11)
    assert best.threshold == 0.5
    assert best.score == pytest.approx(100 * (1.89 + 2) / (2 + 2))


def slow_total(
    corpus: Corpus, by_name: dict[str, Floats], edges: Edges, profile: Profile, threshold: float
) -> float:
    """The protocol as one would say it, a row at a time."""
    result = 0.0
    for one in corpus.series:
        rows = len(one.timestamps)
        best: dict[tuple[int, int], float] = {}
        for row in range(math.floor(min(0.15 * rows, 750)), rows):
            within = [edge for edge in edges[one.name] if edge[0] <= row <= edge[1]]
            behind = [edge for edge in edges[one.name] if edge[1] < row]
            if within:
                best.setdefault(within[0], -profile.fn)
            if by_name[one.name][row] < threshold:
                continue
            if within:
                first, last = within[0]
                position = -(last - row + 1) / (last - first + 1)
                worth = profile.tp * (2 / (1 + math.exp(5 * position)) - 1) / (2 / (1 + math.exp(-5)) - 1)
                best[within[0]] = max(best[within[0]], worth)
            elif behind:
                first, last = behind[-1]
                position = (row - last) / (last - first)
                result += profile.fp * (-1 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1)
            else:
                result -= profile.fp
        result += sum(best.values())
    return result


@pytest.mark.parametrize("seed", range(8))
def test_the_sweep_finds_what_brute_force_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    edges: Edges = {
        "a/1.csv": [(12, 30), (31, 40), (90, 91)],
        "a/2.csv": [],
        "b/3.csv": [(2, 6), (60, 75)],
    }
    rows = {"a/1.csv": 120, "a/2.csv": 50, "b/3.csv": 80}
    by_name: dict[str, Floats] = {}
    for name, count in rows.items():
        score = random.random(count) ** 4
        for first, last in edges[name]:
            score[first : last + 1] += random.random(last - first + 1) ** 3
        by_name[name] = np.round(np.clip(score, 0, 1), 2).astype(np.float64)  # many equal scores
    profile = Profile(tp=1.0, fp=[0.11, 0.22][seed % 2], fn=1.0 + seed % 3)
    corpus = corpus_of([series(name, rows[name], *edges[name]) for name in rows], {"any": profile})

    threshold_K, total_K = sweep(corpus.scored_rows(by_name), corpus.window_R, corpus.unit_R, profile)
    expected_K = [slow_total(corpus, by_name, edges, profile, threshold) for threshold in threshold_K]
    np.testing.assert_allclose(total_K, expected_K, atol=1e-9)

    everywhere = np.concatenate([[NOTHING], np.arange(0, 1.005, 0.005)])  # no other threshold does better
    best = max(slow_total(corpus, by_name, edges, profile, threshold) for threshold in everywhere)
    outcome = score_all(corpus, by_name)["any"]
    assert outcome.total == pytest.approx(best)
    flags = {name: score >= outcome.threshold for name, score in by_name.items()}
    assert tally_all(corpus, flags, profile)["all"].total == pytest.approx(best)


def test_a_tally_counts_windows_alarms_and_days_by_category() -> None:
    other = series("b/other.csv", 200, (100, 120))
    corpus = corpus_of([ONE, other], {"standard": STANDARD})
    flags = {name: np.zeros(rows, bool) for name, rows in (("a/one.csv", 100), ("b/other.csv", 200))}
    flags["a/one.csv"][[3, 14, 15, 16, 39, 40, 50, 51, 90]] = True  # alarms at 15–16, 39, 50–51 and 90
    flags["b/other.csv"][[130, 132]] = True
    by_category = tally_all(corpus, flags, STANDARD)
    a, b, every = by_category["a"], by_category["b"], by_category["all"]
    assert (a.windows, a.caught, a.false_records, a.false_alarms) == (1, 1, 6, 4)
    assert (b.windows, b.caught, b.false_records, b.false_alarms) == (1, 0, 2, 2)
    assert (every.windows, every.caught, every.false_records, every.false_alarms) == (2, 1, 8, 6)
    assert a.days == pytest.approx((99 - 15) * 5 / 1440)
    assert every.days == pytest.approx((99 - 15 + 199 - 30) * 5 / 1440)
    assert every.total == pytest.approx(a.total + b.total)
    assert list(by_category) == ["a", "b", "all"]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, 1.1])
def test_a_score_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"a/one\.csv: a score is not between 0 and 1"):
        score_all(corpus_of([ONE], {"standard": STANDARD}), {"a/one.csv": scores(100, r3=wrong)})


def test_a_missing_row_is_refused() -> None:
    with pytest.raises(ValueError, match="99 scores for 100 rows"):
        score_all(corpus_of([ONE], {"standard": STANDARD}), {"a/one.csv": np.zeros(99)})


def test_windows_that_do_not_fit_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="narrower than two rows or overlaps"):
        series("a/b.csv", 100, (40, 40))
    with pytest.raises(ValueError, match="narrower than two rows or overlaps"):
        series("a/b.csv", 100, (40, 50), (50, 60))
    with pytest.raises(ValueError, match="no row at 2030-01-01"):
        series_of("a/b.csv", times(10), [("2030-01-01 00:00:00.000000", "2030-01-02 00:00:00.000000")])
