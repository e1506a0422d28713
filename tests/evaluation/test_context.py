"""The Fréchet distance against closed forms, the contrast against loops, and what the two of them see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from streamgen.evaluation import context_fid, cut, frechet_distance
from streamgen.evaluation.context import contrast
from streamgen.records import Floats


def with_moments(mean_E: Floats, covariance_EE: Floats, count: int = 400) -> Floats:
    """A sample that has these moments exactly."""
    sample_NE = np.random.default_rng(0).normal(size=(count, len(mean_E)))
    sample_NE -= sample_NE.mean(axis=0)
    sample_NE = sample_NE @ np.linalg.inv(np.linalg.cholesky(np.cov(sample_NE, rowvar=False)).T)
    return np.asarray(sample_NE @ np.linalg.cholesky(covariance_EE).T + mean_E)


def test_the_distance_of_gaussians_whose_axes_agree() -> None:
    """‖μ₁ − μ₂‖² + Σ (σ₁ − σ₂)²."""
    one, two = np.array([1.0, 2.0, 0.5]), np.array([0.5, 2.0, 3.0])
    left = with_moments(np.zeros(3), np.diag(one**2))
    right = with_moments(np.array([1.0, 0.0, -2.0]), np.diag(two**2))
    assert frechet_distance(left, right) == pytest.approx(5.0 + ((one - two) ** 2).sum())


def test_the_distance_of_gaussians_of_two_dimensions() -> None:
    """For 2 × 2 matrices, Tr (Σ₁ Σ₂)^½ = (Tr Σ₁ Σ₂ + 2 (det Σ₁ Σ₂)^½)^½."""
    one, two = np.array([[2.0, 1.2], [1.2, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    product = one @ two
    shared = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    expected = np.trace(one) + np.trace(two) - 2 * shared
    left, right = with_moments(np.zeros(2), one), with_moments(np.zeros(2), two)
    assert frechet_distance(left, right) == pytest.approx(expected)
    assert frechet_distance(left, left) == pytest.approx(0.0, abs=1e-9)


def test_fewer_samples_than_dimensions_are_no_obstacle() -> None:
    rng = np.random.default_rng(0)
    assert 0.0 < frechet_distance(rng.normal(size=(10, 50)), rng.normal(size=(12, 50))) < math.inf


def test_the_contrast_is_the_papers() -> None:
    """By its equations, one pair of records after another."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 3, 5, 4))
    total, scales = 0.0, 0
    one, two = left.copy(), right.copy()
    while True:
        B, T, _ = one.shape
        temporal = instance = 0.0
        for i in range(B):
            for t in range(T):
                for r, other in ((one, two), (two, one)):
                    pair = math.exp(r[i, t] @ other[i, t])
                    over_time = sum(
                        math.exp(r[i, t] @ other[i, s]) + (math.exp(r[i, t] @ r[i, s]) if s != t else 0.0)
                        for s in range(T)
                    )
                    over_windows = sum(
                        math.exp(r[i, t] @ other[j, t]) + (math.exp(r[i, t] @ r[j, t]) if j != i else 0.0)
                        for j in range(B)
                    )
                    temporal -= math.log(pair / over_time) / (2 * B * T)
                    instance -= math.log(pair / over_windows) / (2 * B * T)
        total += 0.5 * instance + (0.5 * temporal if T > 1 else 0.0)
        scales += 1
        if T == 1:
            break
        one, two = (
            np.stack([np.maximum(x[:, 2 * s], x[:, 2 * s + 1]) for s in range(T // 2)], axis=1)
            for x in (one, two)
        )
    assert float(contrast(torch.from_numpy(left), torch.from_numpy(right))) == pytest.approx(total / scales)


@pytest.fixture(scope="module")
def windows() -> tuple[Floats, Floats]:
    """Two samples of one stream, a wave of wandering speed."""
    rng = np.random.default_rng(0)
    phase = np.cumsum(0.5 + 0.1 * rng.normal(size=6000))
    series = np.stack([np.sin(phase), np.cos(phase)], axis=1) + 0.05 * rng.normal(size=(6000, 2))
    found = cut(series, 12, 12)
    return found[::2], found[1::2]


def test_what_the_encoder_learned_tells_wrong_order_from_the_stream(windows: tuple[Floats, Floats]) -> None:
    real, alike = windows
    rng = np.random.default_rng(0)
    shuffled = np.stack([window[rng.permutation(12)] for window in alike])
    null, told = (context_fid(real, other, 0, iterations=60) for other in (alike, shuffled))
    assert told > 5 * null


def test_it_is_repeatable_and_leaves_torch_alone(windows: tuple[Floats, Floats]) -> None:
    state = torch.get_rng_state()
    found = [context_fid(*windows, seed, iterations=5) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.get_rng_state(), state)
