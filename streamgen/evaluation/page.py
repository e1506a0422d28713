"""A page of figures and pictures that needs no other file, and how its pictures are drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamgen.errors import MissingDependency
from streamgen.output import whole_file
from streamgen.plotstyle import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DPI = 110
_STYLE_SHEET = """
body { font: 15px/1.5 system-ui, sans-serif; color: #24292f }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } th, td { padding: .3rem .8rem; border-bottom: 1px solid #d0d7de }
th { text-align: left } td { text-align: right; font-variant-numeric: tabular-nums }
td:first-child { text-align: left } .worse { color: #d1242f }
figure { margin: 2rem 0 } img { max-width: 100% } figcaption { color: #57606a }
"""


def check_pictures() -> None:
    """Raises `MissingDependency` where no picture can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingDependency(
            "Pictures need the package matplotlib: pip install 'streamgen-kafka[demo]'."
        ) from None


def panels(rows: int, across: int, height: float) -> tuple[Drawing, np.ndarray]:
    """A drawing `height` inches high, and its axes [rows, across]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(9.0, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing, drawing.subplots(rows, across, squeeze=False)


def png(draw: Callable[[], Drawing]) -> bytes:
    """What `draw` draws in the project's style, as a PNG file. Raises `MissingDependency`."""
    check_pictures()
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        file = io.BytesIO()
        # No time and no version in it: the same data give the same bytes.
        draw().savefig(file, dpi=DPI, format="png", metadata={"Software": None})
    return file.getvalue()


def pictured(name: str, picture: bytes, caption: str) -> str:
    """A picture as a part of the page."""
    source = base64.b64encode(picture).decode()
    return (
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def write_html(path: Path, title: str, parts: Iterable[str]) -> Path:
    """Write a page; returns its path. Raises `InputError` where it cannot be written."""
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE_SHEET}</style><h1>{escape(title)}</h1>{''.join(parts)}</html>\n"
    )
    with whole_file(path) as file:
        file.write(html.encode())
    return path
