"""A key's clock: late records, gaps, restarts, and the features of time."""

from datetime import timedelta

import numpy as np

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


def test_time_of_day_and_week_come_back_to_themselves() -> None:
    week = 7 * 24 * 60 * MINUTE
    now = np.array([1_700_000_000_000])
    one, gap = np.array([1.0]), np.array([1.0])
    np.testing.assert_allclose(time_features(now, one, gap), time_features(now + week, one, gap), atol=1e-6)
    features = time_features(now + np.arange(0, week, MINUTE), np.ones(10_080), np.ones(10_080))
    assert np.abs(features).max() <= 1.0
    assert len(np.unique(features.round(9), axis=0)) == 10_080  # every minute of the week looks different
