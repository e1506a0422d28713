"""Parameters of many shapes in one flat vector, so that an optimiser sees one tensor and the slab one row."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from streamgen.models.slab import padded

Shapes = Mapping[str, tuple[int, ...]]


def flat_size(shapes: Shapes) -> int:
    """Length of the flat vector; every parameter starts on a 64-byte line."""
    return sum(padded(math.prod(shape)) for shape in shapes.values())


def flat_views(shapes: Shapes, flat_P: Tensor) -> dict[str, Tensor]:
    """The parameters by name, as views of the flat vector."""
    lengths = [math.prod(shape) for shape in shapes.values()]
    # One split: its gradient is one vector, and that of a slice for each would be as many of full length.
    parts = torch.split(flat_P, [part for length in lengths for part in (length, padded(length) - length)])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts[::2], strict=True)}
