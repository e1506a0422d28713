"""Units and axes of records, against their equations."""

from dataclasses import replace

import numpy as np
import pytest

from streamgen.models import axes, scale
from streamgen.models.axes import Axes, bounded, compressed
from streamgen.models.slab import Slab
from streamgen.models.units import Normalisation
from streamgen.records import Floats

RNG = np.random.default_rng(0)
NOW = Axes(
    mean_D=np.array([10.0, -5.0]),
    unit_D=np.array([2.0, 0.5]),
    delta_D=np.array([0.25, 4.0]),
    level_DD=np.array([[1.5, 0.0], [0.5, 0.8]]),
    step_DD=np.array([[0.7, 0.0], [-0.6, 1.1]]),
    squash=bounded,
    home_D=np.array([10.0, -5.0]),
)
VALUE_TD = np.array([[11.0, -5.5], [12.0, -5.5], [11.5, -4.0]])
SEEN_TD = np.array([[True, True], [True, False], [True, True]])
TIME_TC = RNG.normal(size=(3, 7))


def test_a_window_is_levels_and_steps_on_their_axes() -> None:
    window_TI = NOW.window(VALUE_TD, SEEN_TD, TIME_TC)
    before_TD = VALUE_TD[[0, 0, 1]]
    for t in range(3):
        e_D = np.linalg.solve(NOW.level_DD, (VALUE_TD[t] - NOW.mean_D) / NOW.unit_D)
        d_D = np.linalg.solve(NOW.step_DD, (VALUE_TD[t] - before_TD[t]) / NOW.delta_D)
        expected = [*4 * np.tanh(e_D / 4), *4 * np.tanh(d_D / 4), *SEEN_TD[t], *TIME_TC[t]]
        np.testing.assert_allclose(window_TI[t], expected, rtol=1e-6, atol=1e-7)
    assert window_TI.dtype == np.float32


def test_targets_are_a_level_and_steps_where_there_is_a_value() -> None:
    target_TD, known_TD = NOW.targets(VALUE_TD, SEEN_TD)
    np.testing.assert_allclose(target_TD, [[0.5, -1.0], [4.0, 0.0], [-2.0, 0.375]])
    assert (known_TD == SEEN_TD).all()


def test_the_step_to_a_first_value_is_from_nowhere() -> None:
    value_TD = VALUE_TD.copy()
    value_TD[:2, 1] = np.nan
    seen_TD = ~np.isnan(value_TD)
    target_TD, known_TD = NOW.targets(value_TD, seen_TD)
    assert not known_TD[2, 1]
    assert (target_TD[:, 1] == 0).all()
    assert np.isfinite(NOW.window(value_TD, seen_TD, TIME_TC)).all()


def test_no_unit_is_larger_than_a_million() -> None:
    assert NOW.level(np.array([1e300, -1e300])).tolist() == [1e6, -1e6]
    assert NOW.step(np.array([1e300, np.nan]), np.array([-1e300, 0.0])).tolist() == [1e6, 0.0]


def observed(kind: Normalisation, value_ND: Floats) -> tuple[Slab, Axes]:
    D = value_ND.shape[1]
    slab = Slab({**scale.fields(D), **axes.fields(D, kind)})
    row = slab.add()
    for value_D in value_ND:
        axes.observe(slab, row, kind, value_D, ~np.isnan(value_D))
    return slab, Axes.of(slab, row, kind, bounded)


def wandering() -> Floats:
    rng = np.random.default_rng(1)
    value_ND = rng.normal(size=(2000, 1)).cumsum(0) * [1.0, 3.0] + rng.normal(size=(2000, 2))
    value_ND[::5, 1] = np.nan
    return value_ND


def test_observing_moves_scales_and_both_moments() -> None:
    value_ND = wandering()
    _, now = observed("whitening", value_ND)
    step_N = np.diff(value_ND[:, 0])
    assert now.step_DD[0, 0] == pytest.approx(np.sqrt((step_N**2).mean()) / now.delta_D[0], rel=0.05)
    assert now.mean_D[0] == pytest.approx(value_ND[:, 0].mean())
    assert now.step_DD[1, 0] > 0.5  # the columns move together


def test_the_swing_is_the_mean_size_of_the_recent_steps() -> None:
    value_ND = wandering()[:, :1]
    slab, now = observed("whitening", value_ND)
    size_N = np.abs(np.diff(value_ND[:, 0]))
    expected = size_N[0]
    for n, size in enumerate(size_N):
        expected += (size - expected) / min(n + 1, 16)
    swing = slab.host("swing_D")[0, 0]
    assert swing == pytest.approx(expected)
    assert now.swing(np.array([swing]))[0] == pytest.approx(4 * np.tanh(np.log(swing / now.delta_D[0]) / 4))
    assert (np.abs(now.swing(np.array([0.0, 1e300]))) <= 4).all()


def test_normalisations_are_what_they_say() -> None:
    value_ND = wandering()
    unit_DD = np.eye(2)
    for kind in ("none", "minmax", "standard", "robust"):
        _, now = observed(kind, value_ND)
        assert np.array_equal(now.level_DD, unit_DD)
        assert np.array_equal(now.step_DD, unit_DD)
        for d in range(2):
            x_N = value_ND[~np.isnan(value_ND[:, d]), d]
            y_N = np.diff(value_ND[:, d])
            y_N = y_N[~np.isnan(y_N)]
            level_N, step = now.level(np.repeat(x_N[:, None], 2, 1))[:, d], y_N / now.delta_D[d]
            if kind == "none":
                assert np.array_equal(level_N, x_N)
                assert np.array_equal(step, y_N)
            elif kind == "minmax":
                assert (level_N.min(), level_N.max()) == (0.0, 1.0)
                assert now.delta_D[d] == np.ptp(x_N)
            elif kind == "standard":  # the mean runs, so that the deviation is not quite NumPy's
                assert level_N.mean() == pytest.approx(0.0, abs=1e-9)
                assert 0.5 < level_N.std() < 2.0
                if d == 0:
                    assert (step**2).mean() == pytest.approx(1.0)
            elif d == 0:
                assert np.abs(step).mean() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["none", "minmax", "standard", "robust", "whitening"])
@pytest.mark.parametrize("value", [3.0, np.nan, 1e300])
def test_no_column_makes_a_unit_zero_or_infinite(kind: Normalisation, value: float) -> None:
    value_ND = np.where([True, False], wandering(), value)
    value_ND[1000:, 1] = np.where(np.isnan(value), np.nan, -value)
    _, now = observed(kind, value_ND)
    for unit_D in (now.unit_D, now.delta_D):
        assert (unit_D > 0).all()
        assert np.isfinite(unit_D).all()
    assert np.isfinite(now.level(value_ND)).all()


def test_what_is_compressed_still_says_how_far_out_a_value_is() -> None:
    far_TD = NOW.mean_D + NOW.unit_D * np.array([[100.0, 0.0], [1000.0, 0.0]])
    apart = {}
    for squash in (bounded, compressed):
        u_TD = replace(NOW, squash=squash).window(far_TD, SEEN_TD[:2], TIME_TC[:2])[:, :2]
        apart[squash] = u_TD[1, 0] - u_TD[0, 0]
    assert apart[bounded] < 1e-6
    assert apart[compressed] == pytest.approx(np.log(10), abs=1e-3)
