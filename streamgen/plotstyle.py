"""How the project's plots look."""

from __future__ import annotations

INK, SOFT, VALUE, OTHER = "#24292f", "#57606a", "#1f4e79", "#bc4c00"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": "#d0d7de",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "grid.color": "#eaeef2",
    "axes.grid": True,
    "axes.axisbelow": True,
}
