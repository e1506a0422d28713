"""The network of `stream_ae` at full quality, against its equations and torch's GRU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamgen.models.carried import Carried, Shape
from streamgen.models.flat import flat_views
from streamgen.models.initial import initial

SHAPE = Shape(D=2, H=3, K=2, C=1)
I, B, T = 4 * SHAPE.D + SHAPE.C, 3, 5  # noqa: E741
FACTOR_DD = torch.tensor([[0.9, 0.0], [0.4, 0.6]], dtype=torch.float64)


def weights(seed: int = 0) -> torch.Tensor:
    gen = torch.Generator().manual_seed(seed)
    used = torch.zeros(SHAPE.size)
    for view in flat_views(SHAPE.parameters, used).values():
        view.fill_(1.0)
    return 0.5 * torch.randn(SHAPE.size, dtype=torch.float64, generator=gen) * used


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(1)
    shapes = ((B, SHAPE.H), (B, T, I), (B, T, SHAPE.D))
    state_BH, input_BTI, target_BTD = (
        torch.randn(*one, dtype=torch.float64, generator=gen) for one in shapes
    )
    seen_BTD = torch.ones(B, T, SHAPE.D, dtype=torch.bool)
    seen_BTD[0, 2, 1] = seen_BTD[1, 3] = False
    return state_BH, input_BTI, target_BTD * seen_BTD, seen_BTD


def test_the_loss_is_the_mean_of_the_predictive_likelihoods() -> None:
    """Record by record with torch's GRU cell, the first of a window left out."""
    flat_P = weights()
    network = Carried(SHAPE, flat_P, FACTOR_DD, 5.0)
    w = flat_views(SHAPE.parameters, flat_P)
    cell = torch.nn.GRUCell(I, SHAPE.H, dtype=torch.float64)
    cell.load_state_dict(
        {
            "weight_ih": w["carry_GI"], "weight_hh": w["carry_GH"],
            "bias_ih": w["carry_input_bias_G"], "bias_hh": w["carry_hidden_bias_G"],
        }
    )  # fmt: skip
    state_BH, input_BTI, target_BTD, seen_BTD = inputs()
    expected, h_BH = 0.0, state_BH
    for t in range(1, T):
        before_BI, time_BC = input_BTI[:, t - 1], input_BTI[:, t, 8:]
        f_BF = torch.cat([h_BH, before_BI[:, :4], before_BI[:, 6:8], time_BC], 1)
        out_BO = torch.tanh(f_BF @ w["head_FH"] + w["head_bias_H"]) @ w["out_HO"] + w["out_bias_O"]
        mixture = network.next(h_BH, before_BI, time_BC)
        shift_BD, swing_BD = before_BI[:, :4] @ w["skip_2DD"], before_BI[:, 6:8] @ w["skip_swing_DD"]
        mean_BKD = out_BO[:, 2:6].view(B, 2, 2) + shift_BD[:, None]
        scale_BKD = 4 * torch.tanh((out_BO[:, 6:].view(B, 2, 2) + swing_BD[:, None]) / 4)
        torch.testing.assert_close(mixture.mean_NKD, mean_BKD)
        torch.testing.assert_close(mixture.log_scale_NKD, scale_BKD)
        torch.testing.assert_close(mixture.log_weight_NK, torch.log_softmax(out_BO[:, :2], 1))
        expected += float(mixture.nll(target_BTD[:, t], seen_BTD[:, t]).sum().detach())
        with torch.no_grad():
            h_BH = cell(input_BTI[:, t], h_BH)
    loss = float(network.loss(state_BH, input_BTI, target_BTD, seen_BTD))
    assert loss == pytest.approx(expected / int(seen_BTD[:, 1:].sum()), rel=1e-6)


def test_of_more_layers_all_states_are_carried_and_the_last_is_read() -> None:
    shape = Shape(D=2, H=3, K=2, C=1, layers=2, dense=4, activation="silu")
    gen = torch.Generator().manual_seed(3)
    flat_P = 0.5 * torch.randn(shape.size, dtype=torch.float64, generator=gen)
    network = Carried(shape, flat_P, FACTOR_DD, 5.0)
    w = flat_views(shape.parameters, flat_P)
    oracle = torch.nn.GRU(I, shape.H, num_layers=2, batch_first=True, dtype=torch.float64)
    kinds = ("GI", "GH", "input_bias_G", "hidden_bias_G")
    with torch.no_grad():
        names = [f"{layer}_{kind}" for layer in ("carry", "carry2") for kind in kinds]
        for parameter, one in zip(oracle.parameters(), names, strict=True):
            parameter.copy_(w[one])
        _, input_BTI, _, _ = inputs()
        state_BS = torch.randn(B, shape.S, dtype=torch.float64, generator=gen)
        top_BTH, last_2BH = oracle(input_BTI, torch.stack(state_BS.chunk(2, 1)).contiguous())
        carried_BTS = network.carry(input_BTI, state_BS)
        torch.testing.assert_close(carried_BTS[:, :, shape.H :], top_BTH)
        torch.testing.assert_close(carried_BTS[:, -1], torch.cat(list(last_2BH), 1))
        before_BI, time_BC = input_BTI[:, 0], input_BTI[:, 1, 8:]
        f_BF = torch.cat([top_BTH[:, -1], before_BI[:, :4], before_BI[:, 6:8], time_BC], 1)
        sum_BE = f_BF @ w["head_FH"] + w["head_bias_H"]
        out_BO = sum_BE * torch.sigmoid(sum_BE) @ w["out_HO"] + w["out_bias_O"]
        weight_BK = network.next(carried_BTS[:, -1], before_BI, time_BC).log_weight_NK
        torch.testing.assert_close(weight_BK, torch.log_softmax(out_BO[:, :2], 1))


def test_gradient_agrees_with_finite_differences() -> None:
    flat_P = weights().requires_grad_()

    def loss(flat_P: torch.Tensor) -> torch.Tensor:
        return Carried(SHAPE, flat_P, FACTOR_DD, 5.0).loss(*inputs())

    (gradient_P,) = torch.autograd.grad(loss(flat_P), flat_P)
    used = flat_P.detach().nonzero().flatten().tolist()
    with torch.no_grad():
        for i in np.random.default_rng(0).choice(used, 60, replace=False).tolist():
            step_P = torch.zeros_like(flat_P)
            step_P[i] = 1e-6
            central = (loss(flat_P + step_P) - loss(flat_P - step_P)) / 2e-6
            # The mixture's targets are whitened to its own precision, which is float64 here.
            assert float(gradient_P[i]) == pytest.approx(float(central), rel=1e-4, abs=1e-7)


def test_the_stretch_is_added_to_every_log_scale() -> None:
    drawn_P = initial(SHAPE.parameters, SHAPE.H, SHAPE.K, torch.rand(SHAPE.size) * 2 - 1)
    state_BH, input_BTI = (one.float() for one in inputs()[:2])
    by_D = torch.tensor([0.1, -0.2])
    plain, stretched = (
        Carried(SHAPE, drawn_P, FACTOR_DD, 5.0, one).next(state_BH, input_BTI[:, 0], input_BTI[:, 1, 8:])
        for one in (None, by_D)
    )
    added_BKD = torch.atanh(stretched.log_scale_NKD / 4) * 4 - torch.atanh(plain.log_scale_NKD / 4) * 4
    torch.testing.assert_close(added_BKD, by_D.expand_as(added_BKD), rtol=1e-3, atol=1e-4)
    assert torch.equal(plain.mean_NKD, stretched.mean_NKD)
