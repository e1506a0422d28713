"""What was seen, by NumPy over the whole stream, and who leaves it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamgen.models import span
from streamgen.models.free_run import _Given
from streamgen.models.mixture_t import MixtureT
from streamgen.models.slab import Slab
from streamgen.models.span import Span


def spanned(value_ND: np.ndarray) -> Span:
    slab = Slab(span.fields(value_ND.shape[1]))
    now = Span.of(slab, slab.add())
    before_D = np.full(value_ND.shape[1], np.nan)
    for value_D in value_ND:
        now.observe(value_D, value_D - before_D)
        before_D = np.where(np.isnan(value_D), before_D, value_D)
    return now


def test_it_is_that_of_all_values_and_of_all_steps() -> None:
    value_ND = np.random.default_rng(0).normal(size=(200, 3)).cumsum(0)
    now = spanned(value_ND)
    step_ND = np.diff(value_ND, axis=0)
    expected = (value_ND.min(0), value_ND.max(0), step_ND.min(0), step_ND.max(0))
    assert all(np.array_equal(one, other) for one, other in zip(now[:4], expected, strict=True))


def test_a_missing_value_is_none() -> None:
    now = spanned(np.array([[1.0, np.nan], [np.nan, np.nan], [4.0, np.nan]]))
    assert [one[0] for one in now[:4]] == [1.0, 4.0, 3.0, 3.0]
    assert [one[1] for one in now[:4]] == [np.inf, -np.inf, np.inf, -np.inf]


def test_who_leaves_it_and_comes_back_to_its_end() -> None:
    now = spanned(np.array([[0.0, 5.0], [2.0, 4.0], [1.0, 5.0]]))  # 0 … 2 by −1 … 2, 4 … 5 by −1 … 1
    step_BD = np.array([[0.5, 0.5], [-0.5, 0.0], [2.5, 0.0], [0.0, -1.5], [1.5, 0.0]])
    value_BD = np.array([[1.5, 4.5], [-0.5, 4.5], [1.5, 4.5], [1.0, 4.0], [2.5, 4.0]])
    none_D = np.zeros(2)
    assert now.beyond(value_BD, step_BD, none_D).tolist() == [False, True, True, True, True]
    nearest_BD = now.nearest(value_BD, step_BD)
    assert nearest_BD.tolist() == [[1.5, 4.5], [0.0, 4.5], [1.0, 4.5], [1.0, 4.5], [2.0, 4.0]]
    assert now.anywhere().beyond(value_BD, step_BD, none_D).tolist() == [False, False, True, True, False]
    assert now.jumping().beyond(value_BD, step_BD, none_D).tolist() == [False, True, False, False, True]


def test_a_feature_that_was_never_seen_or_never_moved_has_nothing_drawn_again() -> None:
    """It would be for ever: no draw is the one value. It is put there."""
    now = spanned(np.array([[3.0, np.nan, 0.0], [3.0, np.nan, 1.0], [3.0, np.nan, 0.0]]))
    value_BD, step_BD = np.array([[9.0, 7.0, 0.5]]), np.array([[6.0, 7.0, 0.5]])
    assert not now.beyond(value_BD, step_BD, np.zeros(3)).any()
    assert now.nearest(value_BD, step_BD).tolist() == [[3.0, 7.0, 0.5]]
    assert now.beyond(np.array([[3.0, 7.0, 1.5]]), np.array([[0.0, 7.0, 0.5]]), np.zeros(3)).all()


def test_beside_a_column_that_never_moves_no_other_is_pushed_to_its_end() -> None:
    rng = np.random.default_rng(0)
    value_ND = np.stack([np.full(500, 3.5), rng.uniform(-1, 1, 500)], 1)
    now, N = spanned(value_ND), 4000
    mixture = MixtureT(
        torch.zeros(N, 1), torch.zeros(N, 1, 2), torch.zeros(N, 1, 2), torch.eye(2, dtype=torch.float64), 8.0
    )
    origin_BD = np.tile([3.5, 0.0], (N, 1))
    drawn_BD = now.draw(mixture, rng, origin_BD, np.array([0.1, 0.5]))
    assert (drawn_BD[:, 0] == 3.5).all()
    assert (np.abs(drawn_BD[:, 1]) > 0.99).mean() < 0.02


class Blurred:
    """A uniform distribution between ±1 as a smooth density has it; one of ten is far beyond."""

    def __init__(self, count: int) -> None:
        self.count = count

    def draw(self, noise: np.random.Generator) -> torch.Tensor:
        y_B = noise.uniform(-1, 1, self.count) + 0.2 * noise.normal(size=self.count)
        return torch.from_numpy(np.where(noise.random(self.count) < 0.1, 10.0, y_B)[:, None])

    def some(self, rows_B: torch.Tensor) -> Blurred:
        return Blurred(int(rows_B.sum()))


def test_what_a_smooth_density_has_beyond_a_bound_is_inside_beside_it() -> None:
    rng, N = np.random.default_rng(0), 40_000
    now = spanned(rng.uniform(-1, 1, (5000, 1)))
    drawn_B1 = now.draw(Blurred(N), rng, np.zeros((N, 1)), np.ones(1))
    share_K = np.histogram(drawn_B1, 10, (-1, 1))[0] / N
    np.testing.assert_allclose(share_K, 0.1, atol=0.006)


@pytest.mark.parametrize(("cells", "blur"), [(10, 1.0), (4, 0.5)])
def test_so_it_is_beside_the_outermost_value_of_a_grid(cells: int, blur: float) -> None:
    """Whole numbers, each as often, from a density that is a bit too smooth."""

    class Whole(Blurred):
        def draw(self, noise: np.random.Generator) -> torch.Tensor:
            y_B = noise.integers(0, cells, self.count) + blur * noise.normal(size=self.count)
            return torch.from_numpy(y_B[:, None])

        def some(self, rows_B: torch.Tensor) -> Whole:
            return Whole(int(rows_B.sum()))

    rng, N = np.random.default_rng(0), 40_000
    now = spanned(rng.integers(0, cells, (5000, 1)).astype(float))
    drawn_B1 = now.draw(Whole(N), rng, np.zeros((N, 1)), np.ones(1))
    share_K = np.bincount(drawn_B1[:, 0].astype(int), minlength=cells) / N
    np.testing.assert_allclose(share_K * cells, 1.0, atol=0.06)


def test_decimals_and_tens_are_a_grid() -> None:
    rng = np.random.default_rng(0)
    columns = [
        rng.integers(0, 8, 100) * 10.0,
        rng.integers(0, 5000, 100) / 100.0,
        rng.integers(-40, 40, 100) * 0.25,
        rng.normal(size=100),
        rng.integers(0, 10, 100) * 1e13,  # its millionths are no int64
        np.full(100, 3.7),
    ]
    now = spanned(np.stack(columns, 1))
    assert now.grid_D.tolist() == [10_000_000, 10_000, 250_000, span.NO_GRID, span.NO_GRID, 3_700_000]
    value_1D = np.array([[14.0, 12.3456, 1.2, 0.12345, 1.5e13, 3.7]])
    assert now.on_grid(value_1D).tolist() == [[10.0, 12.35, 1.25, 0.12345, 1.5e13, 3.7]]
    few = spanned(np.stack(columns, 1)[: span.ENOUGH - 1])
    assert few.on_grid(value_1D).tolist() == value_1D.tolist()


def test_missing_values_and_zeros_leave_the_grid_as_it_is() -> None:
    now = spanned(np.array([[np.nan, 0.0], [0.5, 0.0], [np.nan, 0.0]]))
    assert now.grid_D.tolist() == [500_000, 0]
    assert now.told_D.tolist() == [1, 3]


def test_a_column_that_was_never_above_another_one_is_not_above_it() -> None:
    rng = np.random.default_rng(0)
    day_N4 = rng.normal(size=(400, 4)).cumsum(1)
    low_N, high_N, open_N, close_N = day_N4.min(1), day_N4.max(1), day_N4[:, 0], day_N4[:, 3]
    value_ND = np.stack([open_N, high_N, low_N, close_N, close_N], 1)
    now, N = spanned(value_ND), 2000
    pairs = set(zip(*(part.tolist() for part in now.ordered()), strict=True))
    assert pairs == {(0, 1), (3, 1), (4, 1), (2, 0), (2, 1), (2, 3), (2, 4)}  # equal ones have no order
    assert not set(zip(*spanned(value_ND[:200]).ordered(), strict=True))
    mean_NKD = torch.tensor([0.0, 1.0, -1.0, 0.0, 0.0]).expand(N, 1, 5)
    eye_DD = torch.eye(5, dtype=torch.float64)
    mixture = MixtureT(torch.zeros(N, 1), mean_NKD, torch.zeros(N, 1, 5), eye_DD, 8.0)
    drawn_BD = now.draw(mixture, rng, np.zeros((N, 5)), np.full(5, 0.5))
    for lower, upper in pairs:
        assert (drawn_BD[:, lower] <= drawn_BD[:, upper]).all()
        # Drawn again, and not moved to where they are equal: but for what a fiftieth of a step explains.
        assert (drawn_BD[:, lower] == drawn_BD[:, upper]).mean() < 0.1


@pytest.mark.parametrize("at", [0.4, 3.25, -7.0])
def test_beside_a_fixed_value_the_others_keep_to_the_span_and_it_stays(at: float) -> None:
    """Open, high, low, close in quarters; the close is fixed, also where it never was, and off the grid."""
    rng, N = np.random.default_rng(0), 500
    day_N4 = np.round(4 * rng.normal(size=(2000, 4)).cumsum(1)) / 4
    value_ND = np.stack([day_N4[:, 0], day_N4.max(1), day_N4.min(1), day_N4[:, 3]], 1)
    now = spanned(value_ND).anywhere()
    p = MixtureT(
        torch.zeros(N, 1), torch.tensor([0.0, 1.0, -1.0, 0.0]).expand(N, 1, 4), torch.zeros(N, 1, 4),
        torch.eye(4, dtype=torch.float64), 8.0,
    )  # fmt: skip
    origin_BD, unit_D = np.zeros((N, 4)), np.full(4, 0.5)
    fixed_D = np.array([False, False, False, True])
    y_BD = torch.from_numpy(np.tile([0.0, 0.0, 0.0, at / 0.5], (N, 1)))
    one = _Given(p, y_BD, torch.from_numpy(np.tile(fixed_D, (N, 1))))
    drawn_BD = now.draw(one, rng, origin_BD, unit_D, fixed_D)
    assert drawn_BD[:, 3] == pytest.approx(at)
    free_BD = drawn_BD[:, :3]
    moved_BD = np.isclose(free_BD, at)  # to be in order with what is off the grid
    assert ((free_BD * 4 == np.round(free_BD * 4)) | moved_BD).all()
    assert (drawn_BD[:, 2] <= drawn_BD.min(1) + 1e-12).all()
    assert (drawn_BD[:, 1] >= drawn_BD.max(1) - 1e-12).all()
    step_ND = np.diff(value_ND, axis=0)
    assert free_BD[:, 0].min() >= step_ND[:, 0].min()
    assert free_BD[:, 0].max() <= step_ND[:, 0].max()


def test_who_stands_at_the_end_of_the_range_is_not_drawn_again() -> None:
    """A lamp in tens and a share, both nothing half of the time: a draw of nothing is a bit below it every
    second time."""
    rng, N = np.random.default_rng(0), 4000
    on_N2 = np.stack([rng.integers(1, 5, 500) * 10.0, rng.random(500)], 1)
    now = spanned(np.where(rng.random(500)[:, None] < 0.5, 0.0, on_N2))
    weight_NK = torch.log(torch.tensor([0.5, 0.5])).expand(N, 2)
    mean_NKD = torch.tensor([[0.0, 0.0], [2.0, 2.0]]).expand(N, 2, 2)
    log_scale_NKD = torch.tensor([[-5.5, -5.5], [-2.0, -2.0]]).expand(N, 2, 2)
    mixture = MixtureT(weight_NK, mean_NKD, log_scale_NKD, torch.eye(2, dtype=torch.float64), 1000.0)
    drawn_BD = now.draw(mixture, rng, np.zeros((N, 2)), np.array([10.0, 0.2]))
    assert set(drawn_BD[:, 0]) <= {0.0, 10.0, 20.0, 30.0, 40.0}
    assert (drawn_BD >= 0).all()
    assert (drawn_BD[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert (drawn_BD[:, 1] < 0.05).mean() == pytest.approx(0.5, abs=0.03)


def test_values_of_a_grid_are_learned_with_noise_that_it_takes_away() -> None:
    value_ND = np.stack([np.arange(100) % 7 * 10.0, np.random.default_rng(0).normal(size=100)], 1)
    now = spanned(value_ND)
    assert now.jitter().tolist() == [1.25, 0.0]
    noise_ND = np.random.default_rng(1).normal(size=(100, 2))
    assert np.array_equal(now.on_grid(value_ND + now.jitter() * noise_ND), value_ND)
