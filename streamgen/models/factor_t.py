"""The Student-t of factor analysis: a multivariate t whose scale matrix is low rank plus diagonal.

    y = μ + √(ν/χ²_ν) (L z + σ ε),   z ~ N(0, diag s²),  ε ~ N(0, I)
    y ~ t_ν(μ, Σ),   Σ = L diag(s²) Lᵀ + diag(σ²)

Latent and noise share one scale, so that y is a multivariate t in closed form, and so are its marginals and
conditionals. A value that is missing has zero precision: it leaves the likelihood exactly, and its mean given
the values that are there is the imputation. Σ is never formed: Woodbury's identity needs the Cholesky factor
of a K × K matrix that is at least diag(s⁻²), so it always exists.

Shapes: B distributions in one call, D features, K latent dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Predictive:
    """The distribution of y before it is seen: t_ν(mean, L diag(s²) Lᵀ + diag(σ²)), in units of δ."""

    mean_BD: Tensor
    log_noise_BD: Tensor
    log_latent_BK: Tensor
    loading_KD: Tensor
    dof: float

    def scale_BD(self) -> Tensor:
        """Scale of each feature alone: the root of the diagonal of Σ."""
        shared_BD = torch.exp(2.0 * self.log_latent_BK) @ (self.loading_KD * self.loading_KD)
        return torch.sqrt(torch.exp(2.0 * self.log_noise_BD) + shared_BD)

    def wider(self, log_by: float) -> Predictive:
        """All scales e^`log_by` times as large."""
        return replace(
            self, log_noise_BD=self.log_noise_BD + log_by, log_latent_BK=self.log_latent_BK + log_by
        )

    def some(self, rows_B: Tensor) -> Predictive:
        """Some of the B."""
        return Predictive(
            self.mean_BD[rows_B], self.log_noise_BD[rows_B], self.log_latent_BK[rows_B], self.loading_KD,
            self.dof,
        )  # fmt: skip

    def draw(self, noise: np.random.Generator) -> Tensor:
        """One y from each of the B, [B, D]: z, ε and the χ² that they share."""
        (B, D), K = self.mean_BD.shape, len(self.loading_KD)
        normal_BO = noise.standard_normal((B, K + D)).astype(np.float32)
        shared_B1 = np.sqrt(self.dof / noise.chisquare(self.dof, (B, 1))).astype(np.float32)
        drawn_BO = torch.from_numpy(shared_B1 * normal_BO).to(self.mean_BD.device)
        latent_BD = (drawn_BO[:, :K] * torch.exp(self.log_latent_BK)) @ self.loading_KD
        return self.mean_BD + latent_BD + torch.exp(self.log_noise_BD) * drawn_BO[:, K:]


def posterior(p: Predictive, residual_BD: Tensor, seen_BD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The exact encoder: z given the seen part of y. Returns

    `z_BK`, mean of the latent's deviation from its prior mean; `solved_BD` = Σ⁻¹ e over the seen features
    (zero elsewhere); `half_logdet_B` = ½ log det Σ of the seen features; `explained_BD` = L z, the mean of
    every feature, seen or not, given the seen ones.
    """
    precision_BD = torch.exp(-2.0 * p.log_noise_BD) * seen_BD
    weighted_BD = precision_BD * residual_BD
    factor_BKK = _factor(p, precision_BD)
    z_BK = torch.cholesky_solve((weighted_BD @ p.loading_KD.T).unsqueeze(2), factor_BKK).squeeze(2)
    explained_BD = z_BK @ p.loading_KD
    solved_BD = weighted_BD - precision_BD * explained_BD
    half_logdet_B = (
        (p.log_noise_BD * seen_BD).sum(1)
        + p.log_latent_BK.sum(1)
        + torch.log(torch.diagonal(factor_BKK, dim1=1, dim2=2)).sum(1)
    )
    return z_BK, solved_BD, half_logdet_B, explained_BD


