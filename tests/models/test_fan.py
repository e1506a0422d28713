"""Forecasts whose spread is wrong by a factor that grows: their own past mends them."""

import numpy as np
import pytest

from streamgen.models import fan
from streamgen.models.slab import Slab
from streamgen.records import Floats

A = 12


def played(noise_ratio: float, growth: float, forecasts: int = 1500) -> tuple[Floats, float]:
    """A white stream of scale 1; forecasts that take it for e^(−`noise_ratio` − `growth` φ_h) of that.
    a and b, and the share of values that were covered, on average over the second half of them."""
    slab = Slab({**fan.fields(A, 1), "updates": fan.Field(dtype="int64", fill=1.0)})
    row, noise = slab.add(), np.random.default_rng(0)
    inside, learned = [], []
    for n in range(forecasts):
        assert fan.due(slab, row)
        far_A = np.log(np.arange(1, A + 1)) / np.log(A)
        widened_A = np.array([fan.widening(slab, row, step) for step in range(1, A + 1)])
        scale_A = np.exp(widened_A - noise_ratio - growth * far_A)
        fan.begin(slab, row, scale_A[:, None] * noise.normal(size=(fan.DRAWS, A, 1)), noise)
        pause = int(slab.host("fan_pause")[row])
        for value in noise.normal(size=A):
            assert not fan.due(slab, row)
            step = A - int(slab.host("fan_left")[row])
            low, high = (slab.host(name)[row, step, 0] for name in ("fan_low_AD", "fan_high_AD"))
            if n > forecasts // 2:
                inside.append(low <= value <= high)
                learned.append(slab.host("fan_2")[row].copy())
            fan.observe(slab, row, np.array([value]), np.array([True]))
        for _ in range(pause):
            assert not fan.due(slab, row)
            fan.observe(slab, row, np.zeros(1), np.array([True]))
    return np.mean(learned, axis=0), float(np.mean(inside))


@pytest.mark.parametrize(("ratio", "growth"), [(0.5, 0.5), (-0.4, 0.0), (0.0, 0.8)])
def test_four_of_five_values_come_to_lie_inside(ratio: float, growth: float) -> None:
    mean_2, covered = played(ratio, growth)
    assert covered == pytest.approx(0.8, abs=0.01)
    np.testing.assert_allclose(mean_2, [ratio, growth], atol=0.15)


def test_what_is_missing_teaches_nothing_and_passes() -> None:
    slab = Slab({**fan.fields(A, 2), "updates": fan.Field(dtype="int64", fill=1.0)})
    row, noise = slab.add(), np.random.default_rng(0)
    fan.begin(slab, row, noise.normal(size=(fan.DRAWS, A, 2)), noise)
    fan.observe(slab, row, np.full(2, np.nan), np.zeros(2, dtype=np.bool_))
    assert slab.host("fan_2")[row].tolist() == [0.0, 0.0]
    assert slab.host("fan_left")[row] == A - 1
    fan.observe(slab, row, np.array([99.0, np.nan]), np.array([True, False]))
    assert slab.host("fan_2")[row].tolist() == pytest.approx(
        [0.8 * fan.RATE, 0.8 * fan.RATE * np.log(2) / np.log(A)]
    )


def test_a_break_costs_no_more_forecasts() -> None:
    """A stream of short bursts would have nothing but forecasts that do not come true."""
    slab = Slab({**fan.fields(A, 1), "updates": fan.Field(dtype="int64", fill=1.0)})
    row, noise = slab.add(), np.random.default_rng(0)
    fan.begin(slab, row, noise.normal(size=(fan.DRAWS, A, 1)), noise, 3)
    pause = int(slab.host("fan_pause")[row])
    assert pause > 0
    fan.observe(slab, row, np.zeros(1), np.array([True]))
    learned = slab.host("fan_2")[row].tolist()
    records = 0
    while not fan.due(slab, row):
        if records % 3 == 0:
            fan.drop(slab, row)
        fan.observe(slab, row, np.full(1, 99.0), np.array([True]))
        records += 1
    assert records == A - 1 + pause
    assert slab.host("fan_2")[row].tolist() == learned


def test_none_is_due_before_the_learner_has_learned() -> None:
    slab = Slab({**fan.fields(A, 1), "updates": fan.Field(dtype="int64")})
    assert not fan.due(slab, slab.add())
    assert fan.widening(slab, 0, 100 * A) == 0.0
