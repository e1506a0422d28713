"""A study as one HTML page with its curves, and its best choice as a configuration file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamgen.config import Config, InputConfig, WindowConfig
from streamgen.configfile import secret_paths
from streamgen.evaluation.page import panels, pictured, png, write_html
from streamgen.plotstyle import INK, SOFT
from streamgen.tuning.effects import Table, told
from streamgen.tuning.factors import Factor, Search, as_it_is
from streamgen.tuning.study import Tried
from streamgen.tuning.trial import Trial
from streamgen.yamlfile import dump_yaml

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

PAGE, BEST = "report.html", "best.yaml"
_LABELLED = 6  # curves with a colour of their own


def write_page(
    folder: Path,
    title: str,
    said: Sequence[str],
    tables: Sequence[Table],
    search: Search,
    factors: Sequence[Factor],
    tried: Sequence[Tried],
    trial: Trial,
) -> Path:
    """Write `report.html`; returns its path. Raises `InputError`, `MissingDependency`."""
    parts = [f"<p>{escape(line)}</p>" for line in said]
    parts += [_html(table) for table in tables]
    caption = (
        f"Difference to what there is in {trial.unit}, over the {trial.way} gone through so far: below zero "
        "is better. "
        "Lines are means over seeds; the band is from the lowest to the highest seed."
    )
    for name, group in _groups(search, factors, tried):
        picture = png(partial(_curves, name, tried[0], group, trial))
        parts.append(pictured(name, picture, caption))
    return write_html(folder / PAGE, title, parts)


def best_yaml(content: dict[str, Any], topic: str, chosen: InputConfig) -> str:
    """The configuration file's `content` with the chosen model and window for the input `topic`, as YAML that
    `run` and `fit` take. Secrets are left out."""
    window = chosen.window.model_dump(mode="json")
    usual = WindowConfig().model_dump(mode="json")
    section = {
        "model": dict(chosen.model),
        "window": {key: value for key, value in window.items() if value != usual[key]},
    }
    inputs = content.get("inputs") or [{"topic": topic}]
    changed = []
    for one in inputs:
        mine = {**one, **section} if one.get("topic") == topic else dict(one)
        changed.append({key: value for key, value in mine.items() if key != "window" or value})
    whole, left_out = {**content, "inputs": changed}, False
    for *sections, name in secret_paths(Config):
        inside: Any = whole
        for key in sections:
            inside = inside.get(key) if isinstance(inside, dict) else None
        if isinstance(inside, dict) and inside.get(name) is not None:
            inside = {key: value for key, value in inside.items() if key != name}
            whole, left_out = {**whole, sections[0]: inside}, True
    note = "# Secrets are left out: give them by the environment.\n" if left_out else ""
    return note + dump_yaml(whole)


def _html(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}" for cell in table.head)
    rows = (
        "<tr>"
        + "".join(f"<td{' class=worse' if cell == 'worse' else ''}>{escape(cell)}</td>" for cell in row)
        for row in table.rows
    )
    return f"<table><tr>{head}</tr>{'</tr>'.join(rows)}</tr></table>"


def _groups(
    search: Search, factors: Sequence[Factor], tried: Sequence[Tried]
) -> Iterable[tuple[str, list[tuple[str, Tried]]]]:
    """Pictures: name and labelled curves. Of one setting at a time a picture a setting, else one of all."""
    base = as_it_is(factors)
    if search != "one":
        ranked = sorted(tried[1:], key=lambda one: (not one.whole, one.score))
        yield "combinations", [(told(factors, one.choice), one) for one in ranked]
        return
    for factor in factors:
        alone = [one for one in tried[1:] if {**one.choice, factor.name: base[factor.name]} == base]
        if alone:
            yield factor.name, [(one.choice[factor.name], one) for one in alone]


def _curves(name: str, base: Tried, group: Sequence[tuple[str, Tried]], trial: Trial) -> Drawing:
    drawing, axes = panels(1, 1, 3.4)
    axis: Axes = axes[0, 0]
    axis.axhline(0.0, color=INK, linewidth=1.2, label="as it is")
    late = []
    for number, (label, one) in enumerate(group):
        points = min(one.curve_SP.shape[1], base.curve_SP.shape[1])
        share_P = 100.0 * np.arange(1, points + 1) / trial.points
        difference_SP = one.curve_SP[:, :points] - base.curve_SP[:, :points]
        mean_P = difference_SP.mean(axis=0)
        late += mean_P[trial.points // 9 :].tolist()
        if number < _LABELLED:
            (line,) = axis.plot(share_P, mean_P, linewidth=1.4, label=label)
            low_P, high_P = difference_SP.min(axis=0), difference_SP.max(axis=0)
            axis.fill_between(share_P, low_P, high_P, color=line.get_color(), alpha=0.15, linewidth=0)
        else:
            axis.plot(share_P, mean_P, color=SOFT, linewidth=0.5, alpha=0.5)
    known = [value for value in late if np.isfinite(value)]
    if known:
        low, high = min(0.0, *known), max(0.0, *known)
        room = 0.1 * (high - low) or 1.0
        axis.set_ylim(low - room, high + room)  # the first records differ by far more
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"% of the {trial.way}")
    axis.set_title(name)
    axis.legend(fontsize=8)
    return drawing
