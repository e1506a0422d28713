"""Forecasts of the demo, on answers made by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from consumers.demo.fans import HEIGHT, draw_forecasts
from consumers.demo.forecasts import COUNT, LENGTH, Answer, Forecast
from producers.data import shipped_series


def record(s: int, t: int, id: str = "a") -> Any:
    """Sequence s is s everywhere, but for a step up in its second half."""
    told = {"correlation_id": id, "from_offset": "200", "sequence": str(s), "record": str(t)}
    value = s + 100.0 * (t >= LENGTH // 2)
    return SimpleNamespace(
        partition=1,
        headers=[(f"streamgen_{name}", text.encode()) for name, text in told.items()],
        value=json.dumps({"timestamp": "x", "value": value}).encode(),
    )


def answer() -> Answer:
    found: dict[str, Answer] = {}
    places = [(s, t) for s in range(COUNT) for t in range(LENGTH)]
    for n in np.random.default_rng(0).permutation(len(places)).tolist():
        assert not found or not found["a"].whole
        Answer.take(found, record(*places[n]))
    Answer.take(found, record(0, 0, "b"))
    assert list(found) == ["a", "b"]
    assert found["a"].whole
    return found["a"]


def forecast(later: int) -> Forecast:
    """Of a key with every other offset of partition 1, and some of partition 0 from another run."""
    places = [(0, n) for n in range(500)] + [(1, n) for n in range(0, 200 + 2 * later, 2)]
    values = {place: {"value": 10.0 if place[1] < 260 else 1000.0 + place[1]} for place in places}
    return Forecast.of(answer(), places, values)


def test_an_answer_is_beside_what_came_before_and_after_it() -> None:
    found = forecast(LENGTH + 7)
    assert found.value_ST.shape == (COUNT, LENGTH)
    assert found.value_ST[3].tolist() == [3.0] * (LENGTH // 2) + [103.0] * (LENGTH // 2)
    assert found.was_N.tolist() == [10.0] * LENGTH
    assert found.came_N.tolist() == [10.0] * 30 + [1260.0 + 2 * n for n in range(LENGTH - 30)]
    low_T, high_T = found.band(0.8)
    assert low_T[0] == pytest.approx(np.quantile(np.arange(COUNT), 0.1))
    assert high_T[-1] == pytest.approx(100 + np.quantile(np.arange(COUNT), 0.9))
    assert found.inside_N.tolist() == [True] * 30 + [False] * (LENGTH - 30)


def test_a_forecast_whose_future_has_not_come_has_nothing_to_be_judged_by() -> None:
    assert len(forecast(0).inside_N) == 0
    assert forecast(5).inside_N.tolist() == [True] * 5


def test_the_picture_shows_what_came_over_the_band() -> None:
    series = shipped_series()
    figure = Figure(figsize=(11, 10))
    draw_forecasts(figure, series, {series[1].name: forecast(40)}, 10.0)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == [
        f"{series[0].name}\nnot asked, or no answer",
        f"{series[1].name}\n30 of 40 that came lie in the 80%",
        f"{series[2].name}\nnot asked, or no answer",
    ]
    (fan,) = [axes for axes in figure.axes if axes.collections]
    wide = fan.collections[0].get_paths()[0].vertices
    low_T, high_T = forecast(40).band(0.8)
    assert (wide[:, 1].min(), wide[:, 1].max()) == (low_T.min(), high_T.max())
    assert [len(line.get_ydata()) for line in fan.lines[:2]] == [LENGTH, 40]  # type: ignore[arg-type]
    # It keeps to its part of the figure.
    assert max(axes.get_position().y1 for axes in figure.axes) < HEIGHT / 10
