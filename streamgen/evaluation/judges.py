"""Networks that judge: can one tell generated windows from real ones, and is one taught by them of use?

The protocols of Yoon, Jarrett & van der Schaar 2019, "Time-series generative adversarial networks": columns
scaled by the real ones' smallest and largest value, a GRU, Adam with 0.001, batches of 128 of each kind. One
thread's worth of work is deterministic by `seed`; torch's own generator is left as it was.

N real windows of T records with D features, M generated ones, B windows of a batch, H units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamgen.errors import InputError
from streamgen.evaluation.windows import checked, in_real_range
from streamgen.records import Floats, Ints

if TYPE_CHECKING:
    import torch

BATCH = 128
RATE = 0.001
TRAINED = 0.8  # share of the windows of each kind that the judge learns from


def discriminative_score(
    real_NTD: Floats, generated_MTD: Floats, seed: int, units: int | None = None, iterations: int = 2000
) -> float:
    """How far above chance a GRU tells held-out windows apart: |accuracy − 0.5|, 0 is perfect, 0.5 the worst.

    `units` None is the papers' judge (half as many as features, at least one); one of 64 units and 4,000
    iterations is much harder to deceive. Both kinds are given as many windows. Raises `InputError`.
    """
    import torch

    checked(real_NTD, generated_MTD)
    rng = np.random.default_rng(seed)
    count = min(len(real_NTD), len(generated_MTD))
    kinds = [
        in_real_range(real_NTD, windows)[rng.permutation(len(windows))[:count]]
        for windows in (generated_MTD, real_NTD)
    ]
    trained = max(1, int(TRAINED * count))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = _reader(real_NTD.shape[2], units or max(1, real_NTD.shape[2] // 2))
        optimiser = torch.optim.Adam(judge.parameters(), lr=RATE)
        loss_of = torch.nn.BCEWithLogitsLoss()
        for _ in range(iterations):
            batches = [kind[_some(rng, trained)] for kind in kinds]
            windows_BTD = torch.from_numpy(np.concatenate(batches))
            label_B = torch.cat([torch.full((len(batch),), float(n)) for n, batch in enumerate(batches)])
            optimiser.zero_grad()
            torch.autograd.backward(loss_of(judge(windows_BTD)[:, -1], label_B))
            optimiser.step()
        with torch.no_grad():
            says = [judge(torch.from_numpy(kind[trained:]))[:, -1] > 0 for kind in kinds]
    right = torch.cat([~says[0], says[1]]).double().mean()
    return abs(float(right) - 0.5)


def predictive_score(real_NTD: Floats, generated_MTD: Floats, seed: int, iterations: int = 5000) -> float:
    """Mean absolute error, on the real windows, of a GRU that learned from the generated ones to give the
    last column one record ahead from the other columns (from itself where there is no other), in the real
    column's range. What real windows would have taught it is the null. Raises `InputError`, also for windows
    of one record."""
    import torch

    checked(real_NTD, generated_MTD)
    check_ahead(real_NTD)
    rng = np.random.default_rng(seed)
    real, generated = in_real_range(real_NTD, real_NTD), in_real_range(real_NTD, generated_MTD)
    inputs = slice(None, -1) if real.shape[2] > 1 else slice(None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = _reader(max(1, real.shape[2] - 1), max(1, real.shape[2] // 2))
        optimiser = torch.optim.Adam(reader.parameters(), lr=RATE)
        for _ in range(iterations):
            batch_BTD = torch.from_numpy(generated[_some(rng, len(generated))])
            optimiser.zero_grad()
            ahead = torch.sigmoid(reader(batch_BTD[:, :-1, inputs]))
            torch.autograd.backward((ahead - batch_BTD[:, 1:, -1]).abs().mean())
            optimiser.step()
        with torch.no_grad():
            real_NTD_ = torch.from_numpy(real)
            error = (torch.sigmoid(reader(real_NTD_[:, :-1, inputs])) - real_NTD_[:, 1:, -1]).abs()
    return float(error.mean())


def check_ahead(real_NTD: Floats) -> None:
    """Raises `InputError` for windows in which no record is ahead of another."""
    if real_NTD.shape[1] < 2:
        raise InputError(
            "In windows of one record there is nothing to predict: give longer ones, or leave the judges out "
            "that are networks (--quick, measures=QUICK)."
        )


def _some(rng: np.random.Generator, count: int) -> Ints:
    return rng.choice(count, min(BATCH, count), replace=False)


def _reader(features: int, units: int) -> torch.nn.Module:
    """A GRU with one output a record: [B, T, D] → [B, T]."""
    import torch

    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(features, units, batch_first=True)
            self.head = torch.nn.Linear(units, 1)

        def forward(self, windows_BTD: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.head(self.gru(windows_BTD)[0])[:, :, 0]
            return output

    return Reader()
