"""Subnormal numbers count as zero while a learner learns, and at no other time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamgen.config import WindowConfig
from streamgen.models.device import no_subnormals
from streamgen.models.online import Learner
from streamgen.models.rvae import RVAE, Settings
from streamgen.models.slab import Slab
from streamgen.windows import Clock

TINY = torch.tensor(1e-39)


def product() -> float:
    return float(TINY * 1.0)


pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="not of this processor")


def test_they_come_back_whatever_happens() -> None:
    assert product() > 0
    with no_subnormals():
        assert product() == 0
    assert product() > 0
    with pytest.raises(ValueError, match="x"), no_subnormals():
        raise ValueError("x")
    assert product() > 0
    with no_subnormals():
        with no_subnormals():
            pass
        assert product() == 0  # as it was before


def test_they_are_zero_while_a_learner_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    bound = RVAE.loss_and_gradient

    def loss_and_gradient(self: RVAE, *given: object) -> tuple[float, torch.Tensor]:
        found.append(product())
        return bound(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(RVAE, "loss_and_gradient", loss_and_gradient)
    window, me = WindowConfig(length=4, stride=4), Learner(seed=0, topic="t", key="k")
    model = RVAE(Settings(name="rvae", hidden=4, latent=2, components=2), 1, window, "cpu")  # type: ignore[call-arg]
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), me)
    row_N, value_N1 = np.zeros(12, dtype=np.int64), np.random.default_rng(0).normal(size=(12, 1))
    ticks = Clock(window).advance(slab, row_N, np.arange(12) * 60_000)
    model.run(slab, row_N, value_N1, ticks, [me])
    assert found == [0.0, 0.0, 0.0]
    assert product() > 0
