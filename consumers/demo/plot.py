"""The picture of a run: each series with what was expected of it, its score, the incidents and the alarms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import dates
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from PIL import Image

from consumers.demo.fans import HEIGHT, draw_forecasts
from consumers.demo.judgement import Judgement, Score
from consumers.demo.outcome import Outcome
from consumers.demo.tail import Seen
from producers.data import Incident, Series
from streamgen.output import whole_file
from streamgen.plotstyle import SOFT, STYLE, VALUE
from streamgen.records import Bools, Floats, Ints

BAND = "#9ecbff"
INCIDENT, ALARM, SCORE = "#ffe3bf", "#d1242f", "#8c959f"
CLOSE_UP = 96  # records on each side of the alarm that is looked at closely
GAP = 6  # times the usual step: over a longer one no line is drawn
COLOURS = 160  # of the file: a third of the size, and no eye sees it


class _Track:
    """One key's scores as arrays of N records, with a row of NaN wherever data is missing for long."""

    def __init__(self, scores: list[Score], seen: Seen, incidents: tuple[Incident, ...]) -> None:
        feature = next(iter(scores[0].expected)) if scores else ""
        time_N = np.array([score.time_ms for score in scores], dtype=np.int64)
        numbers_NC = np.array(
            [
                (
                    seen.values[score.place].get(feature),
                    *score.interval[feature],
                    score.score,
                    None if score.warming_up else score.threshold,
                )
                for score in scores
            ],
            dtype=np.float64,
        ).reshape(-1, 5)
        anomaly_N = np.array([score.is_anomaly for score in scores], dtype=np.bool_)
        step_N = np.diff(time_N)
        gaps: Ints = np.flatnonzero(step_N > GAP * np.median(step_N)) + 1 if len(step_N) else step_N
        time_N = np.insert(time_N, gaps, time_N[gaps] - 1)
        self.anomaly_N: Bools = np.insert(anomaly_N, gaps, False)
        self.time_N: Any = time_N.astype("datetime64[ms]")
        self.value_N, self.low_N, self.high_N, self.score_N, self.threshold_N = np.insert(
            numbers_NC, gaps, np.nan, axis=0
        ).T
        self.known_N = np.zeros(len(time_N), dtype=np.bool_)  # inside the window of an incident
        for incident in incidents:
            self.known_N |= (time_N >= incident.start_ms) & (time_N <= incident.end_ms)


