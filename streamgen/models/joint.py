"""The density of whole records, one feature after another, each beginning where it may begin.

    p(y) = Π_d p(y_d | y_<d, c),   c what the network knows before the record
    p(y_d | y_<d, c) = Σ_ak π_dak t_ν((r_da − μ_dak) / s_dak) / (s_dak w_da)

y is the step from the record before, in usual steps. A component looks at feature d from one of five places:

    | | r_da | w_da | |
    |---|---|---|---|
    | hold | y_d | 1 | it stays at its last value |
    | go on | y_d − last_d | 1 | it moves as it moved last |
    | follow | e_d = (L⁻¹ y)_d | L_dd | it moves as the features before it do |
    | return | v_d = (y_d − home_d) / W_d | W_d | it comes to its usual level |
    | agree | (Λ⁻¹ v)_d | W_d Λ_dd | it comes to the level that those before it tell |

L is the Cholesky factor of the steps, Λ that of the levels (`axes`). A sensor that reports when something
changes, a value that somebody interpolated, columns that are equal, noise around a level, a largest price of
a day: each has a component that says so exactly. Which one, and what is added, the network learns:

    a = tanh(c A + asinh([y, L⁻¹ y, Λ⁻¹ v]) (E ∘ M) + f)       a unit sees c and the features before its own
    π, log s, μ of feature d from the units that see none but features before d

A masked autoencoder (MADE: Germain et al. 2015) with a mixture for each feature (RNADE: Uria et al. 2013).
`mixture_t` has every marginal and conditional in closed form and one component for all features at once: what
is scored, imputed or given in part comes from that, and whole records are drawn from this.

Shapes: N records, F inputs, H hidden units, D features, A = 5 places, K components of each, J = 3AK, O = D J.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from streamgen.models.flat import Shapes

PLACES = 5
COMPONENTS = 3  # of each place
BOUND = 6.0  # of log scales: what stays where it is may be as narrow as e⁻⁶ of its place's unit


def shapes(inputs: int, hidden: int, D: int) -> Shapes:
    """Its parameters, all with the inputs first."""
    return {
        "joint_FH": (inputs, hidden),
        "joint_3DH": (3 * D, hidden),
        "joint_bias_H": (hidden,),
        "joint_HO": (hidden, D * 3 * PLACES * COMPONENTS),
        "joint_bias_O": (D * 3 * PLACES * COMPONENTS,),
    }


@dataclass(frozen=True, slots=True)
class Places:
    """Where N records begin, float64, in usual steps: their last steps, the steps to the usual levels, the
    unit of levels W, and the factors L and Λ."""

    last_ND: Tensor
    home_ND: Tensor
    wide_D: Tensor
    step_DD: Tensor
    level_DD: Tensor

    def seen(self, y_ND: Tensor) -> tuple[Tensor, Tensor]:
        """r, [N, D, A], and log w, [D, A]."""
        v_ND = (y_ND - self.home_ND) / self.wide_D
        e_ND = torch.linalg.solve_triangular(self.step_DD, y_ND.T, upper=False).T
        agree_ND = torch.linalg.solve_triangular(self.level_DD, v_ND.T, upper=False).T
        r_NDA = torch.stack([y_ND, y_ND - self.last_ND, e_ND, v_ND, agree_ND], 2)
        return r_NDA, torch.log(torch.stack([self.unit(d) for d in range(len(self.wide_D))]))

    def unit(self, d: int) -> Tensor:
        """w of feature d, [A]."""
        one, wide = torch.ones_like(self.wide_D[d]), self.wide_D[d]
        return torch.stack([one, one, self.step_DD[d, d], wide, wide * self.level_DD[d, d]])


class Joint:
    """N distributions: one learner's weights, what is known before each record, and the places."""

    def __init__(self, w: Mapping[str, Tensor], known_NF: Tensor, at: Places, dof: float) -> None:
        self.dof, self.at = dof, at
        D, H = len(at.wide_D), w["joint_FH"].shape[1]
        unit_H = torch.arange(H, device=known_NF.device) % D
        feature_D = torch.arange(D, device=known_NF.device)
        # Unit h sees the features before number h mod D, and tells of that one and later ones.
        self._enter_3DH = w["joint_3DH"] * (feature_D[:, None] < unit_H).repeat(3, 1)
        self._leave_HDJ = w["joint_HO"].view(H, D, -1) * (unit_H[:, None] <= feature_D).unsqueeze(2)
        self._bias_DJ = w["joint_bias_O"].view(D, -1)
        self._known_NH = known_NF @ w["joint_FH"] + w["joint_bias_H"]

    def some(self, rows_N: Tensor) -> Joint:
        """Some of the N."""
        some = object.__new__(Joint)
        some.__dict__.update(self.__dict__)
        some._known_NH = self._known_NH[rows_N]
        some.at = replace(self.at, last_ND=self.at.last_ND[rows_N], home_ND=self.at.home_ND[rows_N])
        return some

    def nll(self, y_ND: Tensor) -> Tensor:
        """−log p(y), nats, [N]."""
        r_NDA, log_unit_DA = self.at.seen(y_ND)
        kind = self._known_NH.dtype
        before_N3D = torch.asinh(torch.cat([r_NDA[:, :, 0], r_NDA[:, :, 2], r_NDA[:, :, 4]], 1)).to(kind)
        hidden_NH = torch.tanh(self._known_NH + before_N3D @ self._enter_3DH)
        out_NDJ = (hidden_NH @ self._leave_HDJ.flatten(1)).view(*y_ND.shape, -1) + self._bias_DJ
        log_weight, mean, log_scale = _parts(out_NDJ)
        square = ((r_NDA.to(kind).unsqueeze(3) - mean) * torch.exp(-log_scale)) ** 2
        half = 0.5 * (self.dof + 1)
        constant = math.lgamma(half) - math.lgamma(self.dof / 2) - 0.5 * math.log(self.dof * math.pi)
        log_NDAK = log_weight - log_scale - half * torch.log1p(square / self.dof)
        log_NDAK = log_NDAK - log_unit_DA.to(kind).unsqueeze(2)
        return -(torch.logsumexp(log_NDAK.flatten(2), 2) + constant).sum(1)

    def draw(self, noise: np.random.Generator) -> Tensor:
        """One y from each of the N, float64 [N, D]."""
        at, (N, D) = self.at, self.at.last_ND.shape
        device = self._known_NH.device
        uniform_DN1 = torch.from_numpy(noise.random((D, N, 1))).to(device)
        t_DN = torch.from_numpy(noise.standard_t(self.dof, (D, N))).to(device)
        y_ND, e_ND, agree_ND = (torch.zeros_like(at.last_ND) for _ in range(3))
        hidden_NH, n = self._known_NH, torch.arange(N, device=device)
        for d in range(D):
            out_N1J = (torch.tanh(hidden_NH) @ self._leave_HDJ[:, d] + self._bias_DJ[d]).unsqueeze(1)
            log_weight, mean, log_scale = (part.flatten(1).double() for part in _parts(out_N1J))
            # Rounding may leave the last sum below a uniform number that is almost one.
            last = PLACES * COMPONENTS - 1
            chosen_N = (uniform_DN1[d] > torch.exp(log_weight).cumsum(1)).sum(1).clamp_max(last)
            r_N = mean[n, chosen_N] + torch.exp(log_scale[n, chosen_N]) * t_DN[d]
            follow_N = e_ND[:, :d] @ at.step_DD[d, :d]
            told_N = agree_ND[:, :d] @ at.level_DD[d, :d]
            home_N = at.home_ND[:, d]
            begin_NA = torch.stack(
                [
                    torch.zeros_like(home_N),
                    at.last_ND[:, d],
                    follow_N,
                    home_N,
                    home_N + at.wide_D[d] * told_N,
                ],
                1,
            )
            place_N = chosen_N // COMPONENTS
            y_ND[:, d] = y_N = begin_NA[n, place_N] + at.unit(d)[place_N] * r_N
            e_ND[:, d] = (y_N - follow_N) / at.step_DD[d, d]
            agree_ND[:, d] = ((y_N - home_N) / at.wide_D[d] - told_N) / at.level_DD[d, d]
            known_N3 = torch.asinh(torch.stack([y_N, e_ND[:, d], agree_ND[:, d]], 1)).to(hidden_NH.dtype)
            hidden_NH = hidden_NH + known_N3 @ self._enter_3DH[[d, D + d, 2 * D + d]]
        return y_ND


def begin(w: Mapping[str, Tensor]) -> None:
    """What its components begin with, in place: scales from e⁻³ to e⁰·⁵ in each place, for equal ones would
    stay equal."""
    bias_ZAK = w["joint_bias_O"].view(-1, 3, PLACES, COMPONENTS)
    bias_ZAK[:, 2] += torch.linspace(-3.0, 0.5, COMPONENTS)


def _parts(out_NDJ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights, means and log scales, each [N, D, A, K]."""
    shape = (*out_NDJ.shape[:2], PLACES, COMPONENTS)
    logit, mean, scale = out_NDJ.chunk(3, 2)
    log_scale = BOUND * torch.tanh(scale / BOUND)
    return torch.log_softmax(logit, 2).view(shape), mean.reshape(shape), log_scale.reshape(shape)
