"""The density of whole records: that it is one, what it may look at, and that draws are from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from streamgen.models.flat import Shapes, flat_size, flat_views
from streamgen.models.joint import CLOSE, COMPONENTS, PLACES, SHORTEST, Joint, Places, _parts, begin, shapes

F, H = 3, 8


def places(N: int, D: int) -> Places:
    draw = torch.Generator().manual_seed(1)
    lower = [
        torch.tril(0.5 * torch.randn(D, D, dtype=torch.float64, generator=draw), -1) + torch.diag(diagonal)
        for diagonal in (torch.linspace(0.6, 1.2, D), torch.linspace(1.1, 0.7, D))
    ]
    last_ND, home_ND = torch.tensor([0.4, -0.7, 0.2]), torch.tensor([-1.0, 0.8, 0.5])
    return Places(
        last_ND[:D].double().expand(N, D),
        home_ND[:D].double().expand(N, D),
        torch.tensor([0.3, 1.7, 0.9])[:D].double().expand(N, D),
        torch.linspace(1.5, 2.0, D).double(),
        *(one.double() for one in lower),
    )


def joint(N: int, D: int, dof: float = 8.0) -> Joint:
    named: Shapes = shapes(F, H, D)
    drawn_P = 0.7 * torch.randn(
        flat_size(named), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    begin(flat_views(named, drawn_P))
    known_1F = torch.tensor([[0.3, -0.5, 1.0]], dtype=torch.float64)
    return Joint(flat_views(named, drawn_P), known_1F.expand(N, F), places(N, D), dof)


def test_it_integrates_to_one() -> None:
    grid_G = torch.sinh(torch.linspace(-6, 6, 1001, dtype=torch.float64))  # close where it is narrow
    width_G = torch.gradient(grid_G)[0]
    # The second feature's grid is about where the first one's narrow components are, for each of them.
    y_ND = torch.cartesian_prod(grid_G, grid_G)
    density_N = torch.exp(-joint(len(y_ND), 2).nll(y_ND))
    total = (density_N.view(1001, 1001) * width_G[:, None] * width_G).sum()
    assert float(total) == pytest.approx(1.0, abs=0.02)


def test_a_feature_looks_at_those_before_it_alone() -> None:
    """By the derivative of each feature's part of the nll for every other feature."""
    y_1D = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    first, both, all_three = (_first(d, y_1D) for d in (1, 2, 3))
    (gradient_1D,) = torch.autograd.grad(first, y_1D, retain_graph=True)
    assert gradient_1D[0, 0] != 0
    assert (gradient_1D[0, 1:] == 0).all()
    (gradient_1D,) = torch.autograd.grad(both, y_1D, retain_graph=True)
    assert (gradient_1D[0, :2] != 0).all()
    assert gradient_1D[0, 2] == 0
    (gradient_1D,) = torch.autograd.grad(all_three, y_1D)
    assert (gradient_1D != 0).all()


def _first(d: int, y_1D: torch.Tensor) -> torch.Tensor:
    """−log p(y_1 … y_d): what is left when the later features are integrated away."""
    D = y_1D.shape[1]
    if d == D:
        return joint(1, D).nll(y_1D).sum()
    # p of the first d does not depend on the weights of the others: they may be anything, at any value.
    totals = []
    for later in (-1.0, 2.0):
        moved_1D = torch.cat([y_1D[:, :d], torch.full((1, D - d), later, dtype=torch.float64)], 1)
        totals.append(_parts_of(moved_1D)[0, :d].sum())
    assert float(totals[0].detach()) == pytest.approx(float(totals[1].detach()), abs=1e-12)
    return _parts_of(y_1D)[0, :d].sum()


def _parts_of(y_1D: torch.Tensor) -> torch.Tensor:
    """The nll of each feature given those before it, [1, D], by the definition, component by component."""

    one = joint(1, y_1D.shape[1])
    r_NAD, log_unit_NAD = one.at.seen(y_1D)
    before_N3D = torch.asinh(torch.cat([r_NAD[:, 0], r_NAD[:, 2], r_NAD[:, 4]], 1))
    hidden_NH = torch.tanh(one._known_NH + before_N3D @ one._enter_3DH)
    out_NCD = torch.einsum("nh,hcd->ncd", hidden_NH, one._leave_HCD) + one._bias_CD
    logit, mean, log_scale = (part.unflatten(1, (PLACES, COMPONENTS)) for part in _parts(out_NCD))
    log_weight = logit - torch.logsumexp(logit, (1, 2), keepdim=True)
    t = torch.distributions.StudentT(torch.tensor(8.0, dtype=torch.float64), mean, torch.exp(log_scale))
    log_NAKD = log_weight + t.log_prob(r_NAD.unsqueeze(2)) - log_unit_NAD.unsqueeze(2)
    return -torch.logsumexp(log_NAKD.flatten(1, 2), 1)


def test_the_nll_is_that_of_mixtures_of_torchs_t() -> None:
    y_1D = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    assert float(joint(1, 3).nll(y_1D)) == pytest.approx(float(_parts_of(y_1D).sum()), rel=1e-12)


