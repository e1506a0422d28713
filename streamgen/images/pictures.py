"""Pictures of a training: grids of images, and its losses.

N images of H × W pixels, C colours.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from streamgen.errors import MissingDependency
from streamgen.images.source import Images
from streamgen.plotstyle import OTHER, SOFT, STYLE, VALUE

GAP = 2
LARGE = 320  # pixels across a grid, at least: small images are shown larger, each pixel a square
_WHITE = 255
_NEEDED = "Pictures need Pillow and matplotlib: pip install 'streamgen-kafka[images]'."


def grid(images_NHWC: Images, across: int) -> bytes:
    """The images as one PNG, row by row."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency(_NEEDED) from error
    count, height, width, colours = images_NHWC.shape
    down = math.ceil(count / across)
    sheet = np.full((down * (height + GAP) - GAP, across * (width + GAP) - GAP, colours), _WHITE, np.uint8)
    for number, image_HWC in enumerate(images_NHWC):
        top, left = (number // across) * (height + GAP), (number % across) * (width + GAP)
        sheet[top : top + height, left : left + width] = image_HWC
    drawn = Image.fromarray(sheet[..., 0] if colours == 1 else sheet)
    scale = math.ceil(LARGE / drawn.width)
    file = io.BytesIO()
    drawn.resize((drawn.width * scale, drawn.height * scale), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def png(image_HWC: Images) -> bytes:
    """One image as PNG. The same pixels give the same bytes, with one version of Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency(_NEEDED) from error
    file = io.BytesIO()
    Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC).save(file, "PNG")
    return file.getvalue()


def losses(history: Sequence[tuple[int, dict[str, float]]], title: str) -> bytes:
    """The losses over the steps, as PNG. A point without some loss is a gap in its line."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(_NEEDED) from error
    with rc_context(STYLE):
        drawing = Figure(figsize=(8, 3.2), layout="constrained")
        FigureCanvasAgg(drawing)
        axes = drawing.add_subplot()
        names = list(dict.fromkeys(name for _, point in history for name in point))
        for name, colour in zip(names, (VALUE, OTHER, SOFT), strict=False):
            axes.plot(
                [step for step, _ in history],
                [point.get(name, math.nan) for _, point in history],
                color=colour,
                label=name,
            )
        axes.set_xlabel("step")
        axes.set_title(title, loc="left")
        if names:
            axes.legend(frameon=False, ncols=len(names))
        file = io.BytesIO()
        drawing.savefig(file, format="png", dpi=110)
    return file.getvalue()
