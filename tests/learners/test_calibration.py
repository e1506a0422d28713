"""p-values: valid on streams that are what they were, in the body and beyond the largest seen."""

import numpy as np
import pytest
from scipy.stats import genpareto

from streamgen.learners import calibration
from streamgen.learners.calibration import Calibration, fit_tail
from streamgen.models.slab import Slab
from streamgen.records import Floats


def ranked(surprise_NS: Floats, learn: bool = True) -> tuple[Floats, np.ndarray]:
    calibrated = Calibration(surprise_NS.shape[1])
    slab = Slab(calibrated.fields())
    slab.add()
    N = len(surprise_NS)
    return calibrated.rank(slab, np.zeros(N, dtype=np.int64), surprise_NS, np.full(N, learn))


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng, n: rng.exponential(size=n), id="exponential"),
        pytest.param(lambda rng, n: 2.5 * np.log1p(rng.normal(size=n) ** 2 / 4), id="gaussian data, t nll"),
        pytest.param(lambda rng, n: 2.5 * np.log1p(rng.standard_t(4, n) ** 2 / 4), id="t data, t nll"),
        pytest.param(lambda rng, n: rng.pareto(3, n), id="heavy tail"),
    ],
)
def test_p_values_are_valid_within_sampling_error(draw) -> None:
    N = 60_000
    p_N, _ = ranked(draw(np.random.default_rng(0), N)[:, None])
    settled = p_N[calibration.MEMORY :]
    for alpha in (0.05, 0.01, 0.001):
        expected = alpha * len(settled)
        # The ranks of neighbours share a memory: the spread is a little more than binomial.
        assert abs((settled <= alpha).sum() - expected) < 4 * np.sqrt(expected)


def test_beyond_the_memory_the_tail_goes_on() -> None:
    p_N, _ = ranked(np.random.default_rng(1).exponential(size=400_000)[:, None])
    settled = p_N[calibration.MEMORY :]
    for alpha in (1e-4, 2e-5):  # a rank alone stops at 1 / 4,097
        expected = alpha * len(settled)
        assert 0.5 * expected - 3 < (settled <= alpha).sum() < 1.5 * expected + 6


def test_two_questions_that_depend_on_each_other_still_give_a_valid_p() -> None:
    one = np.random.default_rng(2).exponential(size=40_000)
    p_N, _ = ranked(np.stack([one, 3 * one + 1], axis=1))
    settled = p_N[calibration.MEMORY :]
    for alpha in (0.05, 0.01):
        expected = alpha * len(settled)
        assert abs((settled <= alpha).sum() - expected) < 4 * np.sqrt(expected)


def test_either_question_alone_makes_a_record_strange() -> None:
    surprise_NS = np.random.default_rng(3).exponential(size=(3000, 2))
    surprise_NS[-1] = [40.0, 1.0]
    surprise_NS[-2] = [1.0, 40.0]
    p_N, _ = ranked(surprise_NS)
    assert (p_N[-2:] < 1e-3).all()


def test_a_record_is_ranked_before_it_is_remembered_and_silence_is_kept() -> None:
    surprise_NS = np.ones((5, 1))
    surprise_NS[2] = np.nan
    p_N, ranked_N = ranked(surprise_NS)
    assert ranked_N.tolist() == [0, 1, 2, 2, 3]
    assert p_N.tolist() == [1.0] * 5  # the first has no memory, the third no opinion, the others tie
    _, ranked_N = ranked(surprise_NS, learn=False)
    assert ranked_N.tolist() == [0] * 5


def test_the_fitted_tail_is_the_tail_that_was_drawn() -> None:
    for shape, scale in ((0.0, 2.0), (0.3, 1.0)):
        fits = [
            fit_tail(
                np.concatenate(
                    [np.zeros(9 * 4000), genpareto.rvs(shape, scale=scale, size=4000, random_state=seed)]
                ).astype(np.float32)
            )
            for seed in range(5)
        ]
        assert np.mean([fit[1] for fit in fits]) == pytest.approx(shape, abs=0.05)
        assert np.mean([fit[2] for fit in fits]) == pytest.approx(scale, rel=0.07)


def test_no_tail_no_trouble() -> None:
    p_N, _ = ranked(np.concatenate([np.zeros(200), [5.0]])[:, None])
    assert 0 < p_N[-1] <= 1 / 201