def test_the_places_are_what_they_say() -> None:
    at, y_1D = places(1, 3), torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    r_NAD, log_unit_NAD = at.seen(y_1D)
    v_1D = (y_1D - at.home_ND) / at.wide_D
    expected = [y_1D, y_1D - at.last_ND, y_1D @ at.step_DD.inverse().T, v_1D]
    expected += [v_1D @ at.level_DD.inverse().T, y_1D / at.size_ND, y_1D / at.home_ND]
    torch.testing.assert_close(r_NAD, torch.stack(expected, 1))
    # w is what y moves by when r does, the features before it as they are.
    for d in range(3):
        moved_1D = y_1D.clone()
        moved_1D[0, d] += 1e-6
        slope_A = (at.seen(moved_1D)[0] - r_NAD)[0, :, d] / 1e-6
        torch.testing.assert_close(1 / slope_A.abs(), torch.exp(log_unit_NAD[0, :, d]), rtol=1e-6, atol=0)


def test_what_the_network_sees_of_the_places() -> None:
    at = places(1, 3)
    way = np.concatenate([at.last_ND, at.home_ND, at.home_ND - at.last_ND], 1)
    expected = np.concatenate([np.arcsinh(way), np.arcsinh(CLOSE * way) / 4], 1)
    np.testing.assert_allclose(at.known().numpy(), expected)


@pytest.mark.parametrize("home", [0.0, -5e-4])
def test_the_way_to_a_usual_value_has_a_shortest_length(home: float) -> None:
    at = replace(places(1, 2), home_ND=torch.tensor([[home, 2.0]], dtype=torch.float64))
    r_NAD, log_unit_NAD = at.seen(torch.tensor([[0.3, -0.2]], dtype=torch.float64))
    assert r_NAD[0, -1].tolist() == pytest.approx([0.3 / SHORTEST, -0.1])
    assert torch.exp(log_unit_NAD[0, -1]).tolist() == pytest.approx([SHORTEST, 2.0])


@pytest.mark.parametrize(("hidden", "D"), [(1, 1), (2, 3), (3, 3), (8, 20), (128, 28)])
def test_units_are_spread_over_the_features(hidden: int, D: int) -> None:
    """A unit enters features of a number or more, and leaves to the others; the first sees none, and every
    feature has units."""
    named = shapes(F, hidden, D)
    ones = flat_views(named, torch.ones(flat_size(named), dtype=torch.float64))
    at = replace(
        places(1, 1),
        **{name: torch.ones(1, D, dtype=torch.float64) for name in ("last_ND", "home_ND", "size_ND")},
    )
    at = replace(at, wide_D=torch.ones(D, dtype=torch.float64), step_DD=torch.eye(D, dtype=torch.float64))
    one = Joint(ones, torch.zeros(1, F, dtype=torch.float64), replace(at, level_DD=at.step_DD), 8.0)
    seen_DH, told_HD = one._enter_3DH[:D] != 0, one._leave_HCD[:, 0] != 0
    assert not (told_HD.T.long() @ seen_DH.T.long()).triu().any()  # of a feature from itself or a later one
    assert told_HD.any(0).all()
    alone = int((seen_DH.sum(0) == 0).sum())
    assert alone >= max(1, hidden // 4)
    if hidden >= 2 * D:
        assert (np.bincount(seen_DH.sum(0).numpy(), minlength=D)[1:] > 0).all()


def test_draws_are_from_the_density() -> None:
    """The mean of the nll over draws, of the density and of one that is a bit off, against integrals."""
    N = 200_000
    one = joint(N, 2)
    y_ND = one.draw(np.random.default_rng(0))
    grid_G = torch.sinh(torch.linspace(-6, 6, 1001, dtype=torch.float64))
    width_G = torch.gradient(grid_G)[0]
    grid_ND = torch.cartesian_prod(grid_G, grid_G)
    share_N = torch.exp(-joint(len(grid_ND), 2).nll(grid_ND)) * (width_G[:, None] * width_G).flatten()
    share_N = share_N / share_N.sum()
    for ask in (torch.tanh(grid_ND), torch.tanh(grid_ND) ** 2):
        expected_D = (share_N[:, None] * ask).sum(0)
        drawn = torch.tanh(y_ND) if ask is not None and (ask < 0).any() else torch.tanh(y_ND) ** 2
        torch.testing.assert_close(drawn.mean(0), expected_D, atol=0.006, rtol=0)
    both = float((share_N * torch.tanh(grid_ND[:, 0]) * torch.tanh(grid_ND[:, 1])).sum())
    drawn_both = float((torch.tanh(y_ND[:, 0]) * torch.tanh(y_ND[:, 1])).mean())
    assert drawn_both == pytest.approx(both, abs=0.006)


def test_some_of_them_are_those() -> None:
    at = places(4, 2)
    named = shapes(F, H, 2)
    drawn_P = torch.randn(flat_size(named), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    known_NF = torch.randn(4, F, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    four = Joint(flat_views(named, drawn_P), known_NF, at, 8.0)
    y_ND = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rows = torch.tensor([True, False, True, False])
    torch.testing.assert_close(four.some(rows).nll(y_ND[rows]), four.nll(y_ND)[rows])
