"""Optimisers against torch's own; schedules against their formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch

from streamgen.models.optimiser import Optimiser, OptimiserSettings
from streamgen.models.slab import Slab

P = 10
ORACLES: dict[str, Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]] = {
    "adam": lambda w: torch.optim.Adam(w, lr=0.01, betas=(0.9, 0.99), eps=1e-8),
    "adamw": lambda w: torch.optim.AdamW(w, lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.3),
    "sgd": lambda w: torch.optim.SGD(w, lr=0.01),
    "momentum": lambda w: torch.optim.SGD(w, lr=0.01, momentum=0.9),
}


def made(**settings: object) -> tuple[Optimiser, Slab, int]:
    optimiser = Optimiser(OptimiserSettings(**settings))  # type: ignore[arg-type]
    slab = Slab(optimiser.fields(P))
    row = slab.add()
    slab.tensor("weights_P")[row] = torch.randn(P, generator=torch.Generator().manual_seed(0))
    return optimiser, slab, row


@pytest.mark.parametrize("name", ORACLES)
def test_steps_are_torchs(name: str) -> None:
    optimiser, slab, row = made(optimizer=name, learning_rate=0.01, weight_decay=0.3, clip_norm=5.0)
    oracle = slab.tensor("weights_P")[row].double().requires_grad_()
    torchs = ORACLES[name]([oracle])
    gen = torch.Generator().manual_seed(1)
    clipped = 0
    for _ in range(20):
        gradient = 2.5 * torch.randn(P, generator=gen)
        oracle.grad = gradient.double()
        clipped += int(gradient.norm() > 5.0)
        torch.nn.utils.clip_grad_norm_([oracle], 5.0)
        torchs.step()
        assert optimiser.step(slab, row, gradient)
        ours = slab.tensor("weights_P")[row].double()
        torch.testing.assert_close(ours, oracle.detach(), rtol=1e-4, atol=1e-6)
    assert clipped > 0
    assert slab.host("updates")[row] == 20


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_changes_nothing(name: str, bad: float) -> None:
    optimiser, slab, row = made(optimizer=name)
    before = {field: values.tobytes() for field, values in slab.row(row).items()}
    gradient = torch.ones(P)
    gradient[3] = bad
    assert not optimiser.step(slab, row, gradient)
    assert before == {field: values.tobytes() for field, values in slab.row(row).items()}


def test_an_update_that_would_overflow_changes_nothing() -> None:
    optimiser, slab, row = made(optimizer="sgd", learning_rate=1.0, clip_norm=1e38)
    slab.tensor("weights_P")[row] = -3.4e38
    assert not optimiser.step(slab, row, torch.full((P,), 3e37))
    assert slab.host("updates")[row] == 0


def test_only_the_moments_that_are_used_are_state() -> None:
    moments = {
        name: {field for field in made(optimizer=name)[1].fields if field in ("first_P", "second_P")}
        for name in ORACLES
    }
    assert moments == {
        "adam": {"first_P", "second_P"},
        "adamw": {"first_P", "second_P"},
        "sgd": set(),
        "momentum": {"first_P"},
    }


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.02, 0.02, 0.02, 0.02]),
        ("warmup", [0.005, 0.01, 0.02, 0.02]),
        ("inverse_sqrt", [0.005, 0.01, 0.02, 0.01]),
    ],
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    optimiser, slab, row = made(optimizer="sgd", learning_rate=0.02, schedule=schedule, warm_up=4)
    assert [optimiser.rate(step) for step in (1, 2, 4, 16)] == pytest.approx(rates)
    # And the rate is the one that the update takes.
    before = slab.tensor("weights_P")[row].clone()
    gradient = torch.full((P,), 0.1)
    optimiser.step(slab, row, gradient)
    torch.testing.assert_close(before - slab.tensor("weights_P")[row], rates[0] * gradient)
