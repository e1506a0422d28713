"""The density of whole records, one feature after another, each beginning where it may begin.

    p(y) = Π_d p(y_d | y_<d, c),   c what the network knows before the record
    p(y_d | y_<d, c) = Σ_ak π_dak t_ν((r_da − μ_dak) / s_dak) / (s_dak w_da)

y is the step from the record before, in usual steps. A component looks at feature d from one of seven places:

    | | r_da | w_da | |
    |---|---|---|---|
    | hold | y_d | 1 | it stays at its last value |
    | go on | y_d − last_d | 1 | it moves as it moved last |
    | follow | e_d = (L⁻¹ y)_d | L_dd | it moves as the features before it do |
    | return | v_d = (y_d − home_d) / W_d | W_d | it comes to its usual value |
    | agree | (Λ⁻¹ v)_d | W_d Λ_dd | it comes to the level that those before it tell |
    | grow | y_d / g_d | g_d | it moves by a share of itself |
    | approach | y_d / f_d | f_d, in size | it moves by a share of the way to its usual value |

L is the Cholesky factor of the steps, Λ that of the levels (`axes`), home the value that a feature has most
often (`often`) or, where it has none, its mean, f = home, no nearer than a thousandth, g the last value's
size against the usual one. A sensor that reports when something changes, one that rests, a value that
somebody interpolated, one that comes to rest in equal steps, columns that are equal, noise around a level, a
largest price of a day, a volume whose steps are in proportion to it: each has a component that says so
exactly. Which one, and what is added, the network learns, c being its inputs and `Places.known`:

    a = tanh(c A + asinh([y, L⁻¹ y, Λ⁻¹ v]) (E ∘ M) + b)       a unit sees c and the features before its own
    π, log s, μ of feature d from the units that see none but features before d

The units see from none to all features before the last, evenly, and a quarter more of them sees c alone, or
the first features would have hardly any.

A masked autoencoder (MADE: Germain et al. 2015) with a mixture for each feature (RNADE: Uria et al. 2013).
`mixture_t` has every marginal and conditional in closed form and one component for all features at once: what
is scored, imputed or given in part comes from that, and whole records are drawn from this.

Shapes: N records, F inputs, H hidden units, D features, A = 7 places, K components of each, C = AK, O = 3CD.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from streamgen.models.flat import Shapes

PLACES = 7
COMPONENTS = 2  # of each place
CLOSE = 64.0
SHORTEST = 1e-3  # way to a usual value, in usual steps
BOUND = 6.0  # of log scales: what stays where it is may be as narrow as e⁻⁶ of its place's unit


def shapes(inputs: int, hidden: int, D: int) -> Shapes:
    """Its parameters, all with the inputs first; `inputs` are those beside the places."""
    return {
        "joint_FH": (inputs + 6 * D, hidden),
        "joint_3DH": (3 * D, hidden),
        "joint_bias_H": (hidden,),
        "joint_HO": (hidden, 3 * PLACES * COMPONENTS * D),
        "joint_bias_O": (3 * PLACES * COMPONENTS * D,),
    }


@dataclass(frozen=True, slots=True)
class Places:
    """Where N records begin, float64, in usual steps: their last steps, the steps to the usual levels, the
    sizes g, the unit of levels W, and the factors L and Λ."""

    last_ND: Tensor
    home_ND: Tensor
    size_ND: Tensor
    wide_D: Tensor
    step_DD: Tensor
    level_DD: Tensor

    def known(self) -> Tensor:
        """[N, 6D] what a network sees of them: the last step, the way home, and what would be left of it
        after one more such step. Whether a feature rests, is at its usual value or comes there next is
        whether one of them is nothing, so they are seen closely, too."""
        way_N3D = torch.cat([self.last_ND, self.home_ND, self.home_ND - self.last_ND], 1)
        return torch.cat([torch.asinh(way_N3D), torch.asinh(CLOSE * way_N3D) / 4.0], 1)

    def seen(self, y_ND: Tensor) -> tuple[Tensor, Tensor]:
        """r and log w, both [N, A, D]."""
        v_ND = (y_ND - self.home_ND) / self.wide_D
        e_ND = torch.linalg.solve_triangular(self.step_DD, y_ND.T, upper=False).T
        agree_ND = torch.linalg.solve_triangular(self.level_DD, v_ND.T, upper=False).T
        share_ND, way_ND = y_ND / self.size_ND, y_ND / self._way()
        r_NAD = torch.stack([y_ND, y_ND - self.last_ND, e_ND, v_ND, agree_ND, share_ND, way_ND], 1)
        return r_NAD, torch.log(self.units().abs())

    def units(self) -> Tensor:
        """w, [N, A, D], with the sign of the way that it is a share of."""
        one_ND = torch.ones_like(self.size_ND)
        step_D, level_D = torch.diagonal(self.step_DD), torch.diagonal(self.level_DD)
        fixed = (step_D, self.wide_D, self.wide_D * level_D)
        places = [one_ND, one_ND, *(one_D * one_ND for one_D in fixed), self.size_ND, self._way()]
        return torch.stack(places, 1)

    def _way(self) -> Tensor:
        return torch.where(self.home_ND.abs() < SHORTEST, SHORTEST, self.home_ND)


class Joint:
    """N distributions: one learner's weights, what is known before each record, and the places."""

    def __init__(self, w: Mapping[str, Tensor], known_NF: Tensor, at: Places, dof: float) -> None:
        self.dof, self.at = dof, at
        D, H = len(at.wide_D), w["joint_FH"].shape[1]
        # Of a quarter of the units 0, of the others from 0 to D − 1.
        unit_H = (torch.arange(H, device=known_NF.device) - H // 4).clamp_min(0) * D // (H - H // 4)
        feature_D = torch.arange(D, device=known_NF.device)
        # A unit sees the features before its number, and tells of that one and later ones.
        self._enter_3DH = w["joint_3DH"] * (feature_D[:, None] < unit_H).repeat(3, 1)
        self._leave_HCD = w["joint_HO"].view(H, -1, D) * (unit_H[:, None] <= feature_D).unsqueeze(1)
        self._bias_CD = w["joint_bias_O"].view(-1, D)
        known_NF = torch.cat([known_NF, at.known().to(known_NF.dtype)], 1)
        self._known_NH = known_NF @ w["joint_FH"] + w["joint_bias_H"]

    def some(self, rows_N: Tensor) -> Joint:
        """Some of the N."""
        some = object.__new__(Joint)
        some.__dict__.update(self.__dict__)
        some._known_NH = self._known_NH[rows_N]
        at = self.at
        some.at = replace(
            at, last_ND=at.last_ND[rows_N], home_ND=at.home_ND[rows_N], size_ND=at.size_ND[rows_N]
        )
        return some

    def nll(self, y_ND: Tensor) -> Tensor:
        """−log p(y), nats, [N]."""
        r_NAD, log_unit_NAD = self.at.seen(y_ND)
        r_NAD = r_NAD.to(self._known_NH.dtype)
        before_N3D = torch.asinh(r_NAD[:, (0, 2, 4)]).flatten(1)
        hidden_NH = torch.tanh(self._known_NH + before_N3D @ self._enter_3DH)
        out_NO = torch.addmm(self._bias_CD.flatten(), hidden_NH, self._leave_HCD.flatten(1))
        out_NCD = out_NO.view(len(y_ND), len(self._bias_CD), y_ND.shape[1])
        logit_NCD, mean_NCD, log_scale_NCD = _parts(out_NCD)
        square_NCD = ((r_NAD.repeat_interleave(COMPONENTS, 1) - mean_NCD) * torch.exp(-log_scale_NCD)) ** 2
        half = 0.5 * (self.dof + 1)
        constant = math.lgamma(half) - math.lgamma(self.dof / 2) - 0.5 * math.log(self.dof * math.pi)
        log_NCD = logit_NCD - log_scale_NCD - half * torch.log1p(square_NCD / self.dof)
        log_NCD = log_NCD - log_unit_NAD.to(r_NAD.dtype).repeat_interleave(COMPONENTS, 1)
        nll_ND = torch.logsumexp(logit_NCD, 1) - torch.logsumexp(log_NCD, 1) - constant
        return nll_ND.sum(1)

    def draw(self, noise: np.random.Generator) -> Tensor:
        """One y from each of the N, float64 [N, D]."""
        at, (N, D) = self.at, self.at.last_ND.shape
        device = self._known_NH.device
        uniform_DN1 = torch.from_numpy(noise.random((D, N, 1))).to(device)
        t_DN = torch.from_numpy(noise.standard_t(self.dof, (D, N))).to(device)
        y_ND, e_ND, agree_ND = (torch.zeros_like(at.last_ND) for _ in range(3))
        hidden_NH, n, unit_NAD = self._known_NH, torch.arange(N, device=device), at.units()
        for d in range(D):
            out_NC = torch.tanh(hidden_NH) @ self._leave_HCD[:, :, d] + self._bias_CD[:, d]
            logit_NC, mean, log_scale = (part.double() for part in _parts(out_NC))
            weight_NC = torch.softmax(logit_NC, 1)
            # Rounding may leave the last sum below a uniform number that is almost one.
            last = PLACES * COMPONENTS - 1
            chosen_N = (uniform_DN1[d] > weight_NC.cumsum(1)).sum(1).clamp_max(last)
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
                    torch.zeros_like(home_N),
                    torch.zeros_like(home_N),
                ],
                1,
            )
            place_N = chosen_N // COMPONENTS
            y_ND[:, d] = y_N = begin_NA[n, place_N] + unit_NAD[n, place_N, d] * r_N
            e_ND[:, d] = (y_N - follow_N) / at.step_DD[d, d]
            agree_ND[:, d] = ((y_N - home_N) / at.wide_D[d] - told_N) / at.level_DD[d, d]
            known_N3 = torch.asinh(torch.stack([y_N, e_ND[:, d], agree_ND[:, d]], 1)).to(hidden_NH.dtype)
            hidden_NH = hidden_NH + known_N3 @ self._enter_3DH[[d, D + d, 2 * D + d]]
        return y_ND


def begin(w: Mapping[str, Tensor]) -> None:
    """What its components begin with, in place: scales from e⁻³ to e⁰·⁵ in each place, for equal ones would
    stay equal."""
    bias_3AKD = w["joint_bias_O"].view(3, PLACES, COMPONENTS, -1)
    bias_3AKD[2] += torch.linspace(-3.0, 0.5, COMPONENTS)[:, None]


def _parts(out_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, means and log scales, each [N, C, ...]."""
    logit_NC, mean_NC, scale_NC = out_NC.chunk(3, 1)
    return logit_NC, mean_NC, BOUND * torch.tanh(scale_NC / BOUND)
