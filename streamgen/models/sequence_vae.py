"""The network of `rvae`: a variational autoencoder of sequences, and its evidence lower bound.

    h_t = GRU(h_{t−1}, [u_t, d_t, m_t, c_t])                            encoder, h_0 = 0; Cho et al. 2014
    q(z | x) = N(ζ, diag τ²),   ζ, log τ = h_T W + w                    Kingma & Welling 2013
    p(x_1 | z) = mixture(a([z, c_1] F + f) G + g)                       of whitened levels
    g_1 = tanh(z V + v),   g_t = GRU(g_{t−1}, [u_{t−1}, d_{t−1}, m_{t−1}, c_t, z])                decoder
    p(x_t | z, x_<t) = mixture(a([g_t, u_{t−1}, d_{t−1}, z] A + b) O + o + skip)           of whitened steps
    skip: every mean moves by [u, d]_{t−1} S
    p'(x_t | z, x_<t) = joint([g_t, u_{t−1}, d_{t−1}, z])                                  of whole records

u is the whitened level of a record, d its whitened step from the record before (both asinh), m its mask, c
the time features, a the activation (tanh); mixtures are those of `mixture_t`. Of more GRU layers, W and A
read the last one's states. Where dense layers have a width of their own, a(h_T E + e) stands for h_T.
Sequence autoencoders with one latent a sequence: Fabius & van Amersfoort 2014, "Variational recurrent
auto-encoders"; a decoder that also sees the records before: Bowman et al. 2016, "Generating sentences from a
continuous space".

    loss = (−Σ_t [log p(x_t | z, x_<t) + log p'(x_t | z, x_<t)] + β Σ_j max(KL_j, λ)) / number of seen values

z = ζ + τ ε; p' is the density of `joint`, optional, of records of which no value is missing, and its sum may
be estimated from some of the steps (Robbins & Monro 1951). One network has both: p the marginals and
conditionals that scores need, p' the detail that draws need.
KL_j is the mean over the minibatch of KL(q(z_j | x) ‖ N(0, 1)), λ the free bits (Kingma et al. 2016).

Shapes: B windows of T records, D features, H hidden units of a layer (or the dense ones' own number, E), S of
all recurrent layers, Z latent dimensions, K mixture components, C time features, I = 3D + C inputs of a
record, G = 3H gates, O = K (1 + 2D) outputs, N = B (T − 1) steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.models.activation import ACTIVATIONS, Activation
from streamgen.models.flat import Shapes, flat_size, flat_views
from streamgen.models.gru import gru, gru_shapes
from streamgen.models.joint import Joint, Places
from streamgen.models.joint import shapes as joint_shapes
from streamgen.models.mixture_t import MixtureT, bounded


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one learner's network, its recurrent `layers`, and the `dense` ones' width (None: H) and
    activation."""

    D: int
    H: int
    Z: int
    K: int
    C: int
    layers: int = 1
    dense: int | None = None
    activation: Activation = "tanh"
    joint: int = 0

    @property
    def S(self) -> int:
        return self.layers * self.H

    @property
    def parameters(self) -> Shapes:
        """Where one is a matrix that multiplies from the right its inputs come first; torch's GRU has them
        last."""
        D, H, Z, K, C, S = self.D, self.H, self.Z, self.K, self.C, self.S
        O, E = K * (1 + 2 * D), self.dense or H  # noqa: E741
        dense = {"encode_HE": (H, E), "encode_bias_E": (E,)} if self.dense else {}
        whole = joint_shapes(H + 2 * D + Z, self.joint, D) if self.joint else {}
        return {
            **gru_shapes("encode", 3 * D + C, H, self.layers),
            **dense,
            "latent_H2Z": (E, 2 * Z),
            "latent_bias_2Z": (2 * Z,),
            "first_ZCH": (Z + C, E),
            "first_bias_H": (E,),
            "first_HO": (E, O),
            "first_bias_O": (O,),
            "begin_ZS": (Z, S),
            "begin_bias_S": (S,),
            **gru_shapes("decode", 3 * D + C + Z, H, self.layers),
            "head_FH": (H + 2 * D + Z, E),
            "head_bias_H": (E,),
            "out_HO": (E, O),
            "out_bias_O": (O,),
            "skip_2DD": (2 * D, D),
            **whole,
        }

    @property
    def size(self) -> int:
        """Length of the flat vector, P."""
        return flat_size(self.parameters)


