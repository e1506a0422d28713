"""A key's clock: late records, gaps, restarts, and the features of time."""

from datetime import timedelta

import numpy as np
import pytest

from streamgen.config import WindowConfig
from streamgen.models.slab import Slab
from streamgen.windows import Clock, Ticks, time_features

MINUTE = 60_000


def advance(times: list[int], rows: list[int] | None = None, **settings: object) -> Ticks:
    slab = Slab(Clock.FIELDS)
    slab.add()
    slab.add()
    clock = Clock(WindowConfig.model_validate(settings))
    return clock.advance(slab, np.array(rows or [0] * len(times)), np.array(times))


def test_a_record_older_than_its_keys_newest_is_late() -> None:
    ticks = advance([10, 20, 15, 20, 21], rows=[0, 0, 0, 0, 0])
    assert ticks.late_N.tolist() == [False, False, True, False, False]
    assert advance([10, 5], rows=[0, 1]).late_N.tolist() == [False, False]  # another key's clock


def test_after_enough_late_records_in_a_row_the_clock_restarts() -> None:
    ticks = advance([100, 1, 2, 3, 4, 200, 5], restart_after=3)
    assert ticks.late_N.tolist() == [False, True, True, False, False, False, True]
    assert ticks.restarted_N.tolist() == [False, False, False, True, False, False, False]
    assert ticks.broken_N.tolist() == ticks.restarted_N.tolist()


def test_late_records_must_be_in_a_row() -> None:
    ticks = advance([100, 1, 101, 1, 102, 1, 103], restart_after=2)
    assert not ticks.restarted_N.any()


def test_a_gap_breaks_the_window() -> None:
    ticks = advance([0, MINUTE, 3 * MINUTE, 9 * MINUTE], max_gap=timedelta(minutes=2))
    assert ticks.broken_N.tolist() == [False, False, False, True]
    assert not advance([0, 10**12]).broken_N.any()


def test_the_usual_gap_is_known_before_the_record() -> None:
    ticks = advance([0, 10, 20, 40])
    np.testing.assert_allclose(ticks.gap_N, [0, 0, 10, 10])


def steps(*step_ms: float) -> list[int]:
    return [0, *np.cumsum(step_ms).astype(int).tolist()]


DAY = 24 * 60 * MINUTE


@pytest.mark.parametrize("before", [20, 600])
def test_an_outage_is_not_the_usual_time_between_records(before: int) -> None:
    times = steps(*[MINUTE] * before, DAY, *[MINUTE] * 10)
    assert advance(times).gap_N[-1] < 1.4 * MINUTE
    if before > 256:
        assert advance(times).gap_N[-1] < 1.03 * MINUTE
    broken = advance(times, max_gap=timedelta(minutes=5))
    assert broken.gap_N[-1] == MINUTE
    assert broken.broken_N.sum() == 1


def test_nights_are_outages_too() -> None:
    day = [*[MINUTE] * 480, 16 * 60 * MINUTE]
    assert advance(steps(*day * 5, *[MINUTE] * 10)).gap_N[-1] < 1.05 * MINUTE


@pytest.mark.parametrize("factor", [1 / 60, 7, 60, 10_000])
def test_a_rhythm_that_changes_is_followed(factor: float) -> None:
    gap_N = advance(steps(*[MINUTE] * 600, *[factor * MINUTE] * 2000)).gap_N
    assert gap_N[-1] == pytest.approx(factor * MINUTE, rel=0.03)


@pytest.mark.parametrize("size", [2, 20, 200, 1000])
@pytest.mark.parametrize("within", [0, 10])
def test_bursts_are_a_rhythm(size: int, within: int) -> None:
    """The mean is of all steps, not of those within a burst, and it does not shrink to nothing."""
    gap_N = advance(steps(*[*[within] * (size - 1), MINUTE] * (20_000 // size))).gap_N
    mean = (MINUTE + (size - 1) * within) / size
    if size < 256:
        assert gap_N[-5 * size :].mean() == pytest.approx(mean, rel=0.15)
    else:  # a pause after that many is an outage
        assert gap_N[5_000:].max() > max(within, 1)


def test_steps_that_all_break_the_window_are_what_is_known() -> None:
    assert advance(steps(*[MINUTE] * 5), max_gap=timedelta(seconds=1)).gap_N[-1] == MINUTE
    ticks = advance(steps(DAY, MINUTE, MINUTE), max_gap=timedelta(hours=1))
    assert ticks.gap_N.tolist() == [0, 0, DAY, MINUTE]


def test_time_of_day_and_week_come_back_to_themselves() -> None:
    week = 7 * 24 * 60 * MINUTE
    now = np.array([1_700_000_000_000])
    one, gap = np.array([1.0]), np.array([1.0])
    np.testing.assert_allclose(time_features(now, one, gap), time_features(now + week, one, gap), atol=1e-6)
    features = time_features(now + np.arange(0, week, MINUTE), np.ones(10_080), np.ones(10_080))
    assert np.abs(features).max() <= 1.0
    assert len(np.unique(features.round(9), axis=0)) == 10_080  # every minute of the week looks different
