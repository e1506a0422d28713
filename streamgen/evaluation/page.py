"""A page of figures and pictures that needs no other file, and how its pictures are drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgen.errors import InputError, MissingDependency
from streamgen.evaluation.report import Figure
from streamgen.output import whole_file
from streamgen.plotstyle import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

PAGE = "evaluation.html"
DPI = 110
_METADATA = {"Software": None}  # no time and no version: the same data give the same bytes
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
    """Write the page of an evaluation, and its pictures as PNG files, into `folder`, which is made; `said` is
    its paragraphs. Returns the page's path. Raises `InputError` when it cannot be written."""
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}.") from error
    parts = [*(f"<p>{escape(one)}</p>" for one in said), _table(figures)]
    for name, caption, picture in pictures:
        with whole_file(folder / f"{name}.png") as file:
            file.write(picture)
        parts.append(pictured(name, picture, caption))
    return write_html(folder / PAGE, title, parts)


def check_page(folder: Path) -> None:
    """For before the minutes of judging: raises what `write` and its pictures would."""
    check_folder(folder)
    check_pictures()


def check_folder(folder: Path) -> None:
    """Raises `InputError` where a file stands in the place of the folder, or of one above it."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"Cannot write into {folder}: {there} is a file. Name a folder.")


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
        draw().savefig(file, dpi=DPI, format="png", metadata=_METADATA)
    return file.getvalue()


def pixels(image_HWC: NDArray[np.uint8]) -> bytes:
    """An image as a PNG file, pixel by pixel. Raises `MissingDependency`."""
    check_pictures()
    from matplotlib.image import imsave

    file = io.BytesIO()
    # None leaves it out, which matplotlib's own types do not know.
    imsave(file, image_HWC, format="png", metadata=_METADATA)  # type: ignore[arg-type]
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


def _table(figures: Sequence[Figure]) -> str:
    rows = [
        f"<tr><td>{escape(one.name)}</td><td>{one.better}</td><td>{one.value:.4f}</td><td>{one.null:.4f}</td>"
        f"<td>{one.low:+.4f} to {one.high:+.4f}</td>"
        f"<td class=worse>{'worse than real' if one.worse_than_real else ''}</td></tr>"
        for one in figures
    ]
    head = "<tr><th>figure<th>better<th>generated<th>null<th>difference<th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"
