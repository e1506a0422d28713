"""How a choice of settings is judged: one pass over the data, and what it is worth on the way.

`Trial` is all that a study needs of a kind of model: one that learns online is judged as it goes through the
records (`prequential`), one that learns in batches on images that it does not learn from (`held_out`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

PARTS = 27  # of a pass, for successive halving by three


@dataclass(frozen=True, slots=True)
class Point:
    """The score of what was gone through so far, lower is better (NaN: nothing was judged yet), and the CPU
    time that it took."""

    score: float
    seconds: float


class Failed(Exception):
    """The model of a trial has failed, and so has the choice of settings: the message says when, and how."""


class Trial(Protocol):
    """One kind of model over one piece of data."""

    unit: str  # of the score
    way: str  # what a pass goes through, in words
    points: int  # of a curve; divides `PARTS`

    def __call__(self, settings: Mapping[str, Any], seed: int, /) -> Iterator[Point | None]:
        """One pass with other settings: `points` points, one after each equal part of the way, the last of
        which is the final score. None comes often between them: the caller may stop there. Raises `Failed`.
        """
