"""Real and generated windows side by side, as PNG files and as one page that needs no other file.

N real windows of T records with D features, M generated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamgen.evaluation import page
from streamgen.evaluation.moments import correlations
from streamgen.evaluation.report import Figure
from streamgen.evaluation.windows import checked, in_real_units
from streamgen.plotstyle import OTHER, VALUE
from streamgen.records import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SHOWN = 4  # windows of each kind, and columns where there are many
POINTS = 1000  # of each kind in the projection

_CAPTIONS = {
    "windows": "Windows, drawn at random: real ones on the left, generated ones on the right; a line is a "
    "column, in the real column's standard deviations.",
    "projection": "Every window is a point: its place along the two directions in which the real windows "
    "differ most (principal components of the real ones).",
    "values": "How often each value comes.",
    "autocorrelations": "Correlation of a column with itself some records later, within windows.",
}


def write_page(
    folder: Path,
    real_NTD: Floats,
    generated_MTD: Floats,
    columns: Sequence[str],
    figures: Sequence[Figure],
    title: str,
) -> Path:
    """Write `evaluation.html` and its pictures as PNG files into `folder`; returns the page's path.

    Raises `InputError` for windows that cannot be compared or a folder that cannot be written, and
    `MissingDependency` without matplotlib.
    """
    checked(real_NTD, generated_MTD)
    said = (
        f"{len(real_NTD)} real and {len(generated_MTD)} generated windows of {real_NTD.shape[1]} records. "
        "Each figure stands beside its null, what real windows give against real ones; the interval of their "
        "difference is at 95 %, over seeds."
    )
    return page.write(folder, title, [said], figures, pictures(real_NTD, generated_MTD, columns))


def pictures(real_NTD: Floats, generated_MTD: Floats, columns: Sequence[str]) -> Iterator[page.Picture]:
    """The pictures of the page."""
    for name, draw in _DRAWN.items():
        png = page.png(partial(draw, real_NTD, generated_MTD, columns))
        yield page.Picture(name, _CAPTIONS[name], png)


def _spread(columns: int) -> list[int]:
    """Some of many columns, from the first to the last."""
    return sorted({round(d) for d in np.linspace(0, columns - 1, min(SHOWN, columns))})


def _windows(real_NTD: Floats, generated_MTD: Floats, columns: Sequence[str]) -> Drawing:
    drawing, axes = page.panels(SHOWN, 2, 1.6 * SHOWN)
    rng = np.random.default_rng(0)
    for across, (kind, windows) in enumerate((("real", real_NTD), ("generated", generated_MTD))):
        chosen = rng.choice(len(windows), min(SHOWN, len(windows)), replace=False)
        shown = in_real_units(real_NTD, windows[chosen])
        axes[0, across].set_title(kind)
        for down, window_TD in enumerate(shown):
            axes[down, across].plot(window_TD, linewidth=1.0)
            axes[down, across].sharey(axes[down, 0])
    return drawing


def _projection(real_NTD: Floats, generated_MTD: Floats, columns: Sequence[str]) -> Drawing:
    real_NF = in_real_units(real_NTD, real_NTD).reshape(len(real_NTD), -1)
    generated_MF = in_real_units(real_NTD, generated_MTD).reshape(len(generated_MTD), -1)
    centre_F = real_NF.mean(axis=0)
    _, _, directions = np.linalg.svd(real_NF - centre_F, full_matrices=False)
    drawing, axes = page.panels(1, 1, 5.0)
    rng = np.random.default_rng(0)
    for kind, colour, points in (("real", VALUE, real_NF), ("generated", OTHER, generated_MF)):
        some = points[rng.permutation(len(points))[:POINTS]]
        # One direction is all there is of windows of a single value.
        place_2 = np.pad((some - centre_F) @ directions[:2].T, ((0, 0), (0, max(0, 2 - len(directions)))))
        axes[0, 0].scatter(*place_2.T, s=8, alpha=0.5, color=colour, label=kind, linewidths=0)
    axes[0, 0].legend()
    return drawing


def _values(real_NTD: Floats, generated_MTD: Floats, columns: Sequence[str]) -> Drawing:
    shown = _spread(len(columns))
    drawing, axes = page.panels(1, len(shown), 2.6)
    for d, axis in zip(shown, axes[0], strict=True):
        low, high = np.quantile(real_NTD[:, :, d], [0.001, 0.999])
        edges = np.linspace(low, high if high > low else low + 1.0, 60)
        for kind, colour, windows in (("real", VALUE, real_NTD), ("generated", OTHER, generated_MTD)):
            values = np.clip(
                windows[:, :, d].ravel(), edges[0], edges[-1]
            )  # what is beyond stands at the ends
            weight = np.full(len(values), 1.0 / len(values))
            axis.hist(values, edges, weights=weight, histtype="step", color=colour, label=kind)
        axis.set_title(columns[d], fontsize=9)
    axes[0, 0].legend(fontsize=8)
    return drawing


def _autocorrelations(real_NTD: Floats, generated_MTD: Floats, columns: Sequence[str]) -> Drawing:
    shown = _spread(len(columns))
    drawing, axes = page.panels(1, len(shown), 2.6)
    kinds = (("real", VALUE, real_NTD), ("generated", OTHER, generated_MTD))
    found = [(kind, colour, correlations(windows)) for kind, colour, windows in kinds]
    for d, axis in zip(shown, axes[0], strict=True):
        for kind, colour, correlation_TDD in found:
            axis.plot(correlation_TDD[:, d, d], color=colour, label=kind)
        axis.set_title(columns[d], fontsize=9)
        axis.set_ylim(-1.05, 1.05)
    axes[0, 0].legend(fontsize=8)
    return drawing


_DRAWN: dict[str, Callable[[Floats, Floats, Sequence[str]], Drawing]] = {
    "windows": _windows,
    "projection": _projection,
    "values": _values,
    "autocorrelations": _autocorrelations,
}
