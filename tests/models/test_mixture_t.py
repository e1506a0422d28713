"""The mixture of t's against SciPy's multivariate t, whole and with missing values, and against its own
draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_t
from scipy.stats import t as student

from streamgen.models.mixture_t import MixtureT, Quantiles, quantiles

N, K, D, DOF = 6, 3, 4, 5.0


def made(D: int = D, N: int = N, dof: float = DOF) -> MixtureT:
    rng = np.random.default_rng(1)
    factor_DD = np.tril(rng.normal(size=(D, D)))
    factor_DD[np.diag_indices(D)] = rng.uniform(0.3, 1.5, D)
    return MixtureT(
        torch.log_softmax(torch.from_numpy(rng.normal(size=(N, K))), 1),
        torch.from_numpy(rng.normal(size=(N, K, D))),
        torch.from_numpy(0.5 * rng.normal(size=(N, K, D))),
        torch.from_numpy(factor_DD),
        dof,
    )


def component(p: MixtureT, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale matrix, formed directly."""
    L = p.factor_DD.numpy()
    return L @ p.mean_NKD[n, k].numpy(), L @ np.diag(np.exp(2 * p.log_scale_NKD[n, k].numpy())) @ L.T


def oracle(p: MixtureT, n: int, y_D: np.ndarray, seen_D: np.ndarray) -> float:
    logs = []
    for k in range(K):
        m_D, S_DD = component(p, n, k)
        t = multivariate_t(m_D[seen_D], S_DD[np.ix_(seen_D, seen_D)], df=p.dof)
        logs.append(float(p.log_weight_NK[n, k]) + t.logpdf(y_D[seen_D]))
    return -logsumexp(logs)


def records() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(2)
    seen_ND = np.array(
        [[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]], bool
    )
    return torch.from_numpy(2 * rng.normal(size=(N, D)) * seen_ND), torch.from_numpy(seen_ND)


def test_nll_is_scipys_whatever_is_missing() -> None:
    p, (y_ND, seen_ND) = made(), records()
    expected = [oracle(p, n, y_ND[n].numpy(), seen_ND[n].numpy()) for n in range(N)]
    np.testing.assert_allclose(p.nll(y_ND, seen_ND), expected, rtol=1e-9)
    np.testing.assert_allclose(p.judge(y_ND, seen_ND).nll_N, expected, rtol=1e-9)


def test_a_record_without_any_value_is_worth_nothing() -> None:
    p = made()
    nothing_ND = torch.zeros(N, D, dtype=torch.bool)
    np.testing.assert_allclose(p.nll(torch.zeros(N, D, dtype=torch.float64), nothing_ND), 0.0, atol=1e-12)


def test_gradients_agree_with_finite_differences() -> None:
    p, (y_ND, seen_ND) = made(), records()
    inputs = tuple(part.clone().requires_grad_() for part in (p.log_weight_NK, p.mean_NKD, p.log_scale_NKD))
    assert torch.autograd.gradcheck(
        lambda *parts: MixtureT(*parts, p.factor_DD, DOF).nll(y_ND, seen_ND), inputs, atol=1e-7
    )


def test_expected_is_the_mean_before_and_the_conditional_mean_where_missing() -> None:
    p, (y_ND, seen_ND) = made(), records()
    expected_ND = p.judge(y_ND, seen_ND).expected_ND.numpy()
    for n in range(N):
        y_D, seen_D = y_ND[n].numpy(), seen_ND[n].numpy()
        before_D, given_D, total = np.zeros(D), np.zeros(D), 0.0
        for k in range(K):
            m_D, S_DD = component(p, n, k)
            S_oo = S_DD[np.ix_(seen_D, seen_D)]
            pull = np.linalg.solve(S_oo, y_D[seen_D] - m_D[seen_D])
            weight = np.exp(float(p.log_weight_NK[n, k]))
            share = weight * multivariate_t(m_D[seen_D], S_oo, df=DOF).pdf(y_D[seen_D])
            before_D += weight * m_D
            given_D += share * (m_D + S_DD[:, seen_D] @ pull)
            total += share
        np.testing.assert_allclose(
            expected_ND[n], np.where(seen_D, before_D, given_D / total), rtol=1e-8, atol=1e-8
        )


