"""GRU layers whose weights lie in a learner's flat vector (Cho et al. 2014, in torch's form).

Where there is more than one, each reads the states of the one below. The states of all lie side by side, the
first layer's first, so that a state is one vector however many layers there are.

Shapes: B sequences of T records, N = TB of them, I inputs, H hidden units of a layer, G = 3H gates, S =
layers × H.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from streamgen.models.flat import Shapes


def gru_shapes(name: str, inputs: int, hidden: int, layers: int = 1) -> Shapes:
    """Their parameters: matrices have the inputs last, as torch's."""
    G = 3 * hidden
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        one = layer_name(name, layer)
        shapes[f"{one}_GI"] = (G, inputs if layer == 0 else hidden)
        shapes[f"{one}_GH"] = (G, hidden)
        shapes[f"{one}_input_bias_G"] = shapes[f"{one}_hidden_bias_G"] = (G,)
    return shapes


def layer_name(name: str, layer: int) -> str:
    """What the parameters of a layer are called by, from 0."""
    return name if layer == 0 else f"{name}{layer + 1}"


def gru(w: Mapping[str, Tensor], name: str, input_BTI: Tensor, state_BS: Tensor) -> Tensor:
    """The states after each of T records, [B, T, S]."""
    parts = []
    for layer, state_BH in enumerate(torch.split(state_BS, w[f"{name}_GH"].shape[1], 1)):
        one = layer_name(name, layer)
        weights = (w[f"{one}_{kind}"] for kind in ("GI", "GH", "input_bias_G", "hidden_bias_G"))
        input_BTI = _Layer.apply(input_BTI, state_BH, *weights)
        parts.append(input_BTI)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


class _Layer(torch.autograd.Function):
    """torch's GRU layer, with the gradient of its states in closed form.

    torch's own walks back through some thirty operations a record; of small layers that is most of the time
    that learning takes. The states tell the gates of all records at once, and these how much of the gradient
    of a state is one of each gate, so that only four operations are left to do record after record:

        h' = n + z (h − n),   r, z = σ(x_{r,z} + u_{r,z}),   n = tanh(x_n + r u_n),   u = h U + c
        ∂u_n = r ∂x_n,   ∂x_n = (1 − z)(1 − n²) ∂h',   ∂r = u_n r (1 − r) ∂x_n,   ∂z = (h − n) z (1 − z) ∂h'
        ∂h = z ∂h' + ∂u U
    """

    @staticmethod
    def forward(ctx: Any, x_BTI: Tensor, h_BH: Tensor, *weights: Tensor) -> Tensor:
        # cuDNN's GRU warns unless all weights lie in a piece of its own: on a GPU, torch's is used.
        with torch.backends.cudnn.flags(enabled=False):
            # True: has biases; one layer, no dropout, not torch's training mode, one direction, batch first.
            state_BTH, _ = torch.gru(x_BTI, h_BH.unsqueeze(0), weights, True, 1, 0.0, False, False, True)
        ctx.save_for_backward(x_BTI, h_BH, state_BTH, *weights)
        return state_BTH

    @staticmethod
    def backward(ctx: Any, grad_BTH: Tensor) -> tuple[Tensor | None, ...]:
        x_BTI, h_BH, state_BTH, w_GI, w_GH, bias_G, hidden_bias_G = ctx.saved_tensors
        B, T, H = state_BTH.shape
        x_NI = x_BTI.transpose(0, 1).flatten(0, 1)
        before_NH = torch.cat([h_BH.unsqueeze(0), state_BTH.transpose(0, 1)[:-1]]).flatten(0, 1)
        x_NG = torch.addmm(bias_G, x_NI, w_GI.T)
        u_NG = torch.addmm(hidden_bias_G, before_NH, w_GH.T)
        r_NH, z_NH = torch.sigmoid(x_NG[:, : 2 * H] + u_NG[:, : 2 * H]).chunk(2, 1)
        u_NH = u_NG[:, 2 * H :]
        n_NH = torch.tanh(torch.addcmul(x_NG[:, 2 * H :], r_NH, u_NH))
        n_share_NH = (1.0 - z_NH) * (1.0 - n_NH**2)
        r_share_NH = n_share_NH * u_NH * r_NH * (1.0 - r_NH)
        z_share_NH = (before_NH - n_NH) * z_NH * (1.0 - z_NH)
        share_TB3H = torch.stack([r_share_NH, z_share_NH, n_share_NH * r_NH], 1).view(T, B, 3, H)
        z_TBH, grad_TBH = z_NH.view(T, B, H), grad_BTH.transpose(0, 1)
        state_grad_TBH, u_grad_TB3H = torch.empty_like(z_TBH), torch.empty_like(share_TB3H)
        carried_BH = torch.zeros_like(h_BH)
        for t in reversed(range(T)):
            torch.add(carried_BH, grad_TBH[t], out=state_grad_TBH[t])
            torch.mul(share_TB3H[t], state_grad_TBH[t].unsqueeze(1), out=u_grad_TB3H[t])
            carried_BH = torch.addmm(z_TBH[t] * state_grad_TBH[t], u_grad_TB3H[t].view(B, -1), w_GH)
        u_grad_NG = u_grad_TB3H.view(T * B, -1)
        n_grad_NH = state_grad_TBH.flatten(0, 1) * n_share_NH
        x_grad_NG = torch.cat([u_grad_NG[:, : 2 * H], n_grad_NH], 1)
        x_grad_BTI = None
        if ctx.needs_input_grad[0]:
            x_grad_BTI = (x_grad_NG @ w_GI).view(T, B, -1).transpose(0, 1)
        return (
            x_grad_BTI, carried_BH, x_grad_NG.T @ x_NI, u_grad_NG.T @ before_NH,
            x_grad_NG.sum(0), u_grad_NG.sum(0),
        )  # fmt: skip