@dataclass(frozen=True, slots=True)
class Whole:
    """Steps of which no value is missing, for the density of whole records: which of the N (M of them), where
    they begin, what they are; and the share of all steps that they were drawn from."""

    index_M: Tensor
    at: Places
    y_MD: Tensor
    share: float


@dataclass(frozen=True, slots=True)
class Windows:
    """B windows as the network sees them, float32; targets are float64, in units of levels (the first) and
    steps, zero where not seen. `hidden_BTI` are the encoder's inputs: the newest records may be hidden."""

    input_BTI: Tensor
    hidden_BTI: Tensor
    target_BTD: Tensor
    seen_BTD: Tensor
    whole: Whole | None = None


class SequenceVAE:
    """The network with one learner's weights, the axes of its levels and steps (`whitening`), and what is
    added to all log scales of steps (`stretch`; nothing while learning)."""

    def __init__(
        self, shape: Shape, flat_P: Tensor, level_DD: Tensor, step_DD: Tensor, dof: float,
        stretch_D: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.shape, self.dof, self._stretch_D = shape, dof, stretch_D
        self.w = flat_views(shape.parameters, flat_P)
        self._level_DD, self._step_DD = level_DD, step_DD
        self._activation = ACTIVATIONS[shape.activation]

    def encode(self, input_BTI: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale of q(z | x), both [B, Z]; of no record it is the prior."""
        B, T, _ = input_BTI.shape
        if T == 0:
            zero_BZ = input_BTI.new_zeros(B, self.shape.Z)
            return zero_BZ, zero_BZ
        state_BTS = gru(self.w, "encode", input_BTI, input_BTI.new_zeros(B, self.shape.S))
        hidden_BH = state_BTS[:, -1, -self.shape.H :]
        if self.shape.dense:
            hidden_BH = self._activation(hidden_BH @ self.w["encode_HE"] + self.w["encode_bias_E"])
        mean_BZ, scale_BZ = (hidden_BH @ self.w["latent_H2Z"] + self.w["latent_bias_2Z"]).chunk(2, dim=1)
        return mean_BZ, bounded(scale_BZ)

    def first(self, z_BZ: Tensor, time_BC: Tensor) -> MixtureT:
        """p(x_1 | z), over levels."""
        a_BH = self._activation(torch.cat([z_BZ, time_BC], 1) @ self.w["first_ZCH"] + self.w["first_bias_H"])
        out_BO = a_BH @ self.w["first_HO"] + self.w["first_bias_O"]
        return MixtureT.of(out_BO, self.shape.K, self._level_DD, self.dof)

    def begin(self, z_BZ: Tensor) -> Tensor:
        """g_1, [B, S]: the decoder before its first record; a GRU's states lie between ±1."""
        return torch.tanh(z_BZ @ self.w["begin_ZS"] + self.w["begin_bias_S"])

    def decode(self, z_BZ: Tensor, before_BTI: Tensor, time_BTC: Tensor, state_BS: Tensor) -> Tensor:
        """The decoder's states g before each of T records, [B, T, S]: `before_BTI` are the records before
        them, `time_BTC` the times of the records themselves, `state_BS` the state to start from."""
        T, record = before_BTI.shape[1], 3 * self.shape.D
        z_BTZ = z_BZ.unsqueeze(1).expand(-1, T, -1)
        input_BTI = torch.cat([before_BTI[:, :, :record], time_BTC, z_BTZ], 2)
        return gru(self.w, "decode", input_BTI, state_BS)

    def next(self, z_NZ: Tensor, before_NI: Tensor, state_NS: Tensor) -> MixtureT:
        """p(x_t | z, x_<t), over steps, given the decoder's state and the record before."""
        skip_N2D = before_NI[:, : 2 * self.shape.D]
        f_NF = torch.cat([state_NS[:, -self.shape.H :], skip_N2D, z_NZ], 1)
        a_NH = self._activation(f_NF @ self.w["head_FH"] + self.w["head_bias_H"])
        out_NO, shift_ND = a_NH @ self.w["out_HO"] + self.w["out_bias_O"], skip_N2D @ self.w["skip_2DD"]
        stretch_ND = None if self._stretch_D is None else self._stretch_D.expand_as(shift_ND)
        return MixtureT.of(out_NO, self.shape.K, self._step_DD, self.dof, shift_ND, stretch_ND)

    def joint(self, z_NZ: Tensor, before_NI: Tensor, state_NS: Tensor, at: Places) -> Joint:
        """p'(x_t | z, x_<t), over steps, of whole records."""
        parts = state_NS[:, -self.shape.H :], before_NI[:, : 2 * self.shape.D], z_NZ
        return Joint(self.w, torch.cat(parts, 1), at, self.dof)

    def loss(self, windows: Windows, noise_BZ: Tensor, kl_weight: float, free_bits: float) -> Tensor:
        """The negative evidence lower bound per seen value, nats; one draw of z a window."""
        mean_BZ, log_scale_BZ = self.encode(windows.hidden_BTI)
        z_BZ = mean_BZ + torch.exp(log_scale_BZ) * noise_BZ
        kl_BZ = 0.5 * (mean_BZ**2 + torch.exp(2.0 * log_scale_BZ) - 1.0) - log_scale_BZ
        steps = self._steps(windows, z_BZ)
        nll = self._nll(windows, z_BZ, steps).sum()
        if windows.whole is not None:
            some = windows.whole
            z_MZ, before_MI, state_MS = (part[some.index_M] for part in steps)
            nll = nll + self.joint(z_MZ, before_MI, state_MS, some.at).nll(some.y_MD).sum() / some.share
        free_kl = len(z_BZ) * torch.clamp_min(kl_BZ.mean(0), free_bits).sum()
        return (nll + kl_weight * free_kl) / windows.seen_BTD.sum().clamp_min(1)

    def log_weight(self, windows: Windows, noise_BZ: Tensor) -> Tensor:
        """log p(x, z) − log q(z | x) of each window at one draw z = ζ + τ ε, nats, [B], float64. Its mean is
        the evidence lower bound; see `likelihood.Bounds`."""
        mean_BZ, log_scale_BZ = self.encode(windows.hidden_BTI)
        z_BZ = mean_BZ + torch.exp(log_scale_BZ) * noise_BZ.to(mean_BZ.dtype)
        ratio_BZ = 0.5 * (noise_BZ**2 - z_BZ.double() ** 2) + log_scale_BZ
        return ratio_BZ.sum(1) - self.nll(windows, z_BZ)

    def nll(self, windows: Windows, z_BZ: Tensor) -> Tensor:
        """−log p(x | z) of each window, nats, [B]."""
        return self._nll(windows, z_BZ, self._steps(windows, z_BZ))

    def _nll(self, windows: Windows, z_BZ: Tensor, steps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        time_BC = windows.input_BTI[:, 0, 3 * self.shape.D :]
        first_B = self.first(z_BZ, time_BC).nll(windows.target_BTD[:, 0], windows.seen_BTD[:, 0])
        target_ND, seen_ND = (x_BTD[:, 1:].flatten(0, 1) for x_BTD in (windows.target_BTD, windows.seen_BTD))
        step_N = self.next(*steps).nll(target_ND, seen_ND)
        return first_B + step_N.view(len(z_BZ), windows.seen_BTD.shape[1] - 1).sum(1)  # also of no window

    def _steps(self, windows: Windows, z_BZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, the record before, and the decoder's state, of each of the N steps."""
        before_BTI, time_BTC = windows.input_BTI[:, :-1], windows.input_BTI[:, 1:, 3 * self.shape.D :]
        state_BTS = self.decode(z_BZ, before_BTI, time_BTC, self.begin(z_BZ))
        z_NZ = z_BZ.repeat_interleave(before_BTI.shape[1], 0)
        return z_NZ, before_BTI.flatten(0, 1), state_BTS.flatten(0, 1)