def test_the_parts_of_the_distance_do_not_depend_on_the_order_of_the_features() -> None:
    """The same distribution, factored anew after the features are swapped."""
    p, (y_ND, seen_ND) = made(), records()
    one = MixtureT(
        *(part[:1, :1] for part in (p.log_weight_NK, p.mean_NKD, p.log_scale_NKD)), p.factor_DD, DOF
    )
    m_D, S_DD = component(one, 0, 0)
    order = [2, 0, 3, 1]
    L = np.linalg.cholesky(S_DD[np.ix_(order, order)])
    swapped = MixtureT(
        one.log_weight_NK,
        torch.from_numpy(np.linalg.solve(L, m_D[order]))[None, None],
        torch.zeros(1, 1, D, dtype=torch.float64),
        torch.from_numpy(L),
        DOF,
    )
    for n in (0, 1):
        there = one.judge(y_ND[n : n + 1], seen_ND[n : n + 1]).quadratic_ND[0]
        here = swapped.judge(y_ND[n : n + 1, order], seen_ND[n : n + 1, order]).quadratic_ND[0]
        np.testing.assert_allclose(here, there[order], rtol=1e-9)


def test_thin_axes_stay_exact_with_a_missing_value() -> None:
    """Two equal columns, one of them missing: the other's own distribution, and the same expectation."""
    L = np.array([[1.0, 0.0], [1.0, 1e-3]])
    zero = torch.zeros(1, 1, 2)
    p = MixtureT(torch.zeros(1, 1), zero, zero - 4.0, torch.from_numpy(L), DOF)
    y_ND, seen_ND = torch.tensor([[0.01, 0.0]], dtype=torch.float64), torch.tensor([[True, False]])
    judged = p.judge(y_ND, seen_ND)
    assert float(judged.nll_N) == pytest.approx(-student(DOF, scale=np.exp(-4)).logpdf(0.01), rel=1e-6)
    assert float(judged.expected_ND[0, 1]) == pytest.approx(0.01, rel=1e-6)


