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

from consumers.demo.judgement import Judgement, Score
from consumers.demo.report import Outcome
from consumers.demo.tail import Seen
from producers.data import Incident, Series
from streamgen.output import whole_file
from streamgen.records import Floats

INK, SOFT, BAND, LINE = "#24292f", "#6e7781", "#9ecbff", "#1f4e79"
INCIDENT, ALARM, SCORE = "#ffd8a8", "#d1242f", "#57606a"
ZOOM = 96  # records on each side of the alarm that is looked at closely

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": "#d0d7de",
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "grid.color": "#eaeef2",
    "axes.grid": True,
    "axes.axisbelow": True,
}


class _Track:
    """One key's scores as arrays. N records."""

    def __init__(self, scores: list[Score], seen: Seen) -> None:
        self.feature = next(iter(scores[0].expected)) if scores else ""
        self.time_N: Any = np.array([score.time_ms for score in scores], dtype="datetime64[ms]")
        self.value_N = _floats([seen.values[score.place].get(self.feature) for score in scores])
        self.low_N = _floats([score.interval[self.feature][0] for score in scores])
        self.high_N = _floats([score.interval[self.feature][1] for score in scores])
        self.expected_N = _floats([score.expected[self.feature] for score in scores])
        self.score_N = _floats([score.score for score in scores])
        self.threshold_N = _floats([None if score.warming_up else score.threshold for score in scores])
        self.anomaly_N = np.array([score.is_anomaly for score in scores], dtype=np.bool_)


def draw(path: Path, outcome: Outcome) -> None:
    """Write the picture as PNG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 3.1 * len(outcome.series) + 0.8), dpi=110)
        FigureCanvasAgg(figure)
        grid = GridSpec(
            len(outcome.series) * 3, 2, figure=figure, width_ratios=(2.5, 1),
            height_ratios=(2.4, 1, 0.75) * len(outcome.series),
            left=0.06, right=0.99, top=0.93, bottom=0.02, hspace=0.12, wspace=0.1,
        )  # fmt: skip
        for row, series in enumerate(outcome.series):
            scores = outcome.seen.scores[series.name]
            axes = [figure.add_subplot(grid[3 * row + part, 0]) for part in range(2)]
            close = figure.add_subplot(grid[3 * row : 3 * row + 2, 1])
            judgement = outcome.judgements[series.name]
            track = _Track(scores, outcome.seen)
            _title(axes[0], series, judgement)
            _values(axes[0], track, series.incidents)
            _scores(axes[1], track, series.incidents)
            _close_up(close, track, series.incidents, judgement)
        _legend(figure)
        with whole_file(path) as file:
            figure.savefig(file, format="png", facecolor="white")


def _title(axes: Any, series: Series, judgement: Judgement) -> None:
    axes.set_title(series.about, loc="left", fontsize=11.5, fontweight="bold")
    axes.set_title(str(judgement), loc="right", fontsize=10.5, color=SOFT)


def _values(axes: Any, track: _Track, incidents: tuple[Incident, ...]) -> None:
    _shade(axes, incidents)
    axes.fill_between(track.time_N, track.low_N, track.high_N, color=BAND, linewidth=0, alpha=0.8)
    axes.plot(track.time_N, track.value_N, color=LINE, linewidth=0.55)
    alarm_N = track.anomaly_N
    axes.plot(track.time_N[alarm_N], track.value_N[alarm_N], "o", color=ALARM, markersize=3.6)
    _limit(axes, track.value_N)
    axes.tick_params(labelbottom=False)
    axes.set_ylabel(track.feature)
    _span(axes, track)


def _scores(axes: Any, track: _Track, incidents: tuple[Incident, ...]) -> None:
    _shade(axes, incidents)
    axes.plot(track.time_N, track.score_N, color=SCORE, linewidth=0.35, alpha=0.8)
    axes.plot(track.time_N, track.threshold_N, color=ALARM, linewidth=0.8, linestyle=(0, (4, 3)))
    alarm_N = track.anomaly_N
    axes.plot(track.time_N[alarm_N], track.score_N[alarm_N], "o", color=ALARM, markersize=3.6)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("score")
    _span(axes, track)
    _date_axis(axes)


def _close_up(axes: Any, track: _Track, incidents: tuple[Incident, ...], judgement: Judgement) -> None:
    """The most surprising alarm in an incident's window, near enough to see what was expected."""
    caught = [finding for finding in judgement.findings if finding.first is not None]
    if not caught or not len(track.time_N):
        axes.set_axis_off()
        return
    inside_N = np.zeros(len(track.time_N), dtype=np.bool_)
    for finding in caught:
        begin, end = (np.datetime64(ms, "ms") for ms in (finding.incident.start_ms, finding.incident.end_ms))
        inside_N |= (track.time_N >= begin) & (track.time_N <= end) & track.anomaly_N
    centre = int(np.argmax(np.where(inside_N, track.score_N, -1.0)))
    part = slice(max(0, centre - ZOOM), centre + ZOOM)
    when = track.time_N[centre]
    finding = next(
        one for one in caught if one.incident.start_ms <= when.astype(np.int64) <= one.incident.end_ms
    )
    _shade(axes, incidents)
    time_n, value_n, alarm_n = track.time_N[part], track.value_N[part], track.anomaly_N[part]
    axes.fill_between(time_n, track.low_N[part], track.high_N[part], color=BAND, linewidth=0, alpha=0.8)
    axes.plot(time_n, value_n, color=LINE, linewidth=1.1)
    axes.plot(time_n[alarm_n], value_n[alarm_n], "o", color=ALARM, markersize=5)
    _limit(axes, value_n)
    axes.set_xlim(time_n[0], time_n[-1])
    axes.set_title(
        finding.incident.what or f"close up: {str(when)[:10]}", loc="left", fontsize=10.5, color=SOFT
    )
    _date_axis(axes)


def _shade(axes: Any, incidents: tuple[Incident, ...]) -> None:
    for incident in incidents:
        begin, end = (np.datetime64(ms, "ms") for ms in (incident.start_ms, incident.end_ms))
        axes.axvspan(begin, end, color=INCIDENT, linewidth=0, alpha=0.75)


def _limit(axes: Any, value_N: Floats) -> None:
    """The values fill the panel; a band that is wide before anything was learned must not squeeze them."""
    if not np.isfinite(value_N).any():
        return
    low, high = float(np.nanmin(value_N)), float(np.nanmax(value_N))
    room = 0.12 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)


def _span(axes: Any, track: _Track) -> None:
    if len(track.time_N) > 1:
        axes.set_xlim(track.time_N[0], track.time_N[-1])


def _date_axis(axes: Any) -> None:
    locator = dates.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure.legend(
        handles=[
            Line2D([], [], color=LINE, label="value"),
            Patch(color=BAND, label="expected before it was seen"),
            Line2D([], [], color=SCORE, label="score"),
            Line2D([], [], color=ALARM, linestyle=(0, (4, 3)), label="threshold"),
            Line2D([], [], color=ALARM, marker="o", linestyle="", label="anomaly"),
            Patch(color=INCIDENT, label="known incident (never told to the model)"),
        ],
        loc="upper center", ncols=6, frameon=False, fontsize=10.5,
    )  # fmt: skip


def _floats(values: list[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
