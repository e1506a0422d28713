"""The likelihood against SciPy's multivariate t, and the encoder against the textbook conditional."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t, t

from streamgen.models.factor_t import Predictive, given_scale, half_width, likelihood, posterior

B, D, K, DOF = 5, 4, 2, 4.0


@pytest.fixture
def predictive() -> Predictive:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape))

    return Predictive(draw(B, D), 0.3 * draw(B, D), 0.3 * draw(B, K), draw(K, D), DOF)


def covariance(p: Predictive, b: int) -> np.ndarray:
    loading = p.loading_KD.numpy()
    latent = np.diag(np.exp(2 * p.log_latent_BK[b].numpy()))
    return loading.T @ latent @ loading + np.diag(np.exp(2 * p.log_noise_BD[b].numpy()))


@pytest.mark.parametrize("seen", [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]])
def test_nll_is_scipys_of_the_seen_features(predictive: Predictive, seen: list[int]) -> None:
    y_BD = torch.from_numpy(np.random.default_rng(1).normal(size=(B, D)))
    seen_BD = torch.tensor([seen] * B, dtype=torch.float64)
    scored = likelihood(predictive, y_BD, seen_BD)
    there = np.flatnonzero(seen)
    for b in range(B):
        oracle = multivariate_t(
            predictive.mean_BD[b].numpy()[there], covariance(predictive, b)[np.ix_(there, there)], df=DOF
        )
        assert float(scored.nll_B[b]) == pytest.approx(-oracle.logpdf(y_BD[b].numpy()[there]), rel=1e-10)


def test_quadratic_adds_up_to_the_mahalanobis_distance(predictive: Predictive) -> None:
    y_BD = torch.from_numpy(np.random.default_rng(2).normal(size=(B, D)))
    scored = likelihood(predictive, y_BD, torch.ones(B, D, dtype=torch.float64))
    for b in range(B):
        e = (y_BD[b] - predictive.mean_BD[b]).numpy()
        assert float(scored.quadratic_BD[b].sum()) == pytest.approx(
            e @ np.linalg.solve(covariance(predictive, b), e), rel=1e-10
        )


def test_a_missing_value_is_imputed_by_its_conditional_mean(predictive: Predictive) -> None:
    y_BD = torch.from_numpy(np.random.default_rng(3).normal(size=(B, D)))
    seen_BD = torch.tensor([[1, 0, 1, 1]] * B, dtype=torch.float64)
    expected_BD = likelihood(predictive, y_BD, seen_BD).expected_BD
    there = [0, 2, 3]
    for b in range(B):
        full, mean = covariance(predictive, b), predictive.mean_BD[b].numpy()
        e = (y_BD[b].numpy() - mean)[there]
        oracle = mean[1] + full[1, there] @ np.linalg.solve(full[np.ix_(there, there)], e)
        assert float(expected_BD[b, 1]) == pytest.approx(oracle, rel=1e-10)
        np.testing.assert_allclose(expected_BD[b, there].numpy(), mean[there])


@pytest.mark.parametrize("seen", [[1, 0, 1, 1], [0, 1, 0, 0]])
def test_a_missing_value_has_the_scale_of_its_conditional(predictive: Predictive, seen: list[int]) -> None:
    """By Bayes: the joint density of the seen ones and a missing one, over that of the seen ones alone."""
    y_BD = torch.from_numpy(2 * np.random.default_rng(3).normal(size=(B, D)))
    seen_BD = torch.tensor([seen] * B, dtype=torch.float64)
    scored = likelihood(predictive, y_BD, seen_BD)
    scale_BD = given_scale(predictive, seen_BD, scored.quadratic_BD.sum(1))
    there, missing = np.flatnonzero(seen).tolist(), seen.index(0)
    for b in range(B):
        mean, full = predictive.mean_BD[b].numpy(), covariance(predictive, b)

        def log_density(value_D: np.ndarray, of: list[int], m=mean, s=full) -> float:
            return float(multivariate_t(m[of], s[np.ix_(of, of)], df=DOF).logpdf(value_D[of]))

        value_D = y_BD[b].numpy().copy()
        expected, scale = float(scored.expected_BD[b, missing]), float(scale_BD[b, missing])
        for away in (0.0, -0.7, 2.5):
            value_D[missing] = expected + away * scale
            ratio = log_density(value_D, [*there, missing]) - log_density(value_D, there)
            assert ratio == pytest.approx(t(DOF + len(there), expected, scale).logpdf(value_D[missing]))


def test_the_encoder_is_the_exact_posterior_mean(predictive: Predictive) -> None:
    residual_BD = torch.from_numpy(np.random.default_rng(4).normal(size=(B, D)))
    z_BK, _, _, _ = posterior(predictive, residual_BD, torch.ones(B, D, dtype=torch.float64))
    for b in range(B):
        latent = np.diag(np.exp(2 * predictive.log_latent_BK[b].numpy()))
        gain = latent @ predictive.loading_KD.numpy() @ np.linalg.inv(covariance(predictive, b))
        np.testing.assert_allclose(z_BK[b].numpy(), gain @ residual_BD[b].numpy(), rtol=1e-10)


def test_scale_is_the_root_of_the_diagonal(predictive: Predictive) -> None:
    for b in range(B):
        np.testing.assert_allclose(
            predictive.scale_BD()[b].numpy(), np.sqrt(np.diag(covariance(predictive, b))), rtol=1e-12
        )


def test_draws_have_its_mean_and_covariance(predictive: Predictive) -> None:
    count = 200_000
    many = replace(predictive.some(torch.tensor([0] * count)), dof=12.0)
    for log_by in (0.0, 0.5):
        y_ND = many.wider(log_by).draw(np.random.default_rng(0)).numpy()
        wide_DD = 12 / 10 * np.exp(2 * log_by) * covariance(predictive, 0)
        np.testing.assert_allclose(y_ND.mean(0), predictive.mean_BD[0], atol=0.03)
        np.testing.assert_allclose(np.cov(y_ND.T), wide_DD, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dof", [2.01, 3.0, 4.0, 17.5, 1000.0])
@pytest.mark.parametrize("inside", [0.5, 0.9, 0.99])
def test_half_width_is_scipys_quantile(dof: float, inside: float) -> None:
    assert half_width(dof, inside) == pytest.approx(t.ppf(0.5 + inside / 2, dof), rel=1e-9)
