"""The density of whole records, one feature after another, each going on from what it may go on from.

    p(y) = Π_d p(y_d | y_<d, c),   c what the network knows before the record
    p(y_d | y_<d, c) = Σ_a Σ_k π_dak t_ν(r_da; μ_dak, s_dak) / w_da

y is the step from the record before. A component of feature d sees it from one of four places a, in a unit w:

    hold      r = y_d                        it stays at its last value
    go on     r = y_d − last y_d             it moves as it last did
    follow    r = (y_d − Σ_j<d L_dj e_j) / L_dd = e_d         it moves with the features before it, e = L⁻¹ y
    return    r = (y_d − home_d) / W_d       it comes back to its usual level

so that a sensor that reports on change, a value that somebody interpolated, two columns that are equal, and
noise around a level each have a component that says so exactly; which one, and how, the network learns:

    a = tanh(c A + b([y, e]) (E ∘ M) + f),   a hidden unit sees c and the features before its own number
    π, μ, s of feature d from the units that see features before d alone

A masked autoencoder (MADE: Germain et al. 2015) with a mixture for each feature (RNADE: Uria et al. 2013); b
bounds to ±4. `mixture_t` has marginals and conditionals of any features in closed form, and one component
for all features at once. So whole records are drawn from this, and what needs those is answered by that.

Shapes: N records, F inputs, H hidden units, D features, A = 4 places, K components of each, J = 3AK, O = D J.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from streamgen.models.flat import Shapes

PLACES = 4
BOUND = 6.0  # of log scales: what stays where it is has a width of e⁻⁶ usual steps


def shapes(inputs: int, hidden: int, D: int, K: int) -> Shapes:
    """Its parameters, all from inputs to outputs."""
    return {
        "whole_FH": (inputs, hidden),
        "whole_2DH": (2 * D, hidden),
        "whole_bias_H": (hidden,),
        "whole_out_HO": (hidden, D * 3 * PLACES * K),
        "whole_out_bias_O": (D * 3 * PLACES * K,),
    }


@dataclass(frozen=True, slots=True)
class Places:
    """What N records go on from: their last steps, the steps back to the usual level, the unit of the latter
    [D], and L, float64; all in units of steps."""

    last_ND: Tensor
    home_ND: Tensor
    wide_D: Tensor
    factor_DD: Tensor

    def of(self, rows_N: Tensor) -> Places:
        return replace(self, last_ND=self.last_ND[rows_N], home_ND=self.home_ND[rows_N])


class Autoregressive:
    """N distributions: the weights, the inputs that they come from, and the places."""

    def __init__(self, w: Mapping[str, Tensor], input_NF: Tensor, places: Places, dof: float) -> None:
        self.dof, self.places = dof, places
        D, H = places.factor_DD.shape[0], w["whole_FH"].shape[1]
        device = input_NF.device
        unit_H, feature_D = torch.arange(H, device=device) % D, torch.arange(D, device=device)
        sees_DH = feature_D[:, None] < unit_H  # unit h sees the features before it
        self._enter_2DH = w["whole_2DH"] * sees_DH.repeat(2, 1)
        tells_HD = unit_H[:, None] <= feature_D
        self._leave_HDJ = w["whole_out_HO"].view(H, D, -1) * tells_HD.unsqueeze(2)
        self._bias_DJ = w["whole_out_bias_O"].view(D, -1)
        self._known_NH = input_NF @ w["whole_FH"] + w["whole_bias_H"]

    def of(self, rows_N: Tensor) -> Autoregressive:
        """Some of them."""
        some = object.__new__(Autoregressive)
        some.__dict__.update(self.__dict__)
        some._known_NH, some.places = self._known_NH[rows_N], self.places.of(rows_N)
        return some

    def nll(self, y_ND: Tensor) -> Tensor:
        """−log p(y), nats, [N]; y is float64."""
        at = self.places
        e_ND = torch.linalg.solve_triangular(at.factor_DD, y_ND.T, upper=False).T
        seen_NDA = torch.stack([y_ND, y_ND - at.last_ND, e_ND, (y_ND - at.home_ND) / at.wide_D], 2).to(
            self._known_NH.dtype
        )
        zero_D = torch.zeros_like(at.wide_D)
        unit_DA = torch.stack(
            [zero_D, zero_D, torch.log(torch.diagonal(at.factor_DD)), torch.log(at.wide_D)], 1
        )
        before_N2D = _bounded(torch.cat([y_ND, e_ND], 1)).to(seen_NDA.dtype)
        hidden_NH = torch.tanh(self._known_NH + before_N2D @ self._enter_2DH)
        N, D = y_ND.shape
        out_NDJ = (hidden_NH @ self._leave_HDJ.flatten(1)).view(N, D, -1) + self._bias_DJ
        log_weight, mean, log_scale = _parts(out_NDJ)
        square = ((seen_NDA.unsqueeze(3) - mean) * torch.exp(-log_scale)) ** 2
        half = 0.5 * (self.dof + 1)
        constant = math.lgamma(half) - math.lgamma(self.dof / 2) - 0.5 * math.log(self.dof * math.pi)
        log_NDAK = log_weight - log_scale - half * torch.log1p(square / self.dof)
        log_NDAK = log_NDAK - unit_DA.to(log_NDAK.dtype).unsqueeze(2)
        return -(torch.logsumexp(log_NDAK.flatten(2), 2) + constant).sum(1)

    def draw(self, noise: np.random.Generator) -> Tensor:
        """One y from each of the N, float64 [N, D]."""
        at, device = self.places, self._known_NH.device
        N, D = at.last_ND.shape
        uniform_DN1 = torch.from_numpy(noise.random((D, N, 1))).to(device)
        t_DN = torch.from_numpy(noise.standard_t(self.dof, (D, N))).to(device)
        y_ND, e_ND = torch.zeros_like(at.last_ND), torch.zeros_like(at.last_ND)
        hidden_NH, n, zero_N = (
            self._known_NH,
            torch.arange(N, device=device),
            torch.zeros_like(at.last_ND[:, 0]),
        )
        for d in range(D):
            out_N1J = (torch.tanh(hidden_NH) @ self._leave_HDJ[:, d] + self._bias_DJ[d]).unsqueeze(1)
            log_weight, mean, log_scale = (x.flatten(1).double() for x in _parts(out_N1J))
            K = log_weight.shape[1] // PLACES
            chosen_N = (uniform_DN1[d] > torch.exp(log_weight).cumsum(1)).sum(1).clamp_max(PLACES * K - 1)
            r_N = mean[n, chosen_N] + torch.exp(log_scale[n, chosen_N]) * t_DN[d]
            follow_N = e_ND[:, :d] @ at.factor_DD[d, :d]
            from_NA = torch.stack([zero_N, at.last_ND[:, d], follow_N, at.home_ND[:, d]], 1)
            one = torch.ones_like(at.wide_D[d])
            unit_A = torch.stack([one, one, at.factor_DD[d, d], at.wide_D[d]])
            place_N = chosen_N // K
            y_ND[:, d] = from_NA[n, place_N] + unit_A[place_N] * r_N
            e_ND[:, d] = (y_ND[:, d] - follow_N) / at.factor_DD[d, d]
            known_N2 = _bounded(torch.stack([y_ND[:, d], e_ND[:, d]], 1)).to(hidden_NH.dtype)
            hidden_NH = hidden_NH + known_N2 @ self._enter_2DH[[d, D + d]]
        return y_ND


def _bounded(x: Tensor) -> Tensor:
    return 4.0 * torch.tanh(x / 4.0)


def _parts(out_NDJ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights, means and log scales, each [N, D, A, K]."""
    N, D, J = out_NDJ.shape
    logit, mean, scale = out_NDJ.chunk(3, 2)
    shape = (N, D, PLACES, J // (3 * PLACES))
    log_scale = BOUND * torch.tanh(scale / BOUND)
    return torch.log_softmax(logit, 2).view(shape), mean.reshape(shape), log_scale.reshape(shape)