def _factor(p: Predictive, precision_BD: Tensor) -> Tensor:
    """The Cholesky factor, [B, K, K], of M = diag(s⁻²) + L Ψ Lᵀ, the precision of z given what is seen;
    Σ⁻¹ = Ψ − Ψ Lᵀ M⁻¹ L Ψ with Ψ = diag(σ⁻²)."""
    scaled_BKD = p.loading_KD * precision_BD.unsqueeze(1)
    M_BKK = scaled_BKD @ p.loading_KD.T + torch.diag_embed(torch.exp(-2.0 * p.log_latent_BK))
    factor_BKK: Tensor = torch.linalg.cholesky_ex(M_BKK).L
    return factor_BKK


def given_scale(p: Predictive, seen_BD: Tensor, square_B: Tensor) -> Tensor:
    """Scale of each missing feature alone, [B, D], given c seen ones at the squared Mahalanobis distance
    `square`. It is a t with ν + c degrees of freedom around its conditional mean (Ding 2016, "On the
    conditional distribution of the multivariate t"); but for the shared scale its variance is σ² + L M⁻¹ Lᵀ.
    """
    factor_BKK = _factor(p, torch.exp(-2.0 * p.log_noise_BD) * seen_BD)
    loading_BKD = p.loading_KD.expand(len(factor_BKK), *p.loading_KD.shape)
    latent_BKD = torch.linalg.solve_triangular(factor_BKK, loading_BKD, upper=False)
    own_BD = torch.sqrt(torch.exp(2.0 * p.log_noise_BD) + (latent_BKD * latent_BKD).sum(1))
    return own_BD * torch.sqrt((p.dof + square_B) / (p.dof + seen_BD.sum(1))).unsqueeze(1)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What B records are worth under their predictive distributions, in nats.

    `nll_B` = −log t_ν of the seen features. `tail_B` is the part of it that depends on where in the
    distribution the record lies; `quadratic_BD` sums over D to the squared Mahalanobis distance.
    `expected_BD` is the predictive mean of a seen feature, the conditional mean of a missing one.
    """

    nll_B: Tensor
    tail_B: Tensor
    quadratic_BD: Tensor
    expected_BD: Tensor


def likelihood(p: Predictive, y_BD: Tensor, seen_BD: Tensor) -> Likelihood:
    """Score y; what is not seen must be finite in `y_BD` and is left out."""
    residual_BD = (y_BD - p.mean_BD) * seen_BD
    _, solved_BD, half_logdet_B, explained_BD = posterior(p, residual_BD, seen_BD)
    quadratic_BD = residual_BD * solved_BD
    count_B = seen_BD.sum(1)
    tail_B = 0.5 * (p.dof + count_B) * torch.log1p(quadratic_BD.sum(1).clamp_min(0.0) / p.dof)
    constant_B = _constants(p.dof, seen_BD.shape[1], y_BD.dtype, y_BD.device)[count_B.long()]
    expected_BD = p.mean_BD + explained_BD * (1.0 - seen_BD)
    return Likelihood(constant_B + half_logdet_B + tail_B, tail_B, quadratic_BD, expected_BD)


@lru_cache(maxsize=1024)
def half_width(dof: float, inside: float) -> float:
    """Half the width of the interval around 0 that holds the share `inside` of a unit Student-t.

    With t = √ν tan a the share between ±t is the integral of c cosᵛ⁻¹ over ±a: Gauss–Legendre and bisection.
    (SciPy's quantile is the oracle in the tests; importing it here would cost every worker 16 MB.)
    """
    node, weight = np.polynomial.legendre.leggauss(64)
    c = 2 * math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2)) / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        a = (low + high) / 2
        share = c * a / 2 * float(np.sum(weight * np.cos(a / 2 * (node + 1)) ** (dof - 1)))
        low, high = (a, high) if share < inside else (low, a)
    return math.sqrt(dof) * math.tan(low)


@lru_cache
def _constants(dof: float, D: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The part of −log t_ν that only the number of seen features (0 … D) changes, [D + 1]."""
    with torch.inference_mode(False):
        count_S = torch.arange(D + 1, dtype=dtype, device=device)
        return (
            math.lgamma(dof / 2) - torch.lgamma((dof + count_S) / 2) + count_S / 2 * math.log(dof * math.pi)
        )
