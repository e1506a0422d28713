"""Predictions that are too narrow or too wide by a factor: the stretch finds it, axis by axis."""

import numpy as np
import pytest
import torch

from streamgen.models import stretch
from streamgen.models.mixture_t import MixtureT
from streamgen.models.slab import Slab

D, DOF = 2, 5.0
FACTOR_DD = torch.tensor([[1.0, 0.0], [0.8, 0.5]], dtype=torch.float64)


def predicted(log_scale_D: np.ndarray) -> MixtureT:
    scale_1KD = torch.from_numpy(np.broadcast_to(log_scale_D, (1, 2, D)).copy())
    return MixtureT(torch.log(torch.tensor([[0.3, 0.7]])), torch.zeros(1, 2, D), scale_1KD, FACTOR_DD, DOF)


@pytest.mark.parametrize("missing", [False, True])
def test_it_finds_by_how_much_predictions_are_too_narrow(missing: bool) -> None:
    true_D = np.array([0.7, 0.7]) if missing else np.array([0.9, -0.4])
    slab = Slab(stretch.fields(D))
    row = slab.add()
    noise = np.random.default_rng(0)
    found = []
    for n in range(6000):
        y_1D = predicted(true_D).draw(noise)
        seen_1D = torch.tensor([[True, not (missing and n % 2)]])
        judged = predicted(slab.host("stretch_D")[row]).judge(y_1D, seen_1D)
        stretch.observe(slab, row, judged.stretch_ND[0].numpy())
        found.append(slab.host("stretch_D")[row].copy())
    np.testing.assert_allclose(np.mean(found[1000:], axis=0), true_D, atol=0.06)
    assert np.std(found[1000:], axis=0).max() < 0.12


def test_it_is_bounded_and_no_record_without_values_moves_it() -> None:
    slab = Slab(stretch.fields(D))
    row = slab.add()
    stretch.observe(slab, row, np.zeros(D))
    assert slab.host("stretch_count")[row] == 0
    stretch.observe(slab, row, np.array([-4.0, 1.0]))
    assert slab.host("stretch_D")[row].tolist() == [4 / stretch.FIRST, -1 / stretch.FIRST]
    for _ in range(10_000):
        stretch.observe(slab, row, np.array([-4.0, 1.0]))
    assert slab.host("stretch_D")[row].tolist() == [stretch.MOST, -stretch.MOST]
