"""Likelihoods in the data's units: densities integrate to one, bounds lie below the integral of a grid."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import norm

from streamgen.config import InputConfig
from streamgen.learners.task import Task
from streamgen.models.axes import Axes
from streamgen.models.likelihood import Bounds, Likelihood
from streamgen.models.online import Learner
from streamgen.models.rvae import RVAE
from streamgen.records import Columns, Floats, TopicPartition

T = 4
# By model and preset: small ones.
MODELS: dict[str, dict[str, object]] = {
    "light": {"name": "stream_ae", "hidden": 8},
    "full": {"name": "stream_ae", "preset": "full", "hidden": 8, "burn_in": 4, "reservoir": 9},
    "full, standard": {
        "name": "stream_ae", "preset": "full", "normalisation": "standard", "hidden": 8, "burn_in": 4,
        "reservoir": 9, "batch": 4,
    },
    "rvae": {"name": "rvae", "hidden": 8, "latent": 1, "components": 2, "free_bits": 0.5},
    "rvae, minmax": {"name": "rvae", "hidden": 8, "latent": 1, "components": 2, "normalisation": "minmax"},
}  # fmt: skip


def task(name: str, D: int) -> Task:
    window = {"length": T, "max_gap": "10m"}
    config = InputConfig(topic="t", model=MODELS[name], window=window)  # type: ignore[arg-type]
    return Task(TopicPartition("t", 0), config, tuple("abc"[:D]), 0, "cpu")


def columns(value_ND: Floats, first: int = 0, key: str = "k") -> Columns:
    offset_N = np.arange(first, first + len(value_ND))
    return Columns(offset_N, offset_N * 60_000, [key] * len(value_ND), value_ND, offset_N)


def wave(N: int, D: int = 1, unit: float = 1.0, seed: int = 0) -> Floats:
    noise_ND = np.random.default_rng(seed).normal(size=(N, D))
    return unit * (5 + np.sin(np.arange(N)[:, None] / 3 + np.arange(D)) + 0.2 * noise_ND)


@cache
def learned(name: str, D: int = 1, unit: float = 1.0) -> Task:
    """To be asked only: the tests share it."""
    one = task(name, D)
    one.process(columns(wave(90, D, unit)))
    return one


def likelihood(one: Task, value_ND: Floats, draws: int = 8, seed: int = 0, first: int = 90) -> Likelihood:
    return one.likelihood("k", columns(value_ND, first), draws, seed)


@pytest.mark.parametrize("name", MODELS)
def test_the_density_of_a_value_integrates_to_one(name: str) -> None:
    """Over the last of three records, of which the one before it is missing."""
    one, around = learned(name, unit=37.0), 37.0 * 5
    grid_G = around + 37.0 * np.sinh(np.linspace(-7, 7, 121))  # a Student-t has far tails
    before_N1 = wave(92, unit=37.0)[90:]
    before_N1[1] = np.nan
    log_p_G = [likelihood(one, np.vstack([before_N1, [x]]), draws=1).log_p_N[2] for x in grid_G]
    assert np.trapezoid(np.exp(log_p_G), grid_G) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_a_value_is_as_likely_before_it_is_learned_as_it_was_scored(name: str) -> None:
    """As long as no update came since."""
    one, new_ND = task(name, 2), wave(94, 2)[90:]
    one.process(columns(wave(90, 2)))
    found = likelihood(one, new_ND)
    host, updates, compared = one.slab.host, int(one.slab.host("updates")[0]), 0
    for n in range(4):
        delta_D = host("scale_step_D")[0].copy()  # the unit of a step, larger than its floors here
        nll = one.process(columns(new_ND[n : n + 1], 90 + n)).scores.nll_N[0]
        assert found.log_p_N[n] == pytest.approx(-nll - np.log(delta_D).sum(), rel=1e-6)
        compared += 1
        if host("updates")[0] > updates:
            break
    assert compared > 0
    assert found.values_N.tolist() == [2] * 4


@pytest.mark.parametrize("name", MODELS)
def test_of_data_in_larger_units_the_density_is_smaller(name: str) -> None:
    """Beside what rounds: the network has float32."""
    small, large = learned(name), learned(name, unit=1024.0)
    value_ND = wave(110)[90:]
    left, right = likelihood(small, value_ND), likelihood(large, 1024.0 * value_ND)
    assert right.log_p_N == pytest.approx(left.log_p_N - math.log(1024.0), abs=2e-3)
    assert right.last_value_N == pytest.approx(left.last_value_N - math.log(1024.0), abs=1e-9)
    if left.bounds is not None and right.bounds is not None:
        assert right.bounds.elbo_B == pytest.approx(left.bounds.elbo_B - T * math.log(1024.0), abs=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_changed_and_no_learner_is_taken_for_another(name: str) -> None:
    one = task(name, 1)
    for n, key in enumerate("kl"):
        one.process(columns(wave(60, seed=n), key=key))
    before = one.learners()
    new = {key: columns(wave(80)[60:], 60, key) for key in "kl"}
    found = [one.likelihood(key, new[key], 4, 0).log_p_N for key in "kl"]
    after = one.learners()
    for key, fields in before.items():
        assert all(fields[name].tobytes() == after[key][name].tobytes() for name in fields)
    for key, log_p_N in zip("kl", found, strict=True):
        alone = task(name, 1)
        alone.restore({}, {key: before[key]})
        assert alone.likelihood(key, new[key], 4, 0).log_p_N.tobytes() == log_p_N.tobytes()
    assert (found[0] != found[1]).any()


def test_the_last_value_is_a_laplace_of_the_mean_step() -> None:
    one = task("light", 1)
    one.process(columns(np.array([[9.0], [9.0], [9.0], [0.0], [3.0], [4.0]])))  # a learner from the fourth on
    found = likelihood(one, np.array([[4.5], [np.nan]]), first=6)
    assert found.last_value_N.tolist() == pytest.approx([-math.log(2 * 2.0) - 0.5 / 2.0, 0.0])
    assert found.values_N.tolist() == [1, 0]


def test_what_is_late_is_left_out() -> None:
    one, value_ND = learned("rvae"), wave(110)[90:]
    late = columns(value_ND, 90)
    late.timestamp_N[7] = 0
    kept_n = np.delete(np.arange(20), 7)
    kept = columns(value_ND, 90)
    kept = Columns(kept_n, kept.timestamp_N[kept_n], ["k"] * 19, value_ND[kept_n], kept_n)
    with_it, without = (one.likelihood("k", some, 3, 0) for some in (late, kept))
    assert with_it.values_N[7] == with_it.log_p_N[7] == 0
    assert np.delete(with_it.log_p_N, 7).tobytes() == without.log_p_N.tobytes()
    assert with_it.bounds is not None
    assert without.bounds is not None
    assert with_it.bounds.elbo_B.tobytes() == without.bounds.elbo_B.tobytes()


def test_no_window_is_of_two_sides_of_a_gap() -> None:
    one = learned("rvae")
    new = columns(wave(105)[90:], 90)
    new.timestamp_N[6:] += 3_600_000
    found = one.likelihood("k", new, 3, 0).bounds
    assert found is not None
    assert found.values_B.tolist() == [T, T, T]  # records 0 to 3, 6 to 9, and 10 to 13
    few = likelihood(one, wave(93)[90:]).bounds
    assert few is not None
    assert len(few.elbo_B) == 0


def test_bounds_are_the_means_of_weights_and_of_their_logarithms() -> None:
    log_weight_KB = np.log([[1.0, 2e-300], [3.0, 2e-300]])
    found = Bounds.of(log_weight_KB, np.array([0.5, 0.0]), np.array([4, 4]))
    assert found.elbo_B.tolist() == pytest.approx([math.log(3.0) / 2 - 0.5, math.log(2e-300)])
    assert found.importance_B.tolist() == pytest.approx([math.log(2.0) - 0.5, math.log(2e-300)])


def test_bounds_of_a_linear_gaussian_model_grow_to_its_likelihood() -> None:
    """z ~ N(0, 1), x = z + N(0, 1), so x ~ N(0, 2); q(z | x = 1) = N(0.9, 1) is not the posterior N(½, ½)."""
    rng, B = np.random.default_rng(0), 4000
    exact = norm.logpdf(1.0, scale=math.sqrt(2.0))
    mean = {}
    for draws in (1, 5, 50, 1000):
        z_KB = rng.normal(0.9, 1.0, (draws, B if draws < 1000 else 50))
        log_weight_KB = norm.logpdf(1.0, z_KB) + norm.logpdf(z_KB) - norm.logpdf(z_KB, 0.9, 1.0)
        found = Bounds.of(log_weight_KB, np.zeros(z_KB.shape[1]), np.ones(z_KB.shape[1], dtype=np.int64))
        assert (found.importance_B >= found.elbo_B).all()
        mean[draws] = found.importance_B.mean()
        # The lower bound is the likelihood less KL(q ‖ posterior).
        kl = 0.5 * (math.log(0.5) + (1.0 + 0.4**2) / 0.5 - 1.0)
        assert found.elbo_B.mean() == pytest.approx(exact - kl, abs=0.06)
    assert mean[1] < mean[5] < mean[50] < exact
    assert mean[1000] == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("name", ["rvae", "rvae, minmax"])
def test_bounds_come_to_the_integral_over_the_latent_from_below(name: str) -> None:
    """Against log ∫ p(x | z) N(z; 0, 1) dz by a grid over the one-dimensional latent, and the Jacobian of the
    data's units by finite differences; values are missing."""
    one, value_ND = learned(name, D=2), wave(102, 2)[90:]
    value_ND[2, 0] = value_ND[5, 1] = value_ND[4, 0] = np.nan
    exact_B, found = exact(one, value_ND), likelihood(one, value_ND, draws=2000).bounds
    assert found is not None
    assert found.importance_B == pytest.approx(exact_B, abs=0.06)
    assert (found.elbo_B < exact_B).all()
    assert (found.importance_B > found.elbo_B + 0.01).any()  # else the latent says nothing
    assert found.values_B.tolist() == [7, 6, 8]


