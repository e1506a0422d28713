"""The running second moment and its factor, against NumPy's."""

import numpy as np
import pytest

from streamgen.models import whitening
from streamgen.models.scale import MEMORY
from streamgen.models.slab import Slab
from streamgen.models.whitening import RIDGE, Whitening


def made(D: int) -> Whitening:
    slab = Slab(whitening.fields("level", D))
    return Whitening.of(slab, slab.add(), "level")


def fed(values_ND: np.ndarray) -> Whitening:
    one = made(values_ND.shape[1])
    for value_D in values_ND:
        one.observe(value_D, ~np.isnan(value_D))
    return one


def correlated(N: int = 500) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 3)) @ np.array([[1.0, 0.5, 0.1], [0.0, 1.0, -0.7], [0.0, 0.0, 0.4]])


def test_it_is_the_mean_of_the_products() -> None:
    u_ND = correlated()
    one = fed(u_ND)
    np.testing.assert_allclose(one.moment_DD, u_ND.T @ u_ND / len(u_ND), rtol=1e-10)


def test_it_whitens() -> None:
    u_ND = correlated()
    e_ND = np.linalg.solve(fed(u_ND).factor(), u_ND.T).T
    np.testing.assert_allclose(e_ND.T @ e_ND / len(e_ND), np.eye(3), atol=1e-3)


def test_pairs_are_averaged_over_the_records_that_have_both() -> None:
    u_ND = correlated()
    u_ND[::3, 0] = np.nan
    u_ND[::4, 2] = np.nan
    both_N = ~np.isnan(u_ND[:, 0]) & ~np.isnan(u_ND[:, 2])
    expected = (u_ND[both_N, 0] * u_ND[both_N, 2]).mean()
    assert fed(u_ND).moment_DD[2, 0] == pytest.approx(expected, rel=1e-10)


def test_it_forgets() -> None:
    u_ND = np.concatenate([np.full((MEMORY, 1), 1.0), np.full((3 * MEMORY, 1), 3.0)])
    assert fed(u_ND).moment_DD[0, 0] == pytest.approx(9.0 - 8.0 * np.exp(-3.0), rel=1e-2)


def test_an_outlier_counts_no_further_than_eight_units() -> None:
    one = made(1)
    one.observe(np.array([1e300]), np.array([True]))
    assert one.moment_DD[0, 0] == 64.0


def test_equal_columns_have_a_factor_whose_last_axis_is_as_thin_as_the_ridge() -> None:
    u_N = np.random.default_rng(0).normal(size=400)
    factor_DD = fed(np.stack([u_N, u_N, -2 * u_N], axis=1)).factor()
    assert np.isfinite(factor_DD).all()
    width_D = np.sqrt(np.diag(factor_DD @ factor_DD.T))
    assert (np.diag(factor_DD)[1:] / width_D[1:] < 2 * np.sqrt(RIDGE)).all()
    np.testing.assert_allclose(factor_DD[:, 0] / width_D, [1.0, 1.0, -1.0], rtol=1e-5)


def test_a_moment_that_is_indefinite_has_a_factor() -> None:
    one = made(3)
    one.count_DD[:] = 10.0
    one.moment_DD[:] = [[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]
    assert np.linalg.eigvalsh(one.moment_DD).min() < -0.5
    assert (np.diag(one.factor()) > 0).all()


def test_before_any_record_it_is_the_unit_matrix() -> None:
    np.testing.assert_allclose(made(3).factor(), np.eye(3), atol=1e-6)


def test_a_column_that_never_moves_is_thin_and_independent() -> None:
    u_ND = correlated()
    u_ND[:, 1] = 0.0
    factor_DD = fed(u_ND).factor()
    assert factor_DD[1, 1] == pytest.approx(0.1)
    assert factor_DD[1, 0] == factor_DD[2, 1] == 0.0
