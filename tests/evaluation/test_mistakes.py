"""Each way to generate badly is told from the real stream by a figure, and the real one by none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from streamgen.errors import InputError
from streamgen.evaluation import (
    QUICK,
    Figure,
    copies,
    cut,
    discriminative_score,
    evaluate,
    predictive_score,
)
from streamgen.records import Floats

LENGTH, COUNT = 12, 240


def stream(seed: int, count: int = COUNT) -> Floats:
    """Two columns that swing and follow one another, as windows that do not overlap."""
    rng, state, rows = np.random.default_rng(seed), np.zeros(2), []
    turn = 0.9 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    for _ in range(count * LENGTH + 50):
        state = turn @ state + rng.normal(size=2) * [1.0, 0.3]
        rows.append([state[0], state[0] + 0.5 * state[1]])
    return cut(np.array(rows[50:]), LENGTH, LENGTH)


def shuffled_time(windows: Floats) -> Floats:
    rng = np.random.default_rng(0)
    return np.stack([window[rng.permutation(LENGTH)] for window in windows])


def collapsed(windows: Floats) -> Floats:
    return windows[:1] + 0.01 * np.random.default_rng(0).normal(size=windows.shape)


def a_third_of_the_modes(windows: Floats) -> Floats:
    """Only windows that begin high."""
    high = windows[np.argsort(windows[:, 0, 0])[-COUNT // 3 :]]
    return high[np.random.default_rng(0).integers(len(high), size=COUNT)] + 1e-3


MISTAKES: dict[str, tuple[Callable[[Floats], Floats], str]] = {
    "shuffled time": (shuffled_time, "autocorrelation difference"),
    "swapped columns": (lambda windows: windows[:, :, ::-1], "cross-correlation difference"),
    "columns on their own": (
        lambda windows: np.stack([windows[:, :, 0], windows[::-1, :, 1]], axis=2),
        "cross-correlation difference",
    ),
    "constant output": (lambda windows: np.zeros_like(windows), "marginal difference"),
    "mode collapse": (collapsed, "coverage"),
    "a third of the modes": (a_third_of_the_modes, "recall"),
    "wrong scale": (lambda windows: 1.5 * windows, "marginal difference"),
    "noise on top": (
        lambda windows: windows + np.random.default_rng(0).normal(size=windows.shape), "density",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def real() -> Floats:
    return stream(0)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught(real: Floats, mistake: str) -> None:
    spoil, name = MISTAKES[mistake]
    found = {figure.name: figure for figure in evaluate(real, spoil(stream(1)), measures=QUICK)}
    assert found[name].worse_than_real, found[name]


def test_the_stream_itself_is_not(real: Floats) -> None:
    """At 2.5 % a figure, over ten runs of seven figures, chance may catch some."""
    caught = [
        figure.name
        for seed in range(1, 11)
        for figure in evaluate(real, stream(seed), measures=QUICK)
        if figure.worse_than_real
    ]
    assert len(caught) <= 7, caught


def drifting(seed: int) -> Floats:
    rise = np.linspace(0, 10, 400)[:, None, None]
    return rise + np.random.default_rng(seed).normal(size=(400, LENGTH, 1))


def test_few_generated_windows_of_a_stream_that_drifts_have_a_null_of_all_its_time() -> None:
    some = np.random.default_rng(0).permutation(400)[:60]
    for spoil, caught in ((0.0, False), (2.0, True)):
        figures = evaluate(drifting(0), drifting(1)[some] + spoil, 5, QUICK)
        found = {figure.name: figure for figure in figures}
        assert found["marginal difference"].worse_than_real == caught, found["marginal difference"]
        assert found["marginal difference"].null < 0.4


def test_copies_are_caught_though_all_else_is_perfect(real: Floats) -> None:
    found = evaluate(real, real[::-1].copy(), measures=QUICK)
    assert not any(figure.worse_than_real for figure in found if figure.name == "precision")
    assert copies(real, stream(1), real[::-1] + 1e-9) == 1.0
    assert copies(real, stream(1), stream(2)) < 0.12


def test_a_judge_tells_what_is_different_and_not_what_is_alike(real: Floats) -> None:
    alike = [discriminative_score(real, stream(1), seed, 16, 400) for seed in range(2)]
    told = [discriminative_score(real, 1.0 + stream(1), seed, 16, 400) for seed in range(2)]
    assert np.mean(alike) < 0.15
    assert np.mean(told) > 0.25


def test_the_stronger_judge_tells_more(real: Floats) -> None:
    other = shuffled_time(stream(1))
    weak, strong = (discriminative_score(real, other, 0, units, 300) for units in (1, 32))
    assert strong > weak + 0.05


def test_who_is_taught_by_useless_windows_predicts_badly(real: Floats) -> None:
    taught, misled = (
        predictive_score(real, windows, 0, iterations=1500)
        for windows in (stream(1), shuffled_time(stream(1)))
    )
    assert taught < 0.75 * misled


@pytest.mark.usefixtures("short_judges")
def test_the_judges_are_among_the_measures(real: Floats) -> None:
    """With so few iterations they see little, but that all is higher does not escape the encoder."""
    found = {figure.name: figure for figure in evaluate(real, 3.0 + stream(1), seeds=2)}
    assert len(found) == 11
    for figure in found.values():
        assert np.isfinite([figure.value, figure.null, figure.low, figure.high]).all(), figure
    assert found["Context-FID"].value > 2 * found["Context-FID"].null


def test_judges_are_repeatable_and_leave_torch_alone(real: Floats) -> None:
    state = torch.get_rng_state()
    scores = [discriminative_score(real, 1.1 * stream(1), 5, iterations=40) for _ in range(2)]
    errors = [predictive_score(real, stream(1), 5, iterations=20) for _ in range(2)]
    assert scores[0] == scores[1]
    assert errors[0] == errors[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_figure_knows_which_way_is_better() -> None:
    assert Figure("coverage", "higher", 0.5, 0.9, -0.5, -0.3).worse_than_real
    assert not Figure("coverage", "higher", 0.95, 0.9, 0.01, 0.1).worse_than_real
    assert Figure("marginal difference", "lower", 0.5, 0.1, 0.3, 0.5).worse_than_real
    assert not Figure("marginal difference", "lower", 0.1, 0.1, -0.1, 0.1).worse_than_real


def test_too_few_windows_tell_nothing(real: Floats) -> None:
    with pytest.raises(InputError, match="23 real and 240 generated windows over 3 seeds tell nothing"):
        evaluate(real[:23], stream(1), measures=QUICK)
    with pytest.raises(InputError, match="over 1 seeds"):
        evaluate(real, stream(1), seeds=1, measures=QUICK)
