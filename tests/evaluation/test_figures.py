"""The figures against closed forms, other formulas and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamgen.errors import InputError
from streamgen.evaluation import (
    autocorrelation_difference,
    copies,
    cross_correlation_difference,
    cut,
    marginal_difference,
    neighbourhood,
)
from streamgen.evaluation.moments import correlations
from streamgen.evaluation.windows import halves, in_real_range, in_real_units, thinned
from streamgen.records import Floats


def normal(count: int, length: int, features: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, length, features))


def test_windows_are_cut_in_order() -> None:
    series = np.arange(10.0)[:, None]
    assert cut(series, 4, 3)[:, :, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert len(cut(series, 10, 10)) == 1
    with pytest.raises(InputError, match="A series of 10 records has no window of 11"):
        cut(series, 11, 1)


def test_halves_are_disjoint_whole_and_made_of_blocks() -> None:
    mine, others = halves(103, 10, np.random.default_rng(0))
    assert sorted([*mine, *others]) == list(range(103))
    assert {n // 10 for n in mine}.isdisjoint(n // 10 for n in others)


@pytest.mark.parametrize("count", [10, 24, 59, 60])
def test_a_thinned_half_is_of_the_whole_half_in_runs(count: int) -> None:
    half_N = np.arange(200, 320, 2)
    found_N = thinned(half_N, 10, count, np.random.default_rng(0))
    assert len(found_N) == count
    assert (np.diff(found_N) > 0).all()
    assert set(found_N) <= set(half_N)
    stretch_N = (found_N - 200) // 12
    assert sorted(set(stretch_N)) == list(range(10))
    for stretch in range(10):
        assert set(np.diff(found_N[stretch_N == stretch])) <= {2}


@pytest.mark.parametrize("shift", [0.3, 2.0])
def test_the_marginal_difference_of_a_shift_is_the_shift(shift: float) -> None:
    real = 1000 + 50 * normal(200, 10, 2)
    generated = real.copy()
    generated[:, :, 0] += shift * real[:, :, 0].std()
    assert marginal_difference(real, generated) == pytest.approx(shift / 2)


def test_the_marginal_difference_of_another_spread() -> None:
    """W₁ between N(0, 1) and N(0, 2²) is E|Z|."""
    real, generated = normal(4000, 10, 1), 2 * normal(4000, 10, 1, seed=1)
    assert marginal_difference(real, generated) == pytest.approx(math.sqrt(2 / math.pi), rel=0.03)


def test_the_autocorrelation_of_an_autoregression() -> None:
    """φ^k, for an AR(1) with coefficient φ."""
    rng, phi = np.random.default_rng(0), 0.8
    series = np.zeros(60_000)
    noise = rng.normal(size=len(series))
    for n in range(1, len(series)):
        series[n] = phi * series[n - 1] + noise[n]
    windows = cut(series[:, None], 24, 24)
    found_T = correlations(windows)[:, 0, 0]
    assert found_T[:8] == pytest.approx(phi ** np.arange(8), abs=0.04)
    white = normal(len(windows), 24, 1) * series.std()
    expected = float(np.mean(phi ** np.arange(1, 24)))
    assert autocorrelation_difference(windows, white) == pytest.approx(expected, abs=0.03)


def test_at_the_same_record_it_is_pearsons() -> None:
    windows = normal(300, 8, 3) @ np.array([[1, 0.5, 0], [0, 1, -0.7], [0, 0, 1]])
    assert correlations(windows)[0] == pytest.approx(np.corrcoef(windows.reshape(-1, 3).T))
    assert cross_correlation_difference(windows[:, :, :1], windows[:, :, :1]) == 0.0


def test_which_column_leads_is_seen() -> None:
    """The second column is the first, two records later."""
    noise = normal(800, 12, 1)[:, :, 0]
    windows = np.stack([noise[:, 2:], noise[:, :-2]], axis=2)
    found_TDD = correlations(windows)
    assert found_TDD[2, 0, 1] == pytest.approx(1.0, abs=0.05)
    assert np.abs(np.delete(found_TDD[:, 0, 1], 2)).max() < 0.15
    # Two of twenty correlations are 1 instead of 0, or the other way round.
    swapped = cross_correlation_difference(windows, windows[:, :, ::-1])
    assert swapped == pytest.approx(0.1, abs=0.03)


def test_units_of_a_column_do_not_matter() -> None:
    real, generated, unit = normal(60, 6, 2), normal(60, 6, 2, seed=1), np.array([1e6, 1e-6])
    for figure in (marginal_difference, autocorrelation_difference, cross_correlation_difference):
        assert figure(real * unit + 5, generated * unit + 5) == pytest.approx(figure(real, generated))
    assert neighbourhood(real * unit, generated * unit) == neighbourhood(real, generated)


@pytest.mark.parametrize(("constant", "off"), [(0.0, 3.0), (1.0, 3.0), (-7.0, 21.0)])
def test_a_constant_column_is_compared_in_its_own_unit_or_size(constant: float, off: float) -> None:
    real, generated = normal(60, 6, 2), normal(60, 6, 2, seed=1)
    real[:, :, 1] = generated[:, :, 1] = constant
    alike = marginal_difference(real, generated)
    generated[:, :, 1] += off
    assert marginal_difference(real, generated) == pytest.approx(alike + 1.5)
    assert math.isfinite(autocorrelation_difference(real, generated))
    assert math.isfinite(cross_correlation_difference(real, generated))


@pytest.mark.parametrize("constant", [0.1, 123.456, -1e9 - 0.1, 1e9 + 0.1, 0.1 + 0.2])
def test_a_constant_that_floats_round_is_constant(constant: float) -> None:
    """Its deviation is not 0, and a value that is off by rounding is not far from it."""
    real, generated = normal(600, 6, 2), normal(600, 6, 2, seed=1)
    real[:, :, 1] = constant
    real[0, 0, 1] = np.nextafter(constant, np.inf)
    alike = marginal_difference(real[:, :, :1], generated[:, :, :1])
    for other in (constant * (1 + 1e-9), float(np.float32(constant))):
        generated[:, :, 1] = other
        assert marginal_difference(real, generated) == pytest.approx(alike / 2, abs=1e-6)
        assert neighbourhood(real, generated) == pytest.approx(
            neighbourhood(real[:, :, :1], generated[:, :, :1]), abs=0.01
        )
        for windows in (real, generated):
            assert np.abs(in_real_range(real, windows)[:, :, 1]).max() < 1e-6


@pytest.mark.parametrize("level", [1.7e9, 1.7e12])
def test_a_column_that_moves_little_beside_its_level_is_not_constant(level: float) -> None:
    real, generated = normal(60, 6, 1), normal(60, 6, 1, seed=1)
    shift = marginal_difference(real, generated)
    for moved in (10 * real + level, 10 * generated + level):
        assert in_real_units(10 * real + level, moved).std() == pytest.approx(1.0, rel=0.2)
    found = marginal_difference(10 * real + level, 10 * generated + level)
    assert found == pytest.approx(shift, rel=0.01)


def test_neighbours_by_brute_force() -> None:
    real, generated, k = normal(40, 3, 2), 1.3 * normal(30, 3, 2, seed=1) + 0.4, 3
    scale = real.std(axis=(0, 1))
    mean = real.mean(axis=(0, 1))
    real_points = [((w - mean) / scale).ravel() for w in real]
    generated_points = [((w - mean) / scale).ravel() for w in generated]

    def radius(points: list[Floats], n: int) -> float:
        return sorted(float(np.linalg.norm(points[n] - other)) for other in points)[k]

    inside = [
        [float(np.linalg.norm(g - r)) <= radius(real_points, n) for n, r in enumerate(real_points)]
        for g in generated_points
    ]
    recalled = [
        any(
            float(np.linalg.norm(g - r)) <= radius(generated_points, m)
            for m, g in enumerate(generated_points)
        )
        for r in real_points
    ]
    found = neighbourhood(real, generated, k)
    assert found.precision == np.mean([any(row) for row in inside])
    assert found.density == pytest.approx(np.sum(inside) / (k * 30))
    assert found.coverage == np.mean(np.any(inside, axis=0))
    assert found.recall == np.mean(recalled)


def test_the_coverage_of_the_same_distribution() -> None:
    """Its expectation is known, whatever the distribution is: Naeem et al. 2020, equation 10."""
    count, k = 700, 5
    found = [neighbourhood(normal(count, 2, 1, n), normal(count, 2, 1, 100 + n)).coverage for n in range(6)]
    expected = 1 - math.prod((count - n) / (2 * count - n) for n in range(1, k + 1))
    assert np.mean(found) == pytest.approx(expected, abs=0.012)


def test_the_share_of_copies() -> None:
    training, held_out = normal(400, 4, 2), normal(400, 4, 2, seed=1)
    assert copies(training, held_out, normal(400, 4, 2, seed=2)) == pytest.approx(0.05, abs=0.04)
    mixed = np.concatenate([training[:100] + 1e-6, normal(300, 4, 2, seed=3)])
    assert copies(training, held_out, mixed) == pytest.approx(0.25 + 0.75 * 0.05, abs=0.04)


def test_copies_cannot_be_told_where_the_held_out_windows_were_learned() -> None:
    training = normal(400, 4, 2)
    with pytest.raises(InputError, match="40 of 400 real windows are among those that were learned"):
        copies(training, np.concatenate([training[:40], normal(360, 4, 2, seed=1)]), training)


@pytest.mark.parametrize(
    ("real", "generated", "said"),
    [
        (
            normal(9, 4, 2),
            normal(9, 4, 3),
            r"hold \(4, 2\) records and features, the generated ones \(4, 3\)",
        ),
        (normal(9, 4, 2), normal(9, 4, 2)[0], r"generated windows have the shape \(4, 2\)"),
        (
            normal(9, 4, 2),
            np.full((9, 4, 2), np.nan),
            "9 of the generated windows hold a value that is missing",
        ),
        (normal(5, 4, 2), normal(9, 4, 2), "5 real and 9 generated windows are too few for 5 neighbours"),
    ],
)
def test_what_cannot_be_compared_is_said(real: Floats, generated: Floats, said: str) -> None:
    with pytest.raises(InputError, match=said):
        neighbourhood(real, generated)
