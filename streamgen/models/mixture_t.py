"""A mixture of multivariate Student-t's whose axes are a whitening's.

    p(y) = Σ_k π_k t_ν(y; L μ_k, Σ_k),   Σ_k = L diag(s_k²) Lᵀ

L is the Cholesky factor of a second moment (`whitening`), π, μ and s come from a network (a mixture density
network: Bishop 1994). Seen whole, y is judged by e = L⁻¹ y, feature by feature. Of a y with missing values
the marginal is a mixture of t's with the seen part of L μ_k and of Σ_k: a QR decomposition of (L diag(s_k))ᵀ
without the missing columns gives its Cholesky factor without ever squaring the condition of L. The seen
features give the components new weights and the missing ones their conditional means.

Shapes: N distributions, K components, D features. Units of y are the caller's; the network's are whitened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from streamgen.records import Floats

BOUND = 4.0  # of log scales: a likelihood stays finite, and a gradient stays useful


def bounded(log_scale: Tensor) -> Tensor:
    """Log scales between ±`BOUND`."""
    return BOUND * torch.tanh(log_scale / BOUND)


@dataclass(frozen=True, slots=True)
class MixtureT:
    """N distributions. `factor_DD` is L, float64; the rest is float32 and whitened."""

    log_weight_NK: Tensor
    mean_NKD: Tensor
    log_scale_NKD: Tensor
    factor_DD: Tensor
    dof: float

    @classmethod
    def of(
        cls, out_NO: Tensor, components: int, factor_DD: Tensor, dof: float,
        shift_ND: Tensor | None = None, stretch_ND: Tensor | None = None,
    ) -> MixtureT:  # fmt: skip
        """From a network's outputs, O = K (1 + 2D): logits of weights, means, log scales (bounded).

        `shift_ND` is added to every mean, `stretch_ND` to every log scale.
        """
        K, D = components, factor_DD.shape[0]
        weight_NK, mean_NO, scale_NO = torch.split(out_NO, [K, K * D, K * D], dim=1)
        mean_NKD, scale_NKD = mean_NO.view(-1, K, D), scale_NO.view(-1, K, D)
        if shift_ND is not None:
            mean_NKD = mean_NKD + shift_ND.unsqueeze(1)
        if stretch_ND is not None:
            scale_NKD = scale_NKD + stretch_ND.unsqueeze(1)
        return cls(torch.log_softmax(weight_NK, 1), mean_NKD, bounded(scale_NKD), factor_DD, dof)

    def nll(self, y_ND: Tensor, seen_ND: Tensor) -> Tensor:
        """−log p of the seen part of y, nats, [N]; what is not seen must be finite and is left out."""
        e_DN = torch.linalg.solve_triangular(self.factor_DD, y_ND.T, upper=False)
        e_ND = e_DN.T.to(self.mean_NKD.dtype)
        square_NK = (((e_ND.unsqueeze(1) - self.mean_NKD) * torch.exp(-self.log_scale_NKD)) ** 2).sum(2)
        whole_N = torch.full_like(y_ND[:, 0], y_ND.shape[1])
        log_NK = self._log_t(square_NK, self.log_scale_NKD.sum(2), whole_N)
        volume = torch.log(torch.diagonal(self.factor_DD)).sum()
        nll_N = volume - torch.logsumexp(self.log_weight_NK + log_NK, 1)
        count_N = seen_ND.sum(1)
        nll_N = torch.where(count_N > 0, nll_N, 0.0)  # of nothing: not worth a decomposition
        partly_N = (count_N > 0) & (count_N < seen_ND.shape[1])
        if not bool(partly_N.any()):
            return nll_N
        some = self.some(partly_N)
        log_MK = some._log_t(*some._marginal(y_ND[partly_N], seen_ND[partly_N])[:3])
        return nll_N.index_put((partly_N,), -torch.logsumexp(some.log_weight_NK + log_MK, 1))

    def judge(self, y_ND: Tensor, seen_ND: Tensor) -> Judgement:
        """What the seen part of y is worth, and what is expected of every feature."""
        square_NK, half_logdet_NK, count_N, part_NKD, given_NKD = self._marginal(y_ND, seen_ND)
        log_NK = self.log_weight_NK + self._log_t(square_NK, half_logdet_NK, count_N)
        nll_N = -torch.logsumexp(log_NK, 1)
        given_NK = torch.exp(log_NK + nll_N[:, None])
        tail_NK = 0.5 * (self.dof + count_N[:, None]) * torch.log1p(square_NK / self.dof)
        # Fully seen, each axis has its own derivative; otherwise they share that of all at once.
        e_DN = torch.linalg.solve_triangular(self.factor_DD, y_ND.T, upper=False)
        part_e_NKD = ((e_DN.T.unsqueeze(1) - self.mean_NKD) * torch.exp(-self.log_scale_NKD)) ** 2
        share_NKD = (square_NK / count_N[:, None].clamp_min(1.0)).unsqueeze(2).expand_as(part_e_NKD)
        part_e_NKD = torch.where(seen_ND.all(1)[:, None, None], part_e_NKD, share_NKD)
        pull_NK = given_NK * (self.dof + count_N[:, None]) / (self.dof + square_NK)
        before_ND = (torch.exp(self.log_weight_NK).unsqueeze(2) * self.location_NKD()).sum(1)
        after_ND = (given_NK.unsqueeze(2) * given_NKD).sum(1)
        return Judgement(
            nll_N=nll_N,
            tail_N=(given_NK * tail_NK).sum(1),
            quadratic_ND=(given_NK.unsqueeze(2) * part_NKD).sum(1),
            expected_ND=torch.where(seen_ND, before_ND, after_ND),
            stretch_ND=1.0 - (pull_NK.unsqueeze(2) * part_e_NKD).sum(1),
        )

    def given(self, y_ND: Tensor, seen_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of every missing feature alone, given the seen ones: the components' weights [N, K], locations and
        scales [N, K, D], each a t with ν + c degrees of freedom where c features are seen (`draw_given`).

        The scale is the length of what a row of Σ_k's root has outside of the seen ones' span: no difference
        of squares, which would leave nothing of a thin axis.
        """
        square_NK, half_logdet_NK, count_N, _, location_NKD = self._marginal(y_ND, seen_ND)
        log_NK = self.log_weight_NK + self._log_t(square_NK, half_logdet_NK, count_N)
        root_NKDD = self.factor_DD * torch.exp(self.log_scale_NKD.double()).unsqueeze(2)
        tall_NKED = self._tall(root_NKDD, seen_ND.double().unsqueeze(1))
        D = root_NKDD.shape[3]
        basis_NKDD = torch.linalg.qr(tall_NKED).Q[:, :, :D]
        outside_NKDD = root_NKDD.mT - basis_NKDD @ (basis_NKDD.mT @ root_NKDD.mT)
        own_NKD = torch.linalg.vector_norm(outside_NKDD, dim=2)
        spread_NKD = torch.maximum(own_NKD, 1e-12 * self.spread_NKD())
        wider_NK = torch.sqrt((self.dof + square_NK) / (self.dof + count_N[:, None]))
        return torch.softmax(log_NK.double(), 1), location_NKD, wider_NK.unsqueeze(2) * spread_NKD

    def location_NKD(self) -> Tensor:
        """L μ_k."""
        return self.mean_NKD.double() @ self.factor_DD.T

    def spread_NKD(self) -> Tensor:
        """Scale of each feature alone, by component: the root of the diagonal of Σ_k."""
        return torch.sqrt(torch.exp(2.0 * self.log_scale_NKD.double()) @ (self.factor_DD**2).T)

    def draw(self, noise: np.random.Generator) -> Tensor:
        """One y from each of the N, [N, D]."""
        N, K, D = self.mean_NKD.shape
        device = self.mean_NKD.device
        uniform_N1 = torch.from_numpy(noise.random((N, 1))).to(device)
        normal_ND = torch.from_numpy(noise.standard_normal((N, D))).to(device)
        shared_N1 = torch.from_numpy(np.sqrt(self.dof / noise.chisquare(self.dof, (N, 1)))).to(device)
        # Rounding may leave the last sum below a uniform number that is almost one.
        chosen_N = (uniform_N1 > torch.exp(self.log_weight_NK.double()).cumsum(1)).sum(1).clamp_max(K - 1)
        n = torch.arange(N, device=device)
        scale_ND = torch.exp(self.log_scale_NKD[n, chosen_N].double())
        return (self.mean_NKD[n, chosen_N] + shared_N1 * scale_ND * normal_ND) @ self.factor_DD.T

    def draw_given(self, noise: np.random.Generator, y_ND: Tensor, seen_ND: Tensor) -> Tensor:
        """One y from each of the N given its seen part, [N, D]; what is not seen must be finite.

        The seen part gives the components their weights. Of one, with c seen features at the squared distance
        q, the missing part is a t with ν + c degrees of freedom around its conditional mean (Ding 2016, "On
        the conditional distribution of the multivariate t"). Its shape is that of a Gaussian draw less what
        the draw's own seen part explains of it (Journel & Huijbregts 1978, conditioning by kriging).
        """
        N, K, D = self.mean_NKD.shape
        square_NK, half_logdet_NK, count_N, _, given_NKD = self._marginal(y_ND, seen_ND)
        log_NK = self.log_weight_NK + self._log_t(square_NK, half_logdet_NK, count_N)
        weight_NK = torch.softmax(log_NK.double(), 1)
        device = y_ND.device
        uniform_N1 = torch.from_numpy(noise.random((N, 1))).to(device)
        normal_ND = torch.from_numpy(noise.standard_normal((N, D))).to(device)
        dof_N1 = self.dof + count_N.cpu().numpy()[:, None]
        square_N1 = torch.from_numpy(noise.chisquare(dof_N1, (N, 1))).to(device)
        chosen_N = (uniform_N1 > weight_NK.cumsum(1)).sum(1).clamp_max(K - 1)
        n = torch.arange(N, device=device)
        one = MixtureT(
            torch.zeros_like(self.log_weight_NK[:, :1]),
            self.mean_NKD[n, chosen_N].unsqueeze(1),
            self.log_scale_NKD[n, chosen_N].unsqueeze(1),
            self.factor_DD,
            self.dof,
        )
        gaussian_ND = (torch.exp(one.log_scale_NKD[:, 0].double()) * normal_ND) @ self.factor_DD.T
        location_ND = one.location_NKD()[:, 0]
        explained_ND = one._marginal(location_ND + gaussian_ND, seen_ND)[4][:, 0] - location_ND
        stretch_N1 = torch.sqrt((self.dof + square_NK[n, chosen_N].unsqueeze(1)) / square_N1)
        drawn_ND = given_NKD[n, chosen_N] + stretch_N1 * (gaussian_ND - explained_ND)
        return torch.where(seen_ND, y_ND, drawn_ND)

    def some(self, rows_N: Tensor) -> MixtureT:
        """Some of the N."""
        parts = (self.log_weight_NK[rows_N], self.mean_NKD[rows_N], self.log_scale_NKD[rows_N])
        return MixtureT(*parts, self.factor_DD, self.dof)

    def _log_t(self, square_NK: Tensor, half_logdet_NK: Tensor, count_N: Tensor) -> Tensor:
        """log t_ν of `count_N` features, from the squared Mahalanobis distance and ½ log det of the scale."""
        half_N1 = 0.5 * (self.dof + count_N[:, None])
        constant_N1 = torch.lgamma(half_N1) - 0.5 * count_N[:, None] * math.log(self.dof * math.pi)
        tail_NK = half_N1 * torch.log1p(square_NK / self.dof)
        return constant_N1 - math.lgamma(self.dof / 2) - half_logdet_NK - tail_NK

    def _marginal(self, y_ND: Tensor, seen_ND: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of each component's marginal over the seen features: squared Mahalanobis distance, ½ log det of the
        scale matrix, number of features; each feature's part of the distance; and the mean of every
        feature given the seen ones."""
        seen_N1D = seen_ND.double().unsqueeze(1)
        root_NKDD = self.factor_DD * torch.exp(self.log_scale_NKD.double()).unsqueeze(2)  # Σ_k = root rootᵀ
        upper_NKDD = torch.linalg.qr(self._tall(root_NKDD, seen_N1D)).R
        location_NKD = self.location_NKD()
        residual_NKD = (y_ND.unsqueeze(1) - location_NKD) * seen_N1D
        whitened_NKD1 = torch.linalg.solve_triangular(upper_NKDD.mT, residual_NKD.unsqueeze(3), upper=False)
        solved_NKD1 = torch.linalg.solve_triangular(upper_NKDD, whitened_NKD1, upper=True)
        solved_NKD = solved_NKD1.squeeze(3) * seen_N1D
        explained_NKD = (root_NKDD @ (root_NKDD.mT @ solved_NKD.unsqueeze(3))).squeeze(3)
        return (
            (whitened_NKD1**2).sum((2, 3)),
            torch.log(torch.abs(torch.diagonal(upper_NKDD, dim1=2, dim2=3))).sum(2),
            seen_N1D.sum((1, 2)),
            residual_NKD * solved_NKD,
            location_NKD + explained_NKD,
        )

    @staticmethod
    def _tall(root_NKDD: Tensor, seen_N1D: Tensor) -> Tensor:
        """A root of the seen part of Σ_k, transposed, [N, K, 2D, D]: a missing feature becomes an independent
        one of unit scale."""
        unit_DD = torch.eye(root_NKDD.shape[3], dtype=torch.float64, device=root_NKDD.device)
        missing_NKDD = ((1.0 - seen_N1D).unsqueeze(3) * unit_DD).expand_as(root_NKDD)
        return torch.cat([root_NKDD * seen_N1D.unsqueeze(3), missing_NKDD], 3).mT


@dataclass(frozen=True, slots=True)
class Judgement:
    """What N records are worth. `tail_N` is the part of `nll_N` that depends on where in the distribution the
    record lies, averaged over the components as the record weighs them; `quadratic_ND` sums to the squared
    Mahalanobis distance, averaged likewise. `stretch_ND` is the derivative of `nll_N` for the log scale of
    each axis, of all components alike. `expected_ND` is the mean of a seen feature before anything is seen,
    the conditional mean of a missing one."""

    nll_N: Tensor
    tail_N: Tensor
    quadratic_ND: Tensor
    expected_ND: Tensor
    stretch_ND: Tensor


class Quantiles:
    """Quantiles of mixtures of univariate t's with one number of degrees of freedom.

    With t = √ν tan a the distribution function is an integral of c cosᵛ⁻¹ a: a table, made once.
    """

    def __init__(self, dof: float) -> None:
        self._root = math.sqrt(dof)
        self._angle_G = np.linspace(-np.pi / 2, np.pi / 2, 4097)
        density_G = np.cos(self._angle_G[:-1] + np.diff(self._angle_G) / 2) ** (dof - 1)
        self._share_G = np.concatenate([[0.0], np.cumsum(density_G)]) / density_G.sum()

    def of(self, share: float, weight_K: Floats, location_KD: Floats, spread_KD: Floats) -> Floats:
        """The quantile of each feature, by bisection between the components' own, [D]."""
        unit = self._root * math.tan(float(np.interp(share, self._share_G, self._angle_G)))
        own_KD = location_KD + unit * spread_KD
        low_D, high_D = own_KD.min(0), own_KD.max(0)
        for _ in range(24):
            middle_D = 0.5 * (low_D + high_D)
            angle_KD = np.arctan((middle_D - location_KD) / spread_KD / self._root)
            below_D = weight_K @ np.interp(angle_KD, self._angle_G, self._share_G) < share
            low_D, high_D = np.where(below_D, middle_D, low_D), np.where(below_D, high_D, middle_D)
        return np.asarray(0.5 * (low_D + high_D))


@lru_cache(maxsize=64)
def quantiles(dof: float) -> Quantiles:
    """The table of so many degrees of freedom, kept: each number of missing features has its own."""
    return Quantiles(dof)
