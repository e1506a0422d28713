"""Parameters of many shapes in one flat vector, so that an optimiser sees one tensor and the slab one row."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from streamgen.models.slab import padded

Shapes = Mapping[str, tuple[int, ...]]


def flat_size(shapes: Shapes) -> int:
    """Length of the flat vector; every parameter starts on a 64-byte line."""
    return sum(padded(math.prod(shape)) for shape in shapes.values())


def flat_views(shapes: Shapes, flat_P: Tensor) -> dict[str, Tensor]:
    """The parameters by name, as views of the flat vector."""
    views, start = {}, 0
    for name, shape in shapes.items():
        length = math.prod(shape)
        views[name] = flat_P[start : start + length].view(shape)
        start += padded(length)
    return views
