"""The network of `stream_ae`: a recurrent state, and before each record a Student-t of factor analysis.

    f_t = [h_{t-1}, u_{t-1}, d_{t-1}, c_t]                  what is known before x_t is seen
    a_t = a(f_t A + b)
    μ_t, log σ_t, m_t, log s_t = a_t O + o                  direct mean, noise, prior of the latent
    p(z_t | h) = N(m_t, diag s_t²)                          the latent's prior, conditioned on the state
    p(x_t | z_t, h): y_t = μ_t + [u, d]_{t-1} S + L z_t + σ_t ε          y_t = (x_t − x_{t-1}) / δ
    h_t = GRU(h_{t-1}, [u_t, d_t, mask_t, c_t])             Cho et al. 2014

u is the level and d the increment in units of running scales (`units`), c the time features, a the activation
(tanh). Of more GRU layers each reads the one below, and f the last one's state. Latent and noise share one
Student-t scale (ν degrees of freedom), so that the one-step predictive distribution and the encoder
p(z_t | x_t, h) are in closed form (`factor_t`): no sample is needed for the likelihood, and a missing value
is marginalised exactly.

Recurrent latent models with a conditional prior: Chung et al. 2015, "A recurrent latent variable model for
sequential data".

Shapes: B steps whose distributions are computed in one call, T steps of a window, D features, H hidden units
of a layer (or the dense one's own number, E), S of all recurrent layers, K latent dimensions, C time
features, I = 3D + C inputs of a record, G = 3H gates, F = H + 2D + C, O = 2D + 2K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamgen.models.activation import ACTIVATIONS, Activation
from streamgen.models.factor_t import Predictive, likelihood
from streamgen.models.flat import flat_size, flat_views
from streamgen.models.gru import layer_name


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one learner's network and where each parameter lies in its flat vector."""

    D: int
    H: int
    K: int
    C: int
    layers: int = 1
    dense: int | None = None

    @property
    def S(self) -> int:
        return self.layers * self.H

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        D, H, K, C, E = self.D, self.H, self.K, self.C, self.dense or self.H
        recurrent: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            one = layer_name("gru", layer)
            recurrent |= {
                f"{one}_input_IG": (3 * D + C if layer == 0 else H, 3 * H),
                f"{one}_hidden_HG": (H, 3 * H),
                f"{one}_bias_G": (3 * H,),
                f"{one}_hidden_bias_H": (H,),  # of the candidate, inside the reset gate
            }
        return recurrent | {
            "head_FH": (H + 2 * D + C, E),
            "head_bias_H": (E,),
            "out_HO": (E, 2 * D + 2 * K),
            "out_bias_O": (2 * D + 2 * K,),
            "skip_2DD": (2 * D, D),
            "loading_KD": (K, D),
        }

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return flat_size(self.parameters)

    def views(self, flat_P: Tensor) -> dict[str, Tensor]:
        """The parameters by name, as views of the flat vector."""
        return flat_views(self.parameters, flat_P)


def step_gru(w: dict[str, Tensor], hidden_1H: Tensor, input_1G: Tensor, layer: str = "gru") -> Tensor:
    """One step of one layer; `input_1G` is already multiplied by the input weights and has their bias."""
    H = hidden_1H.shape[1]
    gates_1G = hidden_1H @ w[f"{layer}_hidden_HG"]
    reset_update = torch.sigmoid(input_1G[:, : 2 * H] + gates_1G[:, : 2 * H])
    candidate_1H = torch.tanh(
        input_1G[:, 2 * H :] + reset_update[:, :H] * (gates_1G[:, 2 * H :] + w[f"{layer}_hidden_bias_H"])
    )
    return torch.lerp(candidate_1H, hidden_1H, reset_update[:, H:])


def carry(w: dict[str, Tensor], hidden_BS: Tensor, input_BI: Tensor) -> Tensor:
    """The states of all layers after one record."""
    parts = []
    for layer, hidden_BH in enumerate(torch.split(hidden_BS, w["gru_hidden_HG"].shape[0], 1)):
        one = layer_name("gru", layer)
        input_BI = step_gru(w, hidden_BH, input_BI @ w[f"{one}_input_IG"] + w[f"{one}_bias_G"], one)
        parts.append(input_BI)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def predict(
    w: dict[str, Tensor], hidden_BS: Tensor, skip_B2D: Tensor, time_BC: Tensor, dof: float,
    activation: Activation,
) -> Predictive:  # fmt: skip
    """The predictive distribution of B steps from what is known before each."""
    K, D = w["loading_KD"].shape
    known_BF = torch.cat([hidden_BS[:, -w["gru_hidden_HG"].shape[0] :], skip_B2D, time_BC], 1)
    sum_BE = known_BF @ w["head_FH"] + w["head_bias_H"]
    out_BO = ACTIVATIONS[activation](sum_BE) @ w["out_HO"] + w["out_bias_O"]
    mean_BD, noise_BD, prior_BK, latent_BK = torch.split(out_BO, [D, D, K, K], dim=1)
    mean_BD = mean_BD + skip_B2D @ w["skip_2DD"] + prior_BK @ w["loading_KD"]
    # Between e^-3 and e^3 of a usual step: what is off by less than a twentieth of a step is no news, however
    # exactly a stream can be predicted.
    noise_BD, latent_BK = 3.0 * torch.tanh(noise_BD / 3.0), 3.0 * torch.tanh(latent_BK / 3.0)
    return Predictive(mean_BD, noise_BD, latent_BK, w["loading_KD"], dof)


def window_loss(
    w: dict[str, Tensor], hidden_1S: Tensor, skip_T2D: Tensor, input_TI: Tensor, target_TD: Tensor,
    seen_TD: Tensor, dof: float, activation: Activation = "tanh",
) -> Tensor:  # fmt: skip
    """Mean nll per seen value, in nats, of a window whose carried state was `hidden_1S` before it."""
    time_TC = input_TI[:, 3 * target_TD.shape[1] :]
    hidden_TH, below_TI = hidden_1S, input_TI
    for layer, state_1H in enumerate(torch.split(hidden_1S, w["gru_hidden_HG"].shape[0], 1)):
        one = layer_name("gru", layer)
        input_TG = below_TI @ w[f"{one}_input_IG"] + w[f"{one}_bias_G"]
        hidden = [state_1H]
        for t in range(input_TI.shape[0] - 1):
            hidden.append(step_gru(w, hidden[-1], input_TG[t : t + 1], one))
        hidden_TH = torch.cat(hidden)
        below_TI = hidden_TH[1:]
    scored = likelihood(predict(w, hidden_TH, skip_T2D, time_TC, dof, activation), target_TD, seen_TD)
    return scored.nll_B.sum() / seen_TD.sum().clamp_min(1.0)
