"""Figures of nearest neighbours: are generated windows like real ones, all of them, and no copies?

A window is a point of T·D values, each column in the real one's standard deviations: otherwise the column
with the largest numbers would be all that counts. Windows must not overlap (`cut` with stride = length):
those that share records are near one another, which makes every real ball small and the figures too low.

N real windows, M generated ones, k neighbours, F = T·D values a point.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from streamgen.errors import InputError
from streamgen.evaluation.windows import checked, in_real_units
from streamgen.records import Floats

NEIGHBOURS = 5
_BLOCK = 512  # points whose distances to all others are in memory at once


class Neighbourhood(NamedTuple):
    """Four figures in one pass.

    `precision`: share of generated windows inside a real ball; `recall`: share of real windows inside a
    generated ball (Kynkäänniemi et al. 2019, "Improved precision and recall metric"). `density`: real balls
    around a generated window, in k's; `coverage`: share of real balls with a generated window (Naeem et al.
    2020, "Reliable fidelity and diversity metrics"). A ball reaches from a window to its k-th nearest of its
    own kind.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhood(real_NTD: Floats, generated_MTD: Floats, k: int = NEIGHBOURS) -> Neighbourhood:
    """The figures, with `k` neighbours. Raises `InputError` also when there are no more windows than that."""
    checked(real_NTD, generated_MTD)
    if min(len(real_NTD), len(generated_MTD)) <= k:
        raise InputError(
            f"{len(real_NTD)} real and {len(generated_MTD)} generated windows are too few for {k} neighbours."
        )
    real_NF, generated_MF = _points(real_NTD, real_NTD), _points(real_NTD, generated_MTD)
    real_radius_N, generated_radius_M = _radius(real_NF, k), _radius(generated_MF, k)
    inside_M = np.zeros(len(generated_MF))  # real balls around each
    covered_N = np.zeros(len(real_NF), dtype=bool)
    recalled_N = np.zeros(len(real_NF), dtype=bool)
    for first in range(0, len(real_NF), _BLOCK):
        block = slice(first, first + _BLOCK)
        distance_BM = cdist(real_NF[block], generated_MF)
        in_real_BM = distance_BM <= real_radius_N[block, None]
        inside_M += in_real_BM.sum(axis=0)
        covered_N[block] = in_real_BM.any(axis=1)
        recalled_N[block] = (distance_BM <= generated_radius_M).any(axis=1)
    return Neighbourhood(
        precision=float((inside_M > 0).mean()),
        recall=float(recalled_N.mean()),
        density=float(inside_M.mean() / k),
        coverage=float(covered_N.mean()),
    )


def copies(
    training_NTD: Floats, held_out_KTD: Floats, generated_MTD: Floats, quantile: float = 0.05
) -> float:
    """Share of generated windows that are nearer to a training window than all but `quantile` of the held-out
    ones are: `quantile` where nothing was copied, 1 where everything was. Raises `InputError`.

    Training windows may overlap, and should: a copy may begin at any record.
    """
    usual_K, found_M = nearest(training_NTD, held_out_KTD), nearest(training_NTD, generated_MTD)
    return copied(usual_K, found_M, quantile)


def copied(usual_K: Floats, found_M: Floats, quantile: float = 0.05) -> float:
    """The share, from the distances to the nearest training window of held-out windows and of others.

    A quantile and no mean, since one copy among many originals moves no mean. Raises `InputError` when the
    held-out windows are themselves among the training windows: nothing is nearer than they are.
    """
    near = float(np.quantile(usual_K, quantile))
    if near == 0:
        raise InputError(
            f"{int((usual_K == 0).sum())} of {len(usual_K)} real windows are among those that were learned, "
            "so copies cannot be told: give real records that were not learned, or leave out what was."
        )
    return float((found_M < near).mean())


def nearest(training_NTD: Floats, windows_MTD: Floats) -> Floats:
    """[M] distance of each window to its nearest training window. Raises `InputError`."""
    checked(training_NTD, windows_MTD)
    training_NF, asked_MF = _points(training_NTD, training_NTD), _points(training_NTD, windows_MTD)
    nearest_M = np.full(len(asked_MF), np.inf)
    for first in range(0, len(training_NF), _BLOCK):
        distance_MB = cdist(asked_MF, training_NF[first : first + _BLOCK])
        np.minimum(nearest_M, distance_MB.min(axis=1), out=nearest_M)
    return nearest_M


def _points(real_NTD: Floats, windows_MTD: Floats) -> Floats:
    return in_real_units(real_NTD, windows_MTD).reshape(len(windows_MTD), -1)


def _radius(points_NF: Floats, k: int) -> Floats:
    """[N] distance to the k-th nearest other point."""
    return np.concatenate(
        [
            np.partition(cdist(points_NF[first : first + _BLOCK], points_NF), k, axis=1)[:, k]
            for first in range(0, len(points_NF), _BLOCK)
        ]
    )
