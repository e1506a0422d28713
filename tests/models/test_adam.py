"""Adam against torch's own."""

import torch

from streamgen.models.adam import adam_step


def test_steps_are_torchs() -> None:
    gen = torch.Generator().manual_seed(0)
    weights = torch.randn(10, generator=gen, dtype=torch.float64)
    oracle = weights.clone().requires_grad_()
    optimiser = torch.optim.Adam([oracle], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, 20):
        gradient = 3 * torch.randn(10, generator=gen, dtype=torch.float64)
        oracle.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([oracle], 5.0)
        optimiser.step()
        assert adam_step(weights, first, second, gradient, step, 0.01, (0.9, 0.99), 5.0)
        torch.testing.assert_close(weights, oracle.detach(), rtol=1e-5, atol=1e-8)


def test_what_is_not_finite_changes_nothing() -> None:
    weights, first, second = torch.ones(3), torch.zeros(3), torch.zeros(3)
    for bad in (torch.nan, torch.inf):
        assert not adam_step(weights, first, second, torch.tensor([0, bad, 1]), 1, 0.1, (0.9, 0.99), 1.0)
    assert torch.equal(weights, torch.ones(3))
    assert torch.equal(first, torch.zeros(3))
