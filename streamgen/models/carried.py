"""The network of `stream_ae` at full quality: a recurrent state that is carried on, and a mixture of steps.

    h_t = GRU(h_{t−1}, [u_t, d_t, m_t, r_t, c_t])                          Cho et al. 2014
    a_t = a([h_{t−1}, u_{t−1}, d_{t−1}, r_{t−1}, c_t] A + b)               what is known before x_t is seen
    π_t, μ_tk, log s_tk = a_t O + o,   μ_tk += [u, d]_{t−1} S,   log s_tk += r_{t−1} R
    p(k_t | h) = π_tk                                                      the latent's prior
    p(y_t | k_t, h) = t_ν(y_t; L μ_tk, L diag(s_tk²) Lᵀ)                   y_t = (x_t − x_{t−1}) / δ

u is the whitened level of a record, d its whitened step (both bounded), m its mask, c the time features, L
the Cholesky factor of the steps (`axes`), a the activation (tanh). Of more GRU layers all states are carried,
and A reads the last one's. The latent is discrete: which of K kinds of step comes next. Its
prior is conditioned on the carried state (Chung et al. 2015), its posterior is exact, and so is the one-step
predictive likelihood, the sum over k (`mixture_t`).

r = log(swing / δ) says how large the recent steps are against the usual ones. It moves all log scales by a
learned matrix, so that spreads follow a stream whose steps grow or come in bursts, also beyond what was seen
(logarithms: Nelson 1991, "Conditional heteroskedasticity in asset returns").

Shapes: B windows of T records, D features, H hidden units of a layer (or the dense one's own number, E), S of
all recurrent layers, K mixture components, C time features, I = 4D + C inputs of a record, O = K (1 + 2D)
outputs, F = H + 3D + C, N steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.models.activation import ACTIVATIONS, Activation
from streamgen.models.flat import Shapes, flat_size, flat_views
from streamgen.models.gru import gru, gru_shapes
from streamgen.models.mixture_t import MixtureT


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one learner's network, its recurrent `layers`, and the `dense` one's width (None: H) and
    activation."""

    D: int
    H: int
    K: int
    C: int
    layers: int = 1
    dense: int | None = None
    activation: Activation = "tanh"

    @property
    def S(self) -> int:
        return self.layers * self.H

    @property
    def parameters(self) -> Shapes:
        """Of `gru`, and matrices that multiply from the right, inputs first."""
        D, H, K, C = self.D, self.H, self.K, self.C
        O, E = K * (1 + 2 * D), self.dense or H  # noqa: E741
        return {
            **gru_shapes("carry", 4 * D + C, H, self.layers),
            "head_FH": (H + 3 * D + C, E),
            "head_bias_H": (E,),
            "out_HO": (E, O),
            "out_bias_O": (O,),
            "skip_2DD": (2 * D, D),
            "skip_swing_DD": (D, D),
        }

    @property
    def size(self) -> int:
        """Length of the flat vector, P."""
        return flat_size(self.parameters)


class Carried:
    """The network with one learner's weights, the axes of its steps (`whitening`), and what is added to all
    log scales (`stretch`; nothing while learning)."""

    def __init__(
        self, shape: Shape, flat_P: Tensor, step_DD: Tensor, dof: float, stretch_D: Tensor | None = None
    ) -> None:
        self.shape, self.dof, self._stretch_D = shape, dof, stretch_D
        self.w = flat_views(shape.parameters, flat_P)
        self._step_DD = step_DD
        self._activation = ACTIVATIONS[shape.activation]

    def carry(self, input_BTI: Tensor, state_BS: Tensor) -> Tensor:
        """The states after each of T records, [B, T, S]."""
        return gru(self.w, "carry", input_BTI, state_BS)

    def next(self, state_NS: Tensor, before_NI: Tensor, time_NC: Tensor) -> MixtureT:
        """p(y_t | h_{t−1}) from the state and record before it, and its own time."""
        D = self.shape.D
        skip_N2D, swing_ND = before_NI[:, : 2 * D], before_NI[:, 3 * D : 4 * D]
        f_NF = torch.cat([state_NS[:, -self.shape.H :], skip_N2D, swing_ND, time_NC], 1)
        a_NH = self._activation(f_NF @ self.w["head_FH"] + self.w["head_bias_H"])
        out_NO, shift_ND = a_NH @ self.w["out_HO"] + self.w["out_bias_O"], skip_N2D @ self.w["skip_2DD"]
        stretch_ND = swing_ND @ self.w["skip_swing_DD"]
        if self._stretch_D is not None:
            stretch_ND = stretch_ND + self._stretch_D
        return MixtureT.of(out_NO, self.shape.K, self._step_DD, self.dof, shift_ND, stretch_ND)

    def loss(self, state_BS: Tensor, input_BTI: Tensor, target_BTD: Tensor, seen_BTD: Tensor) -> Tensor:
        """Mean nll per seen value, nats, of the records that follow the first of each window; `state_BS` is
        the state after that first one."""
        states_BTS = torch.cat([state_BS.unsqueeze(1), self.carry(input_BTI[:, 1:-1], state_BS)], 1)
        time_BTC = input_BTI[:, 1:, 4 * self.shape.D :]
        mixture = self.next(states_BTS.flatten(0, 1), input_BTI[:, :-1].flatten(0, 1), time_BTC.flatten(0, 1))
        seen_ND = seen_BTD[:, 1:].flatten(0, 1)
        return mixture.nll(target_BTD[:, 1:].flatten(0, 1), seen_ND).sum() / seen_ND.sum().clamp_min(1)
