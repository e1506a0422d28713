"""How far the columns' distributions and correlations are from those of the real windows.

N windows of T records with D features, M generated ones.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import wasserstein_distance

from streamgen.evaluation.windows import checked, in_real_units
from streamgen.records import Floats

_CONSTANT = 1e-6  # deviation, in real units, of what does not move


def marginal_difference(real_NTD: Floats, generated_MTD: Floats) -> float:
    """Mean over the columns of the Wasserstein-1 distance between all real and all generated values, in the
    real column's standard deviations: 0.1 is a shift by a tenth of one. Raises `InputError`."""
    checked(real_NTD, generated_MTD)
    real, generated = in_real_units(real_NTD, real_NTD), in_real_units(real_NTD, generated_MTD)
    return float(
        np.mean(
            [
                wasserstein_distance(real[:, :, d].ravel(), generated[:, :, d].ravel())
                for d in range(real.shape[2])
            ]
        )
    )


def correlations(windows_NTD: Floats) -> Floats:
    """[T, D, D] correlation of column i with column j at 0 … T − 1 records later, over pairs within a window,
    around the mean and in the deviation of all windows; 0 where a column does not move. The diagonals are the
    autocorrelations."""
    centred = windows_NTD - windows_NTD.mean(axis=(0, 1))
    deviation_D = np.sqrt((centred**2).mean(axis=(0, 1)))
    moves_D = deviation_D > _CONSTANT
    unit = centred / np.where(moves_D, deviation_D, 1.0) * moves_D
    T = unit.shape[1]
    return np.array(
        [
            np.einsum("nti,ntj->ij", unit[:, : T - lag], unit[:, lag:], optimize=True)
            / (len(unit) * (T - lag))
            for lag in range(T)
        ]
    )


def autocorrelation_difference(real_NTD: Floats, generated_MTD: Floats) -> float:
    """Mean absolute difference of the autocorrelations over the lags from 1 on and the columns (the ACF score
    of Liao et al. 2020, "Conditional Sig-Wasserstein GANs"); 0 for windows of one record. Raises
    `InputError`."""
    difference_TDD = _difference(real_NTD, generated_MTD)
    if len(difference_TDD) == 1:
        return 0.0
    return float(np.diagonal(difference_TDD[1:], axis1=1, axis2=2).mean())


def cross_correlation_difference(real_NTD: Floats, generated_MTD: Floats) -> float:
    """Mean absolute difference of the correlations of different columns, over all lags and both orders; 0 for
    one column. Raises `InputError`.

    At lag 0 alone (the correlational score of Yuan & Qiao 2024, "Diffusion-TS") it would not see which column
    leads the other.
    """
    difference_TDD = _difference(real_NTD, generated_MTD)
    others_DD = ~np.eye(difference_TDD.shape[1], dtype=bool)
    return float(difference_TDD[:, others_DD].mean()) if others_DD.any() else 0.0


def _difference(real_NTD: Floats, generated_MTD: Floats) -> Floats:
    checked(real_NTD, generated_MTD)
    real, generated = in_real_units(real_NTD, real_NTD), in_real_units(real_NTD, generated_MTD)
    return np.abs(correlations(real) - correlations(generated))