def test_draws_have_the_mixtures_mean_and_covariance() -> None:
    count, dof = 200_000, 12.0
    one = made(2, 1, dof)
    parts = (
        part[:1].expand(count, *part.shape[1:])
        for part in (one.log_weight_NK, one.mean_NKD, one.log_scale_NKD)
    )
    y_ND = MixtureT(*parts, one.factor_DD, dof).draw(np.random.default_rng(0)).numpy()
    weight_K = np.exp(one.log_weight_NK[0].numpy())
    both = [component(one, 0, k) for k in range(K)]
    mean_D = sum(w * m_D for w, (m_D, _) in zip(weight_K, both, strict=True))
    second_DD = sum(
        w * (dof / (dof - 2) * S_DD + np.outer(m_D, m_D))
        for w, (m_D, S_DD) in zip(weight_K, both, strict=True)
    )
    np.testing.assert_allclose(y_ND.mean(0), mean_D, atol=0.02)
    np.testing.assert_allclose(y_ND.T @ y_ND / count, second_DD, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("dof", [2.5, 8.0, 300.0])
def test_quantiles_are_where_the_share_is_below(dof: float) -> None:
    rng = np.random.default_rng(3)
    weight_K = np.array([0.2, 0.5, 0.3])
    location_KD, spread_KD = 3 * rng.normal(size=(K, D)), rng.uniform(0.1, 2.0, (K, D))
    for share in (0.05, 0.95):
        found_D = Quantiles(dof).of(share, weight_K, location_KD, spread_KD)
        below_D = weight_K @ student(dof).cdf((found_D - location_KD) / spread_KD)
        np.testing.assert_allclose(below_D, share, atol=1e-5)


def test_what_the_stretch_learns_is_the_derivative_of_the_nll() -> None:
    """By central differences: of each axis for a record seen whole, else of all at once, in equal parts."""
    p, (y_ND, seen_ND) = made(), records()
    gradient_ND = p.judge(y_ND, seen_ND).stretch_ND

    def nll_N(by_D: torch.Tensor) -> torch.Tensor:
        return replace(p, log_scale_NKD=p.log_scale_NKD + by_D).judge(y_ND, seen_ND).nll_N

    unit_DD = 1e-5 * torch.eye(D, dtype=torch.float64)
    each_ND = torch.stack([(nll_N(unit_D) - nll_N(-unit_D)) / 2e-5 for unit_D in unit_DD], 1)
    all_N1 = each_ND.sum(1, keepdim=True) / seen_ND.sum(1, keepdim=True)
    whole_N1 = seen_ND.all(1, keepdim=True)
    torch.testing.assert_close(gradient_ND, torch.where(whole_N1, each_ND, all_N1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("given", [[0.8, np.nan], [np.nan, -1.5], [np.nan, np.nan]])
def test_what_is_drawn_beside_what_is_given_has_the_conditional_distribution(given: list[float]) -> None:
    """Against SciPy's joint density on a grid, cut where it is given and made to integrate to one."""
    count = 4000
    one = made(D=2, N=1)
    p = MixtureT(*(part.expand(count, *part.shape[1:]) for part in (one.log_weight_NK, one.mean_NKD)),
                 one.log_scale_NKD.expand(count, K, 2), one.factor_DD, DOF)  # fmt: skip
    y_ND = torch.from_numpy(np.tile(np.nan_to_num(given), (count, 1)))
    seen_ND = torch.from_numpy(np.tile(~np.isnan(given), (count, 1)))
    drawn_ND = p.draw_given(np.random.default_rng(0), y_ND, seen_ND).numpy()
    for d in range(2):
        if not np.isnan(given[d]):
            assert (drawn_ND[:, d] == given[d]).all()
    d = int(np.isnan(given).argmax())
    grid_G = np.linspace(-60, 60, 24_001)
    density_G = np.zeros_like(grid_G)
    for k in range(K):
        m_D, S_DD = component(one, 0, k)
        weight = float(torch.exp(one.log_weight_NK[0, k]))
        if np.isnan(given).all():
            density_G += weight * multivariate_t(m_D[d], S_DD[d, d], df=DOF).pdf(grid_G)
            continue
        point_GD = np.tile(np.nan_to_num(given), (len(grid_G), 1))
        point_GD[:, d] = grid_G
        density_G += weight * multivariate_t(m_D, S_DD, df=DOF).pdf(point_GD)
    cdf_G = np.cumsum(density_G) / density_G.sum()
    uniform = np.interp(drawn_ND[:, d], grid_G, cdf_G)
    assert kstest(uniform, "uniform").pvalue > 0.01


def test_what_is_missing_has_the_intervals_of_its_conditional_draws() -> None:
    count = 20_000
    y_ND, seen_ND = records()
    for n in (1, 2, 4, 5):
        one = made().some(torch.tensor([n] * count))
        y_MD, seen_MD = y_ND[[n] * count], seen_ND[[n] * count]
        drawn_MD = one.draw_given(np.random.default_rng(n), y_MD, seen_MD).numpy()
        weight_K, location_KD, spread_KD = (
            part[0].numpy() for part in one.some(torch.tensor([0])).given(y_MD[:1], seen_MD[:1])
        )
        missing_D, table = ~seen_ND[n].numpy(), quantiles(DOF + int(seen_ND[n].sum()))
        for share in (0.05, 0.5, 0.95):
            edge_D = table.of(share, weight_K, location_KD, spread_KD)
            below_D = (drawn_MD < edge_D).mean(0)
            np.testing.assert_allclose(
                below_D[missing_D], share, atol=4 * np.sqrt(share * (1 - share) / count)
            )


def test_a_thin_axis_leaves_a_thin_interval() -> None:
    """Of two columns that are equal to a part in 10⁹ the missing one is known as well, by the closed form."""
    for thin in (1e-3, 1e-9):
        L = torch.tensor([[1.0, 0.0], [1.0, thin]], dtype=torch.float64)
        zero = torch.zeros(1, 1, 2)
        p = MixtureT(torch.zeros(1, 1), zero, zero, L, DOF)
        y_ND, seen_ND = torch.tensor([[3.0, 0.0]], dtype=torch.float64), torch.tensor([[True, False]])
        _, location_NKD, spread_NKD = p.given(y_ND, seen_ND)
        assert float(location_NKD[0, 0, 1]) == pytest.approx(3.0)
        assert float(spread_NKD[0, 0, 1]) == pytest.approx(thin * np.sqrt((DOF + 9) / (DOF + 1)), rel=1e-6)
