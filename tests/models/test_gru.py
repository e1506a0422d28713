"""Layers of GRUs against torch's own."""

import pytest
import torch

from streamgen.models.flat import flat_size, flat_views
from streamgen.models.gru import gru, gru_shapes, layer_name

B, T, INPUTS, H = 3, 6, 4, 5


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_states_are_torchs_of_every_layer(layers: int) -> None:
    flat_P, oracle = both(layers)
    x_BTI, state_LBH = inputs(layers)
    with torch.no_grad():
        top_BTH, last_LBH = oracle(x_BTI, state_LBH)
        state_BTS = gru(weights(layers, flat_P), "one", x_BTI, torch.cat(list(state_LBH), 1))
    assert state_BTS.shape == (B, T, layers * H)
    torch.testing.assert_close(state_BTS[:, :, -H:], top_BTH)
    torch.testing.assert_close(state_BTS[:, -1], torch.cat(list(last_LBH), 1))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("steps", [slice(None), slice(-1, None), slice(0, 1)])
def test_gradients_are_torchs_of_weights_inputs_and_states(layers: int, steps: slice) -> None:
    flat_P, oracle = both(layers)
    x_BTI, state_LBH = inputs(layers)
    weigh_BTH = torch.randn(B, T, H, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    theirs = [x_BTI.clone().requires_grad_(), state_LBH.clone().requires_grad_()]
    (weigh_BTH * oracle(*theirs)[0])[:, steps].sum().backward()
    ours = [x_BTI.clone().requires_grad_(), torch.cat(list(state_LBH), 1).requires_grad_()]
    flat_P.requires_grad_()
    (weigh_BTH * gru(weights(layers, flat_P), "one", *ours)[:, :, -H:])[:, steps].sum().backward()
    assert theirs[0].grad is not None
    assert theirs[1].grad is not None
    assert flat_P.grad is not None
    torch.testing.assert_close(ours[0].grad, theirs[0].grad)
    torch.testing.assert_close(ours[1].grad, torch.cat(list(theirs[1].grad), 1))
    gradients = weights(layers, flat_P.grad)
    for name, parameter in zip(names(layers), oracle.parameters(), strict=True):
        torch.testing.assert_close(gradients[name], parameter.grad)


def both(layers: int) -> tuple[torch.Tensor, torch.nn.GRU]:
    """A flat vector of weights, and torch's network that has the same."""
    shapes = gru_shapes("one", INPUTS, H, layers)
    assert sorted(names(layers)) == sorted(shapes)
    gen = torch.Generator().manual_seed(0)
    flat_P = torch.randn(flat_size(shapes), dtype=torch.float64, generator=gen)
    w = weights(layers, flat_P)
    oracle = torch.nn.GRU(INPUTS, H, num_layers=layers, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for parameter, name in zip(oracle.parameters(), names(layers), strict=True):
            parameter.copy_(w[name])
    return flat_P, oracle


def weights(layers: int, flat_P: torch.Tensor) -> dict[str, torch.Tensor]:
    return flat_views(gru_shapes("one", INPUTS, H, layers), flat_P)


def names(layers: int) -> list[str]:
    """In the order of torch's parameters."""
    kinds = ("GI", "GH", "input_bias_G", "hidden_bias_G")
    return [f"{layer_name('one', layer)}_{kind}" for layer in range(layers) for kind in kinds]


def inputs(layers: int) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(1)
    x_BTI = torch.randn(B, T, INPUTS, dtype=torch.float64, generator=gen)
    return x_BTI, torch.randn(layers, B, H, dtype=torch.float64, generator=gen)
