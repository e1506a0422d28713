"""An evaluation as one HTML page that needs no other file: figures, each beside its null, and pictures."""

from __future__ import annotations

import base64
import importlib
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgen.errors import MissingDependency
from streamgen.evaluation.report import Figure
from streamgen.output import whole_file
from streamgen.plotstyle import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

PAGE = "evaluation.html"
DPI = 110
_METADATA = {"Software": None}  # no version and no time: the same drawing gives the same bytes
_STYLE_SHEET = """
body { font: 15px/1.5 system-ui, sans-serif; color: #24292f }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } th, td { padding: .3rem .8rem; border-bottom: 1px solid #d0d7de }
th { text-align: left } td { text-align: right; font-variant-numeric: tabular-nums }
td:first-child { text-align: left } .worse { color: #d1242f }
figure { margin: 2rem 0 } img { max-width: 100% } figcaption { color: #57606a }
"""


class Picture(NamedTuple):
    """A PNG file with what it shows."""

    name: str
    caption: str
    png: bytes


def write(
    folder: Path, title: str, said: Sequence[str], figures: Sequence[Figure], pictures: Iterable[Picture]
) -> Path:
    """Write the page, and its pictures as PNG files, into `folder`, which is made; `said` is its paragraphs.
    Returns the page's path. Raises `InputError` when it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, caption, png in pictures:
        with whole_file(folder / f"{name}.png") as file:
            file.write(png)
        source = base64.b64encode(png).decode()
        parts.append(
            f'<figure><img alt="{name}" src="data:image/png;base64,{source}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    paragraphs = "".join(f"<p>{escape(one)}</p>" for one in said)
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE_SHEET}</style><h1>{escape(title)}</h1>"
        f"{paragraphs}{_table(figures)}{''.join(parts)}</html>\n"
    )
    page = folder / PAGE
    with whole_file(page) as file:
        file.write(html.encode())
    return page


def png(draw: Callable[[], Drawing]) -> bytes:
    """What `draw` draws, as a PNG file in the project's style. Raises `MissingDependency`."""
    with _matplotlib().rc_context(STYLE):
        file = io.BytesIO()
        draw().savefig(file, dpi=DPI, format="png", metadata=_METADATA)
    return file.getvalue()


def pixels(image_HWC: NDArray[np.uint8]) -> bytes:
    """An image as a PNG file, pixel by pixel. Raises `MissingDependency`."""
    file = io.BytesIO()
    _matplotlib("matplotlib.image").imsave(file, image_HWC, format="png", metadata=_METADATA)
    return file.getvalue()


def _matplotlib(part: str = "matplotlib") -> Any:
    try:
        return importlib.import_module(part)
    except ImportError:
        raise MissingDependency(
            "Pictures need the package matplotlib: pip install 'streamgen-kafka[demo]'."
        ) from None


def drawing(rows: int, across: int, height: float) -> tuple[Drawing, np.ndarray]:
    """An empty drawing, `height` inches high, with its axes [rows, across]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawn = Drawing(figsize=(9.0, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(rows, across, squeeze=False)


def _table(figures: Sequence[Figure]) -> str:
    rows = [
        f"<tr><td>{escape(one.name)}</td><td>{one.better}</td><td>{one.value:.4f}</td><td>{one.null:.4f}</td>"
        f"<td>{one.low:+.4f} to {one.high:+.4f}</td>"
        f"<td class=worse>{'worse than real' if one.worse_than_real else ''}</td></tr>"
        for one in figures
    ]
    head = "<tr><th>figure<th>better<th>generated<th>null<th>difference<th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"
