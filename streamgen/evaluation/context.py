"""Context-FID: how far generated windows are from real ones in the eyes of an encoder of the latter.

Jeha et al. 2022, "PSA-GAN: Progressive self attention GANs for synthetic time series": the Fréchet distance
of two Gaussians fitted to what an encoder makes of the windows. The encoder is that of Yue et al. 2022,
"TS2Vec: Towards universal representation of time series", which learns from the real windows alone, without
labels: dilated convolutions, and a contrast of two overlapping crops of the same windows, over time and over
windows, at every scale. Sizes and training are that paper's, with which published figures were made.

N real windows of T records with D features, M generated ones, B windows of a batch, H units inside, E values
of a code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamgen.evaluation.windows import checked, in_real_range
from streamgen.records import Floats

if TYPE_CHECKING:
    import torch

UNITS, CODE, LAYERS = 64, 320, 10
BATCH, ITERATIONS, RATE = 8, 600, 0.001
MASKED = 0.5  # share of a batch's records that the encoder does not see while it learns
DROPPED = 0.1
_AT_ONCE = 512  # windows that are encoded in one call


def context_fid(real_NTD: Floats, generated_MTD: Floats, seed: int, iterations: int = ITERATIONS) -> float:
    """The Fréchet distance of real and generated windows' codes; 0 is perfect, and it grows without bound.

    It is biased by the number of windows (fewer: larger), as every Fréchet distance of samples: compare it
    only with a null of as many. Raises `InputError`.
    """
    import torch

    checked(real_NTD, generated_MTD)
    real, generated = in_real_range(real_NTD, real_NTD), in_real_range(real_NTD, generated_MTD)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encode = _encoder(real.shape[2])
        _train(encode, torch.from_numpy(real), iterations, np.random.default_rng(seed))
        codes = [_codes(encode, torch.from_numpy(windows)) for windows in (real, generated)]
    return frechet_distance(*codes)


def frechet_distance(left_NE: Floats, right_ME: Floats) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½), of Gaussians fitted to two samples (Dowson & Landau 1982)."""
    mean = left_NE.mean(axis=0) - right_ME.mean(axis=0)
    left_EE, right_EE = (np.atleast_2d(np.cov(sample, rowvar=False)) for sample in (left_NE, right_ME))
    # The eigenvalues of Σ₁ Σ₂ are those of Σ₁^½ Σ₂ Σ₁^½, which is symmetric: real, and not negative but for
    # rounding, however few samples there are.
    root_EE = _root(left_EE)
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root_EE @ right_EE @ root_EE), 0.0, None)).sum()
    return float(mean @ mean + np.trace(left_EE) + np.trace(right_EE) - 2.0 * shared)


def _root(matrix_EE: Floats) -> Floats:
    """The symmetric root of a positive semidefinite matrix."""
    value_E, vector_EE = np.linalg.eigh(matrix_EE)
    return np.asarray((vector_EE * np.sqrt(np.clip(value_E, 0.0, None))) @ vector_EE.T)


def _encoder(features: int) -> torch.nn.Module:
    """[B, T, D] → [B, T, E]; while it trains, records are masked at random."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inside: int, outside: int, dilation: int) -> None:
            super().__init__()
            self.first = nn.Conv1d(inside, outside, 3, padding=dilation, dilation=dilation)
            self.second = nn.Conv1d(outside, outside, 3, padding=dilation, dilation=dilation)
            self.past = nn.Conv1d(inside, outside, 1) if inside != outside else nn.Identity()

        def forward(self, x_BHT: torch.Tensor) -> torch.Tensor:
            gelu = nn.functional.gelu
            out: torch.Tensor = self.past(x_BHT) + self.second(gelu(self.first(gelu(x_BHT))))
            return out

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(features, UNITS)
            blocks = [Block(UNITS, UNITS, 2**layer) for layer in range(LAYERS)]
            self.blocks = nn.Sequential(*blocks, Block(UNITS, CODE, 2**LAYERS), nn.Dropout(DROPPED))

        def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
            h_BTH = self.enter(x_BTD)
            if self.training:
                h_BTH = h_BTH * (torch.rand(h_BTH.shape[:2]) > MASKED)[:, :, None]
            out: torch.Tensor = self.blocks(h_BTH.transpose(1, 2)).transpose(1, 2)
            return out

    return Encoder()


def _train(
    encode: torch.nn.Module, real_NTD: torch.Tensor, iterations: int, rng: np.random.Generator
) -> None:
    """Leaves the mean of the weights over the iterations in `encode`."""
    import torch

    averaged = torch.optim.swa_utils.AveragedModel(encode)
    optimiser = torch.optim.AdamW(encode.parameters(), lr=RATE)
    length = real_NTD.shape[1]
    for _ in range(iterations):
        batch_BTD = real_NTD[rng.choice(len(real_NTD), min(BATCH, len(real_NTD)), replace=False)]
        # Two crops that overlap in `shared` records: the left one ends with them, the right one begins.
        shared = int(rng.integers(min(2, length), length + 1))
        start = int(rng.integers(length - shared + 1))
        left, right = int(rng.integers(start + 1)), int(rng.integers(start + shared, length + 1))
        codes = (
            encode(batch_BTD[:, left : start + shared])[:, -shared:],
            encode(batch_BTD[:, start:right])[:, :shared],
        )
        optimiser.zero_grad()
        torch.autograd.backward(contrast(*codes))
        optimiser.step()
        averaged.update_parameters(encode)
    encode.load_state_dict(averaged.module.state_dict())
    encode.eval()


def contrast(left_BTE: torch.Tensor, right_BTE: torch.Tensor) -> torch.Tensor:
    """The hierarchical contrastive loss (Yue et al. 2022, equations 1 to 3): at each scale, a record's two
    codes are to be nearer to one another than to those of other records of the window, and of other windows
    at that time; scales halve by taking the largest of two neighbours."""
    from torch.nn.functional import max_pool1d

    losses = []
    while True:
        losses.append(0.5 * _told_apart(left_BTE.transpose(0, 1), right_BTE.transpose(0, 1)))
        if left_BTE.shape[1] == 1:
            break
        losses[-1] = losses[-1] + 0.5 * _told_apart(left_BTE, right_BTE)
        left_BTE, right_BTE = (
            max_pool1d(codes.transpose(1, 2), 2).transpose(1, 2) for codes in (left_BTE, right_BTE)
        )
    return sum(losses[1:], losses[0]) / len(losses)


def _told_apart(left_GSE: torch.Tensor, right_GSE: torch.Tensor) -> torch.Tensor:
    """Within each of G groups: cross-entropy of naming the partner of each of 2 S codes among the others."""
    import torch

    count = left_GSE.shape[1]
    if count == 1:
        return left_GSE.new_zeros(())
    code_G2E = torch.cat([left_GSE, right_GSE], dim=1)
    alike_G22 = code_G2E @ code_G2E.transpose(1, 2)
    alike_G22 = alike_G22.masked_fill(torch.eye(2 * count, dtype=torch.bool), -torch.inf)
    partner_2 = torch.arange(2 * count).roll(count)
    log_share_G22 = torch.log_softmax(alike_G22, dim=-1)
    return -log_share_G22[:, torch.arange(2 * count), partner_2].mean()


def _codes(encode: torch.nn.Module, windows_NTD: torch.Tensor) -> Floats:
    """[N, E] of each window the largest value over its records."""
    import torch

    with torch.no_grad():
        parts = [encode(part_BTD).amax(dim=1) for part_BTD in torch.split(windows_NTD, _AT_ONCE)]
    return np.asarray(torch.cat(parts).double().numpy())
