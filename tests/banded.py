"""Images as files, for topics of them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def png(seed: int, size: tuple[int, int] = (16, 16), colour: bool = False) -> bytes:
    """A bright band in noise, as a PNG file."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (*size, 3) if colour else size, dtype=np.uint8)
    first = int(rng.integers(0, 12))
    pixels[first : first + 4] += 180
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
