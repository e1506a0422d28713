"""A learner's open window, and the updates that it brings once it is full.

Records are kept raw, and turned into what a network sees when they are used. A window that is full is learned
from after every `stride` records, together with windows of the past (`reservoir`); averaged weights follow
the newest (`averaging`). Shapes: S records of a window, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from streamgen.models import averaging
from streamgen.models.device import no_subnormals
from streamgen.models.noise import generator
from streamgen.models.online import Learner, Scores
from streamgen.models.optimiser import Optimiser, OptimiserSettings
from streamgen.models.reservoir import Reservoir
from streamgen.models.slab import Field, Slab

Parts = tuple[NDArray[Any], ...]  # of records, one for each field of a window
Loss = Callable[[Slab, int, Parts, np.random.Generator], tuple[float, Tensor]]


class Windowed:
    """The windows of one model's learners: `window` are their fields, each with S records first."""

    def __init__(
        self,
        model: str,
        settings: OptimiserSettings,
        window: Mapping[str, Field],
        stride: int,
        *,
        reservoir: int,
        recent: float,
        updates: int,
        batch: int,
        ema: float,
    ) -> None:
        self._model, self._window, self._stride = model, dict(window), stride
        self._updates, self._batch, self._ema = updates, batch, ema
        self.length = next(iter(self._window.values())).shape[0]
        self.reservoir = Reservoir(model, reservoir, recent, window)
        self._optimiser = Optimiser(settings)

    def fields(self, size: int) -> dict[str, Field]:
        """Weights, moments, averaged weights, of `size` parameters each; the window; the reservoir."""
        return {
            **self._optimiser.fields(size),
            **averaging.fields(size, self._optimiser.settings.shared),
            "draws": Field(dtype="int64"),  # updates and those that were skipped: keys the noise
            **self._window,
            "window_fill": Field(dtype="int64"),
            "window_new": Field(dtype="int64"),  # records since it was learned from
            **self.reservoir.fields(),
        }

    def begin(self, slab: Slab, row: int) -> None:
        """See `Optimiser.begin`."""
        self._optimiser.begin(slab, row)

    def begin_anew(self, slab: Slab, row: int) -> None:
        """No window spans the step to the next record."""
        slab.host("window_fill")[row] = slab.host("window_new")[row] = 0

    def fill(self, slab: Slab, row: int) -> int:
        """How many records the window has."""
        return int(slab.host("window_fill")[row])

    def records(self, slab: Slab, row: int, part: slice | None = None) -> Parts:
        """Views of the window's records, or a part of them, as one window: each field [1, ≤ S, ...]."""
        part = slice(self.fill(slab, row)) if part is None else part
        return tuple(slab.host(name)[row, part][None] for name in self._window)

    def push(self, slab: Slab, row: int, record: Sequence[ArrayLike]) -> bool:
        """Take in a record, one part for each field; True when it is time to learn."""
        fill = self.fill(slab, row)
        for name, part in zip(self._window, record, strict=True):
            window = slab.host(name)[row]
            if fill == self.length:
                window[:-1] = window[1:].copy()
            window[min(fill, self.length - 1)] = part
        slab.host("window_fill")[row] = fill = min(fill + 1, self.length)
        slab.host("window_new")[row] += 1
        complete = bool(fill == self.length and slab.host("window_new")[row] >= self._stride)
        if complete:
            slab.host("window_new")[row] = 0
        return complete

    def learn(self, slab: Slab, row: int, learner: Learner, scores: Scores, loss: Loss) -> None:
        """The updates that a full window brings, each down the gradient of `loss` on a minibatch; one that is
        not finite is skipped."""
        self.reservoir.keep(slab, row, learner)
        for _ in range(self._updates):
            began = perf_counter()
            with no_subnormals():
                value = self._update(slab, row, learner, loss)
            if value is None:
                scores.skipped.append(row)
            else:
                scores.loss.append(value)
                scores.seconds.append(perf_counter() - began)

    def _update(self, slab: Slab, row: int, learner: Learner, loss: Loss) -> float | None:
        slab.host("draws")[row] += 1
        draw = int(slab.host("draws")[row])
        noise = generator(learner.seed, learner.topic, learner.key, f"{self._model}.update", draw)
        value, gradient_P = loss(slab, row, self.reservoir.batch(slab, row, self._batch, noise), noise)
        if not (math.isfinite(value) and self._optimiser.step(slab, row, gradient_P)):
            return None
        averaging.average(slab, row, self._ema)
        return value
