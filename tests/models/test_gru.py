"""Layers of GRUs against torch's own."""

import pytest
import torch

from streamgen.models.flat import flat_size, flat_views
from streamgen.models.gru import gru, gru_shapes, layer_name

B, T, INPUTS, H = 3, 6, 4, 5


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_states_are_torchs_of_every_layer(layers: int) -> None:
    shapes = gru_shapes("one", INPUTS, H, layers)
    gen = torch.Generator().manual_seed(0)
    flat_P = torch.randn(flat_size(shapes), dtype=torch.float64, generator=gen)
    w = flat_views(shapes, flat_P)
    oracle = torch.nn.GRU(INPUTS, H, num_layers=layers, batch_first=True, dtype=torch.float64)
    kinds = ("GI", "GH", "input_bias_G", "hidden_bias_G")
    names = [f"{layer_name('one', layer)}_{kind}" for layer in range(layers) for kind in kinds]
    assert sorted(names) == sorted(shapes)
    x_BTI = torch.randn(B, T, INPUTS, dtype=torch.float64, generator=gen)
    state_LBH = torch.randn(layers, B, H, dtype=torch.float64, generator=gen)
    with torch.no_grad():
        for parameter, name in zip(oracle.parameters(), names, strict=True):
            parameter.copy_(w[name])
        top_BTH, last_LBH = oracle(x_BTI, state_LBH)
        state_BTS = gru(w, "one", x_BTI, torch.cat(list(state_LBH), 1))
    assert state_BTS.shape == (B, T, layers * H)
    torch.testing.assert_close(state_BTS[:, :, -H:], top_BTH)
    torch.testing.assert_close(state_BTS[:, -1], torch.cat(list(last_LBH), 1))
