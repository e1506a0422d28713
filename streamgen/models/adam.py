"""Adam on flat vectors, one learner at a time (Kingma & Ba 2015, algorithm 1), with clipping by norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def adam_step(
    weights_P: Tensor, first_P: Tensor, second_P: Tensor, gradient_P: Tensor, step: int,
    rate: float, betas: tuple[float, float], clip_norm: float,
) -> bool:  # fmt: skip
    """Update weights and moments in place; `step` counts from 1. Return False, and change nothing, when the
    gradient or the update is not finite (law: what is not finite never spreads)."""
    norm = float(torch.linalg.vector_norm(gradient_P))
    if not math.isfinite(norm):
        return False
    if norm > clip_norm:
        gradient_P = gradient_P * (clip_norm / norm)
    first = torch.lerp(first_P, gradient_P, 1 - betas[0])
    second = torch.lerp(second_P, gradient_P * gradient_P, 1 - betas[1])
    debiased_P = torch.sqrt(second / (1 - betas[1] ** step)).add_(1e-8)
    updated_P = weights_P - (rate / (1 - betas[0] ** step)) * first / debiased_P
    if not bool(torch.isfinite(updated_P).all()):
        return False
    weights_P.copy_(updated_P)
    first_P.copy_(first)
    second_P.copy_(second)
    return True
