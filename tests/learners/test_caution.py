"""What an anomalous record teaches: clip, skip, yes; on a simulated stream with memory and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamgen.config import InputConfig, WindowConfig
from streamgen.learners.calibration import CAUTION_P, PATIENCE, SETTLED, Calibration
from streamgen.learners.task import Results, Task
from streamgen.models import span
from streamgen.models.caution import CautiousSettings
from streamgen.models.online import Scores
from streamgen.models.slab import Slab
from streamgen.records import Columns, Floats, TopicPartition

MODELS: dict[str, dict[str, Any]] = {
    "stream_ae": {"name": "stream_ae", "hidden": 8},
    "stream_ae full": {"name": "stream_ae", "preset": "full", "hidden": 8, "reservoir": 50, "updates": 1},
    "rvae": {"name": "rvae", "hidden": 8, "latent": 2, "components": 2},
    "rvae full": {"name": "rvae", "preset": "full", "hidden": 8, "latent": 2, "reservoir": 50, "updates": 1},
}
AT, LONG = 500, 60  # where an incident begins, and how long it is


def stream(N: int, seed: int = 0) -> Floats:
    noise_ND = np.random.default_rng(seed).normal(size=(N, 2))
    value_ND = np.zeros((N, 2))
    for n in range(1, N):
        value_ND[n] = 0.7 * value_ND[n - 1] + noise_ND[n]
    return value_ND


def incident(N: int = 600) -> Floats:
    """Ten deviations away for an hour."""
    value_ND = stream(N)
    value_ND[AT : AT + LONG] += 15
    return value_ND


def task(model: str, mode: str) -> Task:
    config = InputConfig(
        topic="t", model={**MODELS[model], "learn_anomalies": mode}, window=WindowConfig(length=16)
    )
    return Task(TopicPartition("t", 0), config, ("a", "b"), 0, "cpu")


def columns(value_ND: Floats, first: int = 0) -> Columns:
    count = len(value_ND)
    offset_N = np.arange(first, first + count)
    return Columns(offset_N, offset_N * 60_000, ["k"] * count, value_ND, np.arange(count))


def bits(one: Task) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in one.learners()["k"].items()}


@pytest.mark.parametrize("model", ["stream_ae", "rvae", "stream_ae full"])
@pytest.mark.parametrize(("mode", "stays"), [("yes", False), ("clip", True), ("skip", True)])
def test_an_incident_does_not_become_normal_within_itself(model: str, mode: str, stays: bool) -> None:
    p_N = task(model, mode).process(columns(incident())).p_N
    assert p_N[AT] < CAUTION_P
    assert (p_N[AT + LONG - 20 : AT + LONG].max() < CAUTION_P) == stays
    assert np.median(p_N[AT + LONG + 10 :]) > 0.1  # and then all is well again


@pytest.mark.parametrize("mode", ["clip", "skip"])
def test_what_goes_on_is_the_new_normal(mode: str) -> None:
    value_ND = stream(AT + PATIENCE + 200)
    value_ND[AT:] += 15
    one = task("stream_ae", mode)
    p_N = one.process(columns(value_ND)).p_N
    assert np.median(p_N[AT : AT + 30]) < CAUTION_P
    assert np.median(p_N[AT + PATIENCE : AT + PATIENCE + 50]) > 0.05
    # And the model has gone there: it expects the next record where they are.
    assert one.generate("k", 1, 200, 0).mean() == pytest.approx(value_ND[-1].mean(), abs=2.0)


def test_what_is_skipped_teaches_nothing() -> None:
    """Weights and scales after an incident of whole windows are those of one that never moved."""
    one, other = task("stream_ae", "skip"), task("stream_ae", "skip")
    worse_ND = incident(AT + LONG)
    worse_ND[AT : AT + LONG] += 40
    one.process(columns(incident(AT + LONG)))
    other.process(columns(worse_ND))
    ours, theirs = one.learners()["k"], other.learners()["k"]
    for name in ("weights_P", "scale_mean_D", "scale_spread_D", "scale_last_D", "scale_step_D", "hidden_1S"):
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def test_what_is_clipped_teaches_no_more_than_the_edge() -> None:
    spread = {}
    for mode in ("yes", "clip"):
        one = task("stream_ae", mode)
        value_ND = stream(AT + 3)
        value_ND[AT] += 1e6
        one.process(columns(value_ND))
        spread[mode] = float(one.learners()["k"]["scale_spread_D"].max())
    assert spread["yes"] > 1000
    assert spread["clip"] < 2


def test_taught_is_nothing_or_within_the_interval_and_as_much_on_either_side() -> None:
    scores = Scores.empty(1, 3, 1)
    scores.low_ND[0], scores.high_ND[0] = [0.0, 0.0, np.nan], [2.0, 2.0, np.nan]
    value_D = np.array([9.0, -9.0, 5.0])
    clip, skip = (CautiousSettings(learn_anomalies=mode) for mode in ("clip", "skip"))  # type: ignore[arg-type]
    slab = Slab(span.fields(3))
    seen = span.Span.of(slab, slab.add())
    assert clip.taught(scores, 0, value_D, seen).tolist() == [4.0, -2.0, 5.0]
    assert clip.taught(scores, 0, np.array([3.0, np.nan, 1.0]), seen).tolist()[0] == 3.0
    assert np.isnan(skip.taught(scores, 0, value_D, seen)).all()
    # A clipped value between two of a grid would be the end of the grid, for good.
    for n in range(span.ENOUGH):
        seen.observe(np.full(3, 0.75 * (n % 4)), np.full(3, np.nan))
    assert clip.taught(scores, 0, value_D, seen).tolist() == [3.75, -2.25, 5.0]


@pytest.mark.parametrize("mode", ["clip", "skip"])
def test_decimals_of_a_stream_outlive_its_anomalies(mode: str) -> None:
    value_ND = np.round(stream(400), 2)
    value_ND[250] += 50
    one = task("rvae full", mode)
    one.process(columns(value_ND))
    drawn = one.generate("k", 10, 20, 0)
    assert (drawn == np.round(drawn, 2)).all()


@pytest.mark.parametrize("model", ["stream_ae full", "rvae full"])
@pytest.mark.parametrize("mode", ["yes", "clip", "skip"])
def test_what_is_kept_of_an_anomaly_is_what_it_taught(model: str, mode: str) -> None:
    value_ND = stream(AT + 40)
    value_ND[AT] += 1000
    one = task(model, mode)
    scores = one.process(columns(value_ND)).scores
    learner = one.learners()["k"]
    kept = learner["kept_at_R"] > 0
    value_RTD, seen_RTD = (
        next(learner[name][kept] for name in learner if name.startswith(stem))
        for stem in ("kept_value_", "kept_seen_")
    )
    low_D, high_D = scores.low_ND[AT], scores.high_ND[AT]
    most_D = {"yes": value_ND[AT], "clip": high_D + (high_D - low_D), "skip": value_ND[:AT].max(0)}[mode]
    assert value_RTD.max((0, 1)) == pytest.approx(most_D)
    # Of skip the record is there, with nothing in it: the window is as long as any, and learned from.
    assert (~seen_RTD).any() == (mode == "skip")
    if mode == "skip":
        assert (~seen_RTD).any(1).sum() == (~seen_RTD).sum()  # one record of a window
    else:
        assert (value_RTD == value_RTD.max((0, 1))).all(2).any()


# --- the laws


def parts(one: Task, value_ND: Floats, size: int) -> list[Results]:
    return [one.process(columns(value_ND[n : n + size], first=n)) for n in range(0, len(value_ND), size)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", ["clip", "skip"])
def test_batches_and_a_restore_within_an_incident_change_no_bit(model: str, mode: str) -> None:
    value_ND, middle = incident(AT + LONG + 30), AT + 25
    whole, cut, before, after = (task(model, mode) for _ in range(4))
    p_N = whole.process(columns(value_ND)).p_N
    assert np.concatenate([one.p_N for one in parts(cut, value_ND, 7)]).tobytes() == p_N.tobytes()
    assert bits(whole) == bits(cut)
    before.process(columns(value_ND[:middle]))
    assert before.learners()["k"]["calibration_holding"] > 10
    after.restore(before.snapshot(middle).facts, before.learners())
    after.process(columns(value_ND[middle:], first=middle))
    assert bits(whole) == bits(after)


@pytest.mark.parametrize("model", MODELS)
def test_who_follows_heeds_as_who_learns(model: str) -> None:
    """What is carried through an incident depends on how records rank, so who only follows ranks them too."""
    value_ND, first = incident(AT + LONG - 9), AT - 20
    learner, followed = task(model, "skip"), task(model, "skip")
    MODELS["still"] = {**MODELS[model], "learning_rate": 1e-300}
    still = task("still", "skip")
    del MODELS["still"]
    learner.process(columns(value_ND[:first]))
    for other in (still, followed):
        other.restore(learner.snapshot(first).facts, learner.learners())
    still.process(columns(value_ND[first:], first=first))
    for n in range(first, len(value_ND), 7):
        followed.follow(columns(value_ND[n : n + 7], first=n))
    ours, theirs = still.learners()["k"], followed.learners()["k"]
    assert theirs["calibration_holding"] > 40
    assert np.abs(theirs["scale_last_D"]).max() < 6  # and not 15 further up
    for name in ("scale_last_D", "scale_mean_D", "scale_step_D", "window_fill"):
        assert ours[name].tobytes() == theirs[name].tobytes(), name


# --- the memory


def ranked(surprises: list[float], cautious: bool = True) -> tuple[Slab, list[float]]:
    calibration = Calibration(1, cautious)
    slab = Slab(calibration.fields())
    row = slab.add()
    return slab, [calibration.rank_one(slab, row, np.array([s]), True)[0] for s in surprises]


def test_an_incident_enters_the_memory_at_its_end() -> None:
    rng = np.random.default_rng(0)
    before = rng.exponential(size=2 * SETTLED).tolist()
    slab, p = ranked([*before, *[50.0] * 10])
    assert max(p[-10:]) < CAUTION_P
    assert slab.host("calibration_count")[0] == len(before)
    assert slab.host("calibration_holding")[0] == 10
    slab, p = ranked([*before, *[50.0] * 10, 1.0, 50.0])
    assert slab.host("calibration_count")[0] == len(before) + 12
    assert p[-1] == pytest.approx(11 / (len(before) + 12), rel=0.1)  # it is known now


def test_one_that_goes_on_enters_it_when_patience_ends() -> None:
    before = np.random.default_rng(0).exponential(size=2 * SETTLED).tolist()
    slab, p = ranked([*before, *[50.0] * (PATIENCE + 1)])
    assert max(p[-PATIENCE - 1 : -1]) < CAUTION_P
    assert p[-1] > 0.2
    assert slab.host("calibration_holding")[0] == 0


def test_without_caution_and_before_it_is_settled_every_record_enters_at_once() -> None:
    before = np.random.default_rng(0).exponential(size=2 * SETTLED).tolist()
    _, p = ranked([*before, *[50.0] * 10], cautious=False)
    assert p[-1] >= 9 / (2 * SETTLED + 10)
    slab, _ = ranked([*before[: SETTLED - 20], *[50.0] * 10])
    assert slab.host("calibration_count")[0] == SETTLED - 10
