"""Windows of a series: cut, checked, and put into units in which columns can be compared.

N windows of T records with D features; M generated ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamgen.errors import InputError
from streamgen.records import Floats, Ints

_ROUNDED = 1e-12  # of a number's size: what it may lose in a few operations


def cut(series_LD: Floats, length: int, stride: int) -> Floats:
    """[N, length, D] windows of a series, in its order, one every `stride` records.

    With `stride` = `length` they do not overlap, which the figures of neighbours and the null need: windows
    that share records are near one another whatever they hold. Raises `InputError` when there is not one.
    """
    if not 1 <= length <= len(series_LD):
        raise InputError(
            f"A series of {len(series_LD)} records has no window of {length}: choose a shorter window."
        )
    first_N = np.arange(0, len(series_LD) - length + 1, stride)
    return np.asarray(series_LD[first_N[:, None] + np.arange(length)], dtype=np.float64)


def checked(real_NTD: Floats, generated_MTD: Floats) -> None:
    """Raises `InputError` for windows that cannot be compared: of other shapes, too few, or not finite."""
    for name, windows in (("real", real_NTD), ("generated", generated_MTD)):
        if windows.ndim != 3 or 0 in windows.shape:
            raise InputError(
                f"The {name} windows have the shape {windows.shape}: give [windows, records, features]."
            )
        if not np.isfinite(windows).all():
            bad = int((~np.isfinite(windows)).any(axis=(1, 2)).sum())
            raise InputError(
                f"{bad} of the {name} windows hold a value that is missing or infinite: leave them out."
            )
    if real_NTD.shape[1:] != generated_MTD.shape[1:]:
        raise InputError(
            f"The real windows hold {real_NTD.shape[1:]} records and features, the generated ones "
            f"{generated_MTD.shape[1:]}: cut both alike."
        )


def in_real_units(real_NTD: Floats, windows_MTD: Floats) -> Floats:
    """Each column less the real one's mean, in its standard deviations; a column that is constant in the real
    windows is left in its own unit, or in its size where that is more, so that one which is not constant
    among the generated still shows."""
    unit_D = _units(real_NTD, real_NTD.std(axis=(0, 1)))
    return np.asarray((windows_MTD - real_NTD.mean(axis=(0, 1))) / unit_D)


def in_real_range(real_NTD: Floats, windows_MTD: Floats) -> NDArray[np.float32]:
    """Each column from 0, the real one's smallest value, to 1, its largest: the scale of the published
    protocols. A constant one is in the units of `in_real_units`."""
    low_D, high_D = real_NTD.min(axis=(0, 1)), real_NTD.max(axis=(0, 1))
    return np.asarray((windows_MTD - low_D) / _units(real_NTD, high_D - low_D), dtype=np.float32)


def _units(real_NTD: Floats, spread_D: Floats) -> Floats:
    """The spread of each column that moves. Whether one does is not told by its deviation: that of the same
    value throughout is seldom 0, for its mean is rounded."""
    low_D, high_D = real_NTD.min(axis=(0, 1)), real_NTD.max(axis=(0, 1))
    size_D = np.maximum(np.abs(low_D), np.abs(high_D))
    return np.where(high_D - low_D > _ROUNDED * size_D, spread_D, np.maximum(size_D, 1.0))


def halves(count: int, block: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Two random halves of 0 … `count` − 1, made of blocks of `block` neighbours: windows that are near in
    time are alike, and halves that shuffle them are more alike than two stretches of the stream ever are."""
    block_N = np.arange(count) // block
    order = rng.permutation(block_N[-1] + 1)
    mine_N = np.isin(block_N, order[: len(order) // 2])
    return np.flatnonzero(mine_N), np.flatnonzero(~mine_N)


def thinned(half_N: Ints, pieces: int, count: int, rng: np.random.Generator) -> Ints:
    """`count` of a half: of each of its `pieces` stretches a run of neighbours, at a random place. So few
    windows are of the whole stream too, as few that are drawn from it by chance are, and still of runs."""
    shares = zip(np.array_split(half_N, pieces), np.array_split(np.arange(count), pieces), strict=True)
    runs = []
    for stretch, share in shares:
        first = int(rng.integers(len(stretch) - len(share) + 1))
        runs.append(stretch[first : first + len(share)])
    return np.concatenate(runs)
