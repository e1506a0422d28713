"""The live figure: its arithmetic, the mistakes that must move it, and what must not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from streamgen.publishing.comparison import FEWEST, PAIRS, POOLS, RECORDS, Comparison, Distance, distance
from streamgen.records import Columns, Floats
from streamgen.state.checkpoint import LearnerState
from tests.publishing.rig import FEATURES, SOURCE, Rig, config, turn

J = 16


def wave(rng: np.random.Generator, pairs: int, wrong: Callable[..., Floats] | None = None) -> Distance:
    """A wave and a walk that go on and on, known up to the moment; the walk never comes back. Each pair is
    what could come, gone `wrong`, and what came."""
    level, time, generated, real = 0.0, 0, [], []

    def path() -> Floats:
        swing_J = np.sin((time + np.arange(J)) / 5) + 0.1 * rng.normal(size=J)
        return np.stack([swing_J, level + rng.normal(size=J).cumsum()], axis=1)

    for _ in range(pairs):
        could_JD, came_JD = path(), path()
        generated.append(could_JD if wrong is None else wrong(could_JD, rng))
        real.append(came_JD)
        level, time = float(came_JD[-1, 1]), time + J
    return distance(np.array(generated), np.array(real))


def test_a_right_model_is_within_chance() -> None:
    """In about 99 of 100 cases, however few the pairs and however far the stream wanders."""
    for pairs in (FEWEST, PAIRS):
        found = [wave(np.random.default_rng(seed), pairs) for seed in range(100)]
        assert sum(one.value > one.chance for one in found) <= 5
        values = np.array([one.value for one in found])
        assert abs(values.mean()) < 3 * values.std() / 10  # on average it is 0
        assert all(one.chance < 0.05 for one in found)


ONE_WINDOW = np.stack([np.sin(np.arange(J) / 5), np.zeros(J)], axis=1)
WRONG: dict[str, Callable[..., Floats]] = {
    "constant": lambda could_JD, rng: np.repeat(could_JD[:1], J, axis=0),
    "shuffled in time": lambda could_JD, rng: rng.permutation(could_JD),
    "always the same": lambda could_JD, rng: ONE_WINDOW,
    "columns swapped": lambda could_JD, rng: could_JD[:, ::-1],
    "too high": lambda could_JD, rng: could_JD + np.array([0.5, 0.0]),
    "too calm": lambda could_JD, rng: could_JD[:1] + 0.5 * (could_JD - could_JD[:1]),
    "too wild": lambda could_JD, rng: could_JD + 0.5 * rng.normal(size=could_JD.shape),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_beyond_chance(name: str) -> None:
    found = [wave(np.random.default_rng(seed), PAIRS, WRONG[name]) for seed in range(5)]
    assert all(one.value > 1.5 * one.chance for one in found), found


def test_the_distance_is_that_of_its_definition() -> None:
    """Against loops over windows, without their partners."""
    rng = np.random.default_rng(0)
    generated, real = rng.normal(1.0, 2.0, (5, 4, 2)), rng.normal(size=(5, 4, 2)) * [1.0, 1e6]
    both = np.concatenate([generated, real])
    steps = np.diff(both, axis=1)
    point_MF = np.concatenate(
        [(part / part.std(axis=(0, 1))).reshape(10, -1) for part in (both - both.mean((0, 1)), steps)], axis=1
    )
    centred = np.diff(both, axis=1) - steps.mean(axis=(0, 1))
    point_MF[:, 8:] = (centred / centred.std(axis=(0, 1))).reshape(10, -1)
    g_NF, r_NF = point_MF[:5], point_MF[5:]
    gr, gg, rr = 0.0, 0.0, 0.0
    for i, j in product(range(5), repeat=2):
        if i != j:
            gr += float(np.linalg.norm(g_NF[i] - r_NF[j])) / 20
            gg += float(np.linalg.norm(g_NF[i] - g_NF[j])) / 20
            rr += float(np.linalg.norm(r_NF[i] - r_NF[j])) / 20
    found = distance(generated, real)
    assert found.value == pytest.approx((2 * gr - gg - rr) / (2 * gr + gg + rr))
    # Of all ways to swap, and not of some at random.
    swapped = []
    for signs in product([False, True], repeat=5):
        turned_N11 = np.array(signs)[:, None, None]
        pair = np.where(turned_N11, real, generated), np.where(turned_N11, generated, real)
        swapped.append(distance(*pair).value)
    assert found.chance == pytest.approx(np.quantile(swapped, 0.99), abs=0.02)


def test_the_ends_of_the_scale() -> None:
    zero, one = np.zeros((20, 1, 1)), np.ones((20, 1, 1))
    assert distance(zero, one).value == pytest.approx(1.0)
    assert distance(zero, zero) == Distance(0.0, 0.0)
    huge = 1e300 * np.random.default_rng(0).normal(size=(20, 3, 1))
    assert math.isfinite(distance(huge, -huge).value)


# --- pairs


def columns(value_N: list[float], key: str = "a", first: int = 0, times: list[int] | None = None) -> Columns:
    offset_N = np.arange(first, first + len(value_N))
    time_N = offset_N * 10 if times is None else np.array(times)
    return Columns(offset_N, time_N, [key] * len(value_N), np.array(value_N)[:, None], offset_N)


def test_a_pair_is_of_the_keys_own_next_records() -> None:
    """Neither those before nor of other keys, nor late ones, nor one twice; and one sequence at a time."""
    one = Comparison()
    one.watch("a", 5, 40, np.array([[1.0], [2.0], [3.0]]))
    one.watch("a", 5, 40, np.array([[7.0], [7.0], [7.0]]))  # the first one waits
    one.feed(columns([9.0] * 5))
    one.feed(columns([8.0], "b", 5))
    one.feed(columns([10.0, 11.0], first=6, times=[60, 30]))  # the second is late
    one.feed(columns([10.0], first=6))
    assert one.compared == 0
    one.feed(columns([math.nan, 13.0, 14.0], first=8))
    assert one.compared == 1
    (pool,) = one._pools.values()
    assert [part.ravel().tolist() for part in pool.real] == [[10.0, 10.0, 13.0]]
    assert [part.ravel().tolist() for part in pool.generated] == [[1.0, 1.0, 3.0]]  # missing in both
    assert math.isnan(one.distance.value)


def test_a_clock_that_was_set_back_ends_the_wait() -> None:
    one = Comparison()
    one.watch("a", 0, 1000, np.zeros((2, 1)))
    one.feed(columns([1.0, 1.0]))
    one.watch("a", 2, 10, np.zeros((2, 1)))
    one.feed(columns([5.0, 6.0], first=2))
    assert one.compared == 1


def test_there_is_a_figure_with_enough_pairs_and_memory_is_bounded() -> None:
    one, rng = Comparison(), np.random.default_rng(0)
    for n in range(3 * PAIRS):
        one.watch("a", 50 * n, 0, rng.normal(size=(RECORDS + 9, 1)))
        one.feed(columns(rng.normal(size=50).tolist(), first=50 * n))
        assert math.isnan(one.distance.value) == (n + 1 < FEWEST)
    (pool,) = one._pools.values()
    assert len(pool.real) == len(pool.generated) == PAIRS
    assert pool.real[0].shape == (RECORDS, 1)
    assert one.compared == 3 * PAIRS
    before = one.distance
    for n in range(2 * PAIRS):
        one.watch("wrong", 50 * n, 0, np.full((4, 1), 9.0))
        one.feed(columns(rng.normal(size=50).tolist(), "wrong", 50 * n))
    wrong = one._pools["wrong", 4].distance
    assert wrong.value > 0.4
    assert one.distance.value == pytest.approx((before.value + wrong.value) / 2)
    for n in range(2 * POOLS):
        one.watch(f"key {n}", 0, 0, np.zeros((2, 1)))
    assert len(one._pools) == POOLS
    one.clear()
    assert math.isnan(one.distance.value)


# --- in the publisher


def test_the_publisher_compares_what_goes_on_from_now() -> None:
    rig = Rig(config())
    rig.send(60)
    rig.learn()
    publisher = rig.publisher()
    for n in range(FEWEST):
        rig.ask(kind="continue", key="a", length=4, count=3)
        rig.ask(kind="prior", key="a", length=4)
        turn(publisher)
        rig.send(4)
        rig.send(1, key="b")
        if n == 8:
            rig.learn()  # a checkpoint on the way
        turn(publisher)
    at = {"topic": "in", "partition": "0"}
    sample = rig.metrics.registry.get_sample_value
    assert sample("streamgen_generate_compared_total", at) == FEWEST
    found = publisher.followed[SOURCE].comparison
    assert sample("streamgen_generate_distance_ratio", at) == found.distance.value
    assert sample("streamgen_generate_distance_chance_ratio", at) == found.distance.chance
    real = np.array(found._pools["a", 4].real)
    assert real.shape == (FEWEST, 4, len(FEATURES))
    times = np.concatenate([np.arange(60 + 5 * n, 64 + 5 * n) for n in range(FEWEST)])
    assert real[:, :, 0].ravel() == pytest.approx(np.round(0.5 + 0.4 * np.sin(times / 5.0), 3))


def test_what_is_read_anew_begins_anew_and_records_that_were_left_out_are_not_waited_for() -> None:
    one = Comparison()
    one.watch("a", 0, 0, np.zeros((3, 1)))
    one.feed(columns([1.0, 2.0]))
    one.begin(1)  # read again from an earlier one on
    one.feed(columns([2.0, 3.0], first=1))
    assert one.compared == 1
    one.watch("a", 3, 0, np.zeros((3, 1)))
    one.begin(4)
    one.feed(columns([5.0, 6.0, 7.0, 8.0], first=4))
    assert one.compared == 1
    one.clear()
    assert not one._pools


def test_another_state_begins_anew() -> None:
    rig = Rig(config())
    rig.send(60)
    rig.learn()
    publisher = rig.publisher()
    rig.ask(kind="continue", key="a", length=4)
    turn(publisher)
    followed = publisher.followed[SOURCE]
    checkpoint = followed.checkpoint
    assert checkpoint is not None
    assert followed.comparison._pools
    other = replace(checkpoint, manifest=replace(checkpoint.manifest, fingerprint="other"))
    followed.take(other)
    assert not followed.comparison._pools


@pytest.mark.parametrize("ends", ["another state", "no state", "forgotten keys"])
def test_a_distance_is_shown_no_longer_than_there_is_one(ends: str) -> None:
    rig = Rig(config())
    rig.send(60)
    rig.learn()
    publisher = rig.publisher()
    turn(publisher)
    comparison = publisher.followed[SOURCE].comparison
    for n in range(FEWEST):
        comparison.watch("a", 60 + 2 * n, 0, np.zeros((2, len(FEATURES))))
        rig.send(2)
        turn(publisher, 1)
    name, at = "streamgen_generate_distance_ratio", {"topic": "in", "partition": "0"}
    assert rig.metrics.registry.get_sample_value(name, at) == comparison.distance.value
    if ends == "another state":
        made = replace(rig.store.peek(SOURCE).manifest, fingerprint="other")  # type: ignore[union-attr]
        claim = rig.store.claim(SOURCE)
        claim.read(-1)
        claim.write(made, [LearnerState(None, rig.tasks[SOURCE].learners()["a"])], ())
    elif ends == "no state":
        rig.store._kept[SOURCE].manifest = None
    else:
        for n in range(POOLS - 1):
            comparison.watch(f"key {n}", 0, 0, np.zeros((2, 1)))
        rig.ask(kind="continue", key="a", length=4)
    turn(publisher)
    assert rig.metrics.registry.get_sample_value(name, at) is None