def exact(one: Task, value_ND: Floats) -> Floats:
    """[B] log p of windows of T records, by the network's p(x | z)."""
    assert isinstance(one.model, RVAE)
    model, slab = one.model, one.slab
    sequences = model.sequences(slab, 0, Learner(0, "t", "k"))
    network, now = sequences.network(), sequences.now
    last_D = slab.host("scale_last_D")[0]
    filled_ND, seen_ND = value_ND.copy(), ~np.isnan(value_ND)
    for n in range(len(value_ND)):
        before_D = filled_ND[n - 1] if n else last_D
        filled_ND[n] = np.where(seen_ND[n], value_ND[n], before_D)
    ahead = sequences._times(np.arange(1, len(value_ND) + 1))
    found = []
    grid_G = np.linspace(-9, 9, 1201)
    for first in range(0, len(value_ND), T):
        part = slice(first, first + T)
        found.append(_log_integral(network, now, filled_ND[part], seen_ND[part], ahead[part], grid_G))
    return np.array(found)


def _log_integral(network, now: Axes, value_TD, seen_TD, time_TC, grid_G) -> float:  # type: ignore[no-untyped-def]
    from streamgen.models.sequence_vae import Windows

    target_TD, known_TD = now.targets(value_TD, seen_TD)
    G = len(grid_G)
    input_BTI = torch.from_numpy(np.tile(now.window(value_TD, seen_TD, time_TC), (G, 1, 1)))
    windows = Windows(
        input_BTI, input_BTI, torch.from_numpy(np.tile(target_TD, (G, 1, 1))),
        torch.from_numpy(np.tile(known_TD, (G, 1, 1))),
    )  # fmt: skip
    with torch.inference_mode():
        nll_G = network.nll(windows, torch.from_numpy(grid_G.astype(np.float32))[:, None]).numpy()
    joint_G = -nll_G.astype(np.float64) - 0.5 * grid_G**2 - 0.5 * math.log(2 * math.pi)
    log_p_y = joint_G.max() + math.log(np.trapezoid(np.exp(joint_G - joint_G.max()), grid_G))
    # The Jacobian of the values that are there, column by column.
    there = np.argwhere(known_TD)
    slopes = np.empty((len(there), len(there)))
    for n, (t, d) in enumerate(there.tolist()):
        sides = []
        for step in (1e-6, -1e-6):
            moved_TD = value_TD.copy()
            moved_TD[t, d] += step
            for later in range(t + 1, T):  # what is missing has the last value
                if seen_TD[later, d]:
                    break
                moved_TD[later, d] = moved_TD[t, d]
            sides.append(now.targets(moved_TD, seen_TD)[0][tuple(there.T)])
        slopes[:, n] = (sides[0] - sides[1]) / 2e-6
    return log_p_y + float(np.linalg.slogdet(slopes)[1])