def draw(path: Path, outcome: Outcome) -> None:
    """Write the picture as PNG."""
    rows = len(outcome.series)
    with mpl.rc_context(STYLE):
        height = 3.2 * rows + 0.5 + HEIGHT
        figure = Figure(figsize=(11, height), dpi=120, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        # The first and the last row of each series are room for its title and its dates.
        grid = GridSpec(
            rows * 4, 2, figure=figure, width_ratios=(2.4, 1), height_ratios=(0.75, 2.5, 1, 0.6) * rows,
            left=0.06, right=0.98, top=1 - 0.35 / height, bottom=HEIGHT / height, hspace=0.12, wspace=0.15,
        )  # fmt: skip
        for row, series in enumerate(outcome.series):
            judgement = outcome.judgements[series.name]
            track = _Track(outcome.seen.scores[series.name], outcome.seen, series.incidents)
            values = figure.add_subplot(grid[4 * row + 1, 0])
            _values(values, track, series, judgement)
            _scores(figure.add_subplot(grid[4 * row + 2, 0], sharex=values), track, series)
            _close_up(figure.add_subplot(grid[4 * row + 1 : 4 * row + 3, 1]), track, series)
        draw_forecasts(figure, outcome.series, outcome.forecasts, height)
        _legend(figure)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(COLOURS)
    with whole_file(path) as file:
        image.save(file, format="PNG", optimize=True)


def _values(axes: Any, track: _Track, series: Series, judgement: Judgement) -> None:
    axes.set_title(series.about, loc="left", fontsize=12, fontweight="bold", pad=21)
    axes.text(0, 1.045, str(judgement), transform=axes.transAxes, color=SOFT)
    _band(axes, track, series, slice(None), width=0.55, dot=3.6)
    axes.tick_params(labelbottom=False, length=0)


def _scores(axes: Any, track: _Track, series: Series) -> None:
    _shade(axes, series)
    axes.plot(track.time_N, track.score_N, color=SCORE, linewidth=0.4)
    axes.plot(track.time_N, track.threshold_N, color=ALARM, linewidth=0.9, linestyle=(0, (4, 3)))
    _alarms(axes, track, track.score_N, slice(None), dot=3.6)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("score")
    if len(track.time_N) > 1:
        axes.set_xlim(track.time_N[0], track.time_N[-1])
    _dates(axes)


def _close_up(axes: Any, track: _Track, series: Series) -> None:
    """The highest score among the alarms, near enough to see what was expected; one in an incident first."""
    alarm_N = track.anomaly_N & track.known_N
    if not alarm_N.any():
        alarm_N = track.anomaly_N
    if not alarm_N.any():
        axes.set_axis_off()
        return
    centre = int(np.argmax(np.where(alarm_N, track.score_N, -1.0)))
    when = track.time_N[centre]
    part = slice(max(0, centre - CLOSE_UP), centre + CLOSE_UP)
    _band(axes, track, series, part, width=1.1, dot=5)
    axes.set_xlim(track.time_N[part][0], track.time_N[part][-1])
    now_ms = int(when.astype(np.int64))
    what = next((one.what for one in series.incidents if one.start_ms <= now_ms <= one.end_ms), None)
    axes.set_title(f"Close up: {what or str(when)[:10]}", loc="left", fontsize=10.5, color=SOFT, pad=7)
    _dates(axes)


def _band(axes: Any, track: _Track, series: Series, part: slice, width: float, dot: float) -> None:
    """Values over the interval that was expected of each."""
    _shade(axes, series)
    time_n, value_n = track.time_N[part], track.value_N[part]
    axes.fill_between(time_n, track.low_N[part], track.high_N[part], color=BAND, linewidth=0)
    axes.plot(time_n, value_n, color=VALUE, linewidth=width)
    _alarms(axes, track, track.value_N, part, dot)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if np.isfinite(value_n).any():
        # A band that is wide before anything was learned must not squeeze the values.
        low, high = float(np.nanmin(value_n)), float(np.nanmax(value_n))
        room = 0.12 * (high - low) or 1.0
        axes.set_ylim(low - room, high + room)


def _alarms(axes: Any, track: _Track, height_N: Floats, part: slice, dot: float) -> None:
    for chosen_N, fill in (
        (track.anomaly_N & ~track.known_N, "white"),
        (track.anomaly_N & track.known_N, ALARM),
    ):
        chosen_n = chosen_N[part]
        axes.plot(
            track.time_N[part][chosen_n], height_N[part][chosen_n], "o", color=ALARM, markerfacecolor=fill,
            markersize=dot, markeredgewidth=0.9, zorder=3,
        )  # fmt: skip


def _shade(axes: Any, series: Series) -> None:
    for incident in series.incidents:
        begin, end = (np.datetime64(ms, "ms") for ms in (incident.start_ms, incident.end_ms))
        axes.axvspan(begin, end, color=INCIDENT, linewidth=0, zorder=0)


def _dates(axes: Any) -> None:
    locator = dates.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _legend(figure: Any) -> None:
    figure.legend(
        handles=[
            Line2D([], [], color=VALUE, label="value"),
            Patch(color=BAND, label="expected"),
            Line2D([], [], color=SCORE, label="score"),
            Line2D([], [], color=ALARM, linestyle=(0, (4, 3)), label="threshold"),
            Line2D([], [], color=ALARM, marker="o", linestyle="", label="anomaly in an incident"),
            Line2D([], [], color=ALARM, marker="o", markerfacecolor="white", linestyle="", label="elsewhere"),
            Patch(color=INCIDENT, label="known incident"),
        ],
        loc="upper center", ncols=7, frameon=False, handlelength=1.6, columnspacing=1.5,
    )  # fmt: skip
