"""Budget, warm-up and episodes."""

import numpy as np
import pytest

from streamgen.config import AnomalyConfig, InputConfig
from streamgen.learners.episodes import Episodes, Verdicts, score_of
from streamgen.learners.task import Task
from streamgen.models.online import Scores
from streamgen.models.slab import Slab
from streamgen.records import Columns, TopicPartition
from streamgen.windows import Ticks

MINUTE = 60_000


def judge(
    p_values: list[float], ranked: int = 1000, size: int | None = None, **settings: float
) -> list[Verdicts]:
    """One key, a record a minute, in batches of `size`."""
    episodes = Episodes(AnomalyConfig(**settings))  # type: ignore[arg-type]
    slab = Slab(Episodes.fields(1))
    slab.add()
    verdicts = []
    for start in range(0, len(p_values), size or len(p_values)):
        p_N = np.array(p_values[start : start + (size or len(p_values))])
        N = len(p_N)
        offset_N = np.arange(start, start + N)
        no_N = np.zeros(N, dtype=np.bool_)
        columns = Columns(offset_N, offset_N * MINUTE, ["k"] * N, offset_N[:, None] * 1.0, np.arange(N))
        ticks = Ticks(
            no_N, no_N, no_N, np.full(N, float(MINUTE)), np.zeros((N, 7)), np.zeros(N, dtype=np.int64)
        )
        row_N = np.zeros(N, dtype=np.int64)
        verdicts.append(
            episodes.judge(slab, row_N, columns, Scores.empty(N, 1, 1), p_N, np.full(N, ranked), ticks)
        )
    return verdicts


def test_score_of_p() -> None:
    np.testing.assert_allclose(score_of(np.array([1.0, 1e-3, 1e-9])), [0.0, 0.5, 0.75])
    assert score_of(np.array([1e-300]))[0] < 1.0


def test_the_budget_is_an_alert_a_day() -> None:
    (verdict,) = judge([0.9, 1 / 1440, 1 / 1439], alert_budget=1.0)
    np.testing.assert_allclose(verdict.alpha_N, 1 / 1440)
    assert verdict.is_anomaly_N.tolist() == [False, True, False]
    (verdict,) = judge([1 / 1440], alert_budget=0.5)
    assert not verdict.is_anomaly_N.any()


def test_nothing_alerts_while_warming_up() -> None:
    (verdict,) = judge([1e-12], ranked=255)
    assert verdict.warming_up_N.all()
    assert not verdict.is_anomaly_N.any()
    assert verdict.episodes == []


@pytest.mark.parametrize("size", [None, 1, 3])
def test_an_episode_opens_once_and_closes_after_quiet(size: int | None) -> None:
    quiet, alarm = 0.5, 1e-6
    p_values = [quiet, alarm, quiet, 1e-9, *[quiet] * 4, alarm, *[quiet] * 8]
    found = [episode for verdict in judge(p_values, size=size, close_after=4) for episode in verdict.episodes]
    assert [episode.kind for episode in found] == ["opened", "closed", "opened", "closed"]
    first = found[1]
    assert (first.opened_offset, first.opened_ms, first.closed_ms) == (1, 1 * MINUTE, 7 * MINUTE)
    assert (first.records, first.peak_p, first.peak_ms) == (2, 1e-9, 3 * MINUTE)
    assert first.peak_value_D.tolist() == [3.0]
    assert found[0].closed_ms is None
    assert found[2].opened_offset == 8


@pytest.mark.parametrize("seed", [0, 1])
def test_on_a_clean_stream_levels_hold_and_the_budget_is_kept(seed: int) -> None:
    """A simulated stream with season, memory and noise, through the whole learner."""
    rng = np.random.default_rng(seed)
    N, settled = 16_000, 5_000
    noise, level = rng.normal(size=N), np.zeros(N)
    for n in range(1, N):
        level[n] = 0.7 * level[n - 1] + noise[n]
    time_N = np.arange(N) * 5 * MINUTE
    value_N = level + 2 * np.sin(2 * np.pi * time_N / 86_400_000)
    config = InputConfig(topic="t", model={"name": "stream_ae", "hidden": 8})
    task = Task(TopicPartition("t", 0), config, ("x",), seed, "cpu")
    result = task.process(Columns(np.arange(N), time_N, ["k"] * N, value_N[:, None], np.arange(N)))
    p_N = result.p_N[settled:]
    for alpha in (0.05, 0.01, 0.001):
        expected = alpha * len(p_N)
        # Surprises of neighbours are alike (a level stays): the spread is more than binomial.
        assert abs((p_N <= alpha).sum() - expected) < 5 * np.sqrt(expected)
    days = (N - settled) * 5 / 1440
    opened = sum(e.kind == "opened" and e.n >= settled for e in result.verdicts.episodes)
    assert opened <= days + 3 * np.sqrt(days)
