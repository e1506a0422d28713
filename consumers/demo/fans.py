"""The lower part of the picture: forecasts as fans with what then came, and single sequences beside it.

Shapes: S sequences of T records, N records that came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from consumers.demo.forecasts import INSIDE, LENGTH, Forecast
from producers.data import Series
from streamgen.plotstyle import OTHER, SOFT, VALUE

HEIGHT = 5.6  # inches
HEAD, FOOT = 0.95, 0.35  # of it: titles, and the last axis
SHOWN = 2  # sequences of a series: the first ones
WIDE, NARROW = "#ffd8b5", "#f7b27a"


def draw_forecasts(
    figure: Any, series: Sequence[Series], forecasts: Mapping[str, Forecast], height: float
) -> None:
    """Draw the lowest `HEIGHT` inches of a figure of this height."""
    grid = GridSpec(
        2 + SHOWN, len(series), figure=figure, height_ratios=(2.6, *[1] * (1 + SHOWN)), left=0.06, right=0.98,
        top=(HEIGHT - HEAD) / height, bottom=FOOT / height, hspace=0.3, wspace=0.17,
    )  # fmt: skip
    figure.text(0.06, (HEIGHT - 0.2) / height, "How will it go on?", fontsize=12, fontweight="bold")
    figure.legend(
        handles=[
            Line2D([], [], color=VALUE, label="came"),
            Patch(color=WIDE, label="80 % of generated sequences"),
            Patch(color=NARROW, label="50 %"),
            Line2D([], [], color=OTHER, label="one generated sequence"),
        ],
        loc="upper right", bbox_to_anchor=(0.99, (HEIGHT - 0.05) / height), ncols=4, frameon=False,
        handlelength=1.6, columnspacing=1.5,
    )  # fmt: skip
    for column, one in enumerate(series):
        forecast = forecasts.get(one.name)
        cells = [figure.add_subplot(grid[row, column]) for row in range(2 + SHOWN)]
        if forecast is None:
            for axes in cells:
                axes.set_axis_off()
            cells[0].set_title(f"{one.name}\nnot asked, or no answer", loc="left", fontsize=9.5, color=SOFT)
            continue
        inside_N = forecast.inside_N
        told = f"{inside_N.sum()} of {len(inside_N)} that came lie in the {INSIDE:.0%}"
        cells[0].set_title(f"{one.name}\n{told}", loc="left", fontsize=9.5, color=SOFT)
        _fan(cells[0], forecast)
        _beside(cells[1:], forecast)


def _fan(axes: Any, forecast: Forecast) -> None:
    ahead_T = np.arange(1, LENGTH + 1)
    for share, colour in ((INSIDE, WIDE), (0.5, NARROW)):
        low_T, high_T = forecast.band(share)
        axes.fill_between(ahead_T, low_T, high_T, color=colour, linewidth=0)
    axes.plot(np.arange(1 - len(forecast.was_N), 1), forecast.was_N, color=VALUE, linewidth=1.1)
    axes.plot(ahead_T[: len(forecast.came_N)], forecast.came_N, color=VALUE, linewidth=1.1)
    axes.axvline(0.5, color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)))
    _plain(axes)


def _beside(cells: Sequence[Any], forecast: Forecast) -> None:
    """What came and sequences of the same moment, on one scale."""
    shown = [(forecast.came_N, VALUE), *((value_T, OTHER) for value_T in forecast.value_ST[:SHOWN])]
    for axes, (value_T, colour) in zip(cells, shown, strict=True):
        axes.sharey(cells[0])
        axes.plot(np.arange(1, len(value_T) + 1), value_T, color=colour, linewidth=1.0)
        axes.set_xlim(1, LENGTH)
        axes.tick_params(labelbottom=axes is cells[-1], labelsize=8, length=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    cells[-1].set_xlabel("records from then on", fontsize=9)


def _plain(axes: Any) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(1 - LENGTH, LENGTH)
    axes.tick_params(labelsize=8, length=0)
