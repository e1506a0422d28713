"""The prequential score: in the data's own units, told before learning, fair to every choice of units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from streamgen.config import InputConfig
from streamgen.errors import ConfigError, InputError
from streamgen.models.online import Scores
from streamgen.records import Columns, Floats, TopicPartition
from streamgen.tuning import prequential as trial_module
from streamgen.tuning.prequential import Prequential
from streamgen.tuning.stream import Stream
from streamgen.tuning.trial import PARTS, Point

N = 540


def stream(value_ND: Floats, key: list[str | None] | None = None) -> Stream:
    count, D = value_ND.shape
    n_N = np.arange(count)
    columns = Columns(n_N, n_N * 60_000, key or ["k"] * count, value_ND, n_N)
    return Stream(tuple("ab"[:D]), [(TopicPartition("file", 0), columns)], 0)


def curve(
    value_ND: Floats, settings: dict[str, Any] | None = None, seed: int = 0, **more: Any
) -> list[Point]:
    model = {"name": "stream_ae", "hidden": 4, **more}
    config = InputConfig(topic="t", model=model, window={"length": 8})  # type: ignore[arg-type]
    points = Prequential(config, stream(value_ND), "cpu")(settings or {}, seed)
    return [point for point in points if point is not None]


def walk(D: int = 2) -> Floats:
    return np.random.default_rng(0).normal(size=(N, D)).cumsum(0)


@pytest.mark.parametrize("name", ["stream_ae", "rvae"])
@pytest.mark.parametrize("normalisation", ["minmax", "standard", "robust"])
def test_the_score_is_in_the_datas_own_units(name: str, normalisation: str) -> None:
    """A density of values a thousand times as large is a thousandth of it."""
    first = curve(walk(), name=name, normalisation=normalisation)[-1].score
    scaled = curve(1000 * walk(), name=name, normalisation=normalisation)[-1].score
    assert scaled == pytest.approx(first + math.log(1000), abs=2e-3)


@pytest.mark.parametrize("normalisation", ["none", "minmax", "standard", "robust"])
def test_no_units_say_more_of_noise_than_there_is_to_say(normalisation: str) -> None:
    """The entropy of the noise is the least that any choice can come to, and units of steps come near it."""
    sigma = 3.0
    noise_ND = sigma * np.random.default_rng(1).normal(size=(810, 1)).cumsum(0)
    entropy = 0.5 * math.log(2 * math.pi * math.e * sigma**2)
    score = curve(noise_ND, normalisation=normalisation, learning_rate=0.01)[-1].score
    assert score > entropy - 0.1  # of what these values came to
    if normalisation in ("standard", "robust"):
        assert score < entropy + 0.35


def test_a_curve_is_of_what_went_through_and_looks_at_nothing_to_come() -> None:
    changed_ND = walk()
    changed_ND[N // 2 :] += 100.0
    before, after = curve(walk()), curve(changed_ND)
    assert len(before) == PARTS
    half = PARTS // 2
    assert [point.score for point in before[:half]] == [point.score for point in after[:half]]
    assert before[-1].score < after[-1].score
    alone = curve(walk()[: N // PARTS * 9])  # the points of a part of the data are those of the whole
    assert alone[-1].score == pytest.approx(before[8].score, rel=1e-12)


def test_the_seed_draws_and_how_records_are_cut_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [point.score for point in curve(walk())]
    assert first != [point.score for point in curve(walk(), seed=1)]
    monkeypatch.setattr(trial_module, "ROWS", 7)
    assert first == pytest.approx([point.score for point in curve(walk())], rel=1e-12)


def test_settings_are_applied_and_what_is_idle_then_is_left_out() -> None:
    assert curve(walk(), {"hidden": 6})[-1].score == curve(walk(), hidden=6)[-1].score
    given = {"optimizer": "adamw", "weight_decay": 0.1}
    assert curve(walk(), {"optimizer": "adam"}, **given)[-1].score == curve(walk())[-1].score
    assert curve(walk(), {"window.stride": 2})[-1].score != curve(walk())[-1].score


def test_keys_and_missing_values_count_as_they_are() -> None:
    """Every value that is judged counts once: two keys that see the same score as one alone."""
    twice_ND = np.repeat(walk(1), 2, axis=0)
    twice_ND[100:140] = np.nan
    once_ND = twice_ND[::2]
    config = InputConfig(topic="t", model={"name": "stream_ae", "hidden": 4}, window={"length": 8})  # type: ignore[arg-type]
    n_N = np.arange(2 * N)
    key: list[str | None] = ["k", "k"] * N
    columns = Columns(n_N, n_N // 2 * 60_000, key, twice_ND, n_N)
    parts = [(TopicPartition("file", p), Columns(*_of(columns, n_N[p::2]))) for p in (0, 1)]
    last = [point for point in Prequential(config, Stream(("a",), parts, 0), "cpu")({}, 0) if point]
    alone = curve(once_ND)
    # The noise is named by the topic and the key, not by the partition.
    assert last[-1].score == pytest.approx(alone[-1].score, rel=1e-9)


def _of(columns: Columns, row_n: np.ndarray) -> tuple[Any, ...]:
    return (
        columns.offset_N[row_n],
        columns.timestamp_N[row_n],
        [columns.key[n] for n in row_n.tolist()],
        columns.value_ND[row_n],
        row_n,
    )


def test_what_gives_no_likelihood_is_refused() -> None:
    config = InputConfig(topic="t", model={"name": "river"})
    with pytest.raises(ConfigError, match="river gives no likelihood"):
        Prequential(config, stream(walk()), "cpu")


def test_keys_that_never_get_a_learner_are_told_of() -> None:
    key: list[str | None] = [f"k{n // 3}" for n in range(N)]
    config = InputConfig(topic="t")
    points = Prequential(config, stream(walk(), key), "cpu")({}, 0)
    with pytest.raises(InputError, match="No key has the 4 records that a learner begins with"):
        list(points)


def test_a_model_that_has_no_opinion_has_no_steps_either() -> None:
    scores = Scores.empty(3, 2, 1)
    assert np.isnan(scores.nll_N).all()
    assert np.isnan(scores.log_step_N).all()
