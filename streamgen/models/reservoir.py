"""A uniform sample of all windows that a learner ever had, of bounded size (Vitter 1985, algorithm R).

Learning from the newest window alone forgets: a minibatch of it and kept ones is drawn from the whole past. A
window is a row's fields `window_…`, each with T records first; the kept ones are `kept_…`, R of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgen.models.noise import generator
from streamgen.models.online import Learner
from streamgen.models.slab import Field, Slab


class Reservoir:
    """R windows of the given fields; of size 0 it has no state and keeps nothing."""

    def __init__(self, model: str, size: int, window: Mapping[str, Field]) -> None:
        self._model, self.size = model, size
        self._window = dict(window)

    def fields(self) -> dict[str, Field]:
        """The kept windows, and how many windows there ever were."""
        if not self.size:
            return {}
        kept = {
            self._kept(name): replace(field, shape=(self.size, *field.shape))
            for name, field in self._window.items()
        }
        return {**kept, "windows": Field(dtype="int64")}

    def keep(self, slab: Slab, row: int, learner: Learner) -> None:
        """The n-th window, n > R, takes the place of a kept one with probability R / n."""
        if not self.size:
            return
        slab.host("windows")[row] += 1
        n = int(slab.host("windows")[row])
        noise = generator(learner.seed, learner.topic, learner.key, f"{self._model}.keep", n)
        slot = n - 1 if n <= self.size else int(noise.integers(n))
        if slot < self.size:
            for name in self._window:
                slab.host(self._kept(name))[row, slot] = slab.host(name)[row]

    def batch(self, slab: Slab, row: int, count: int, noise: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """The newest window and `count` − 1 that were kept, drawn with replacement: each field [count, T,
        ...]. Of size 0, the newest alone."""
        newest = tuple(slab.host(name)[row][None] for name in self._window)
        if not self.size:
            return newest
        slot_B = noise.integers(min(int(slab.host("windows")[row]), self.size), size=count - 1)
        kept = (slab.host(self._kept(name))[row, slot_B] for name in self._window)
        return tuple(np.concatenate(both) for both in zip(newest, kept, strict=True))

    def kept(self, slab: Slab, row: int) -> tuple[NDArray[Any], ...]:
        """Views of all windows that are kept: each field [≤ R, T, ...]; nothing when there are none."""
        count = min(int(slab.host("windows")[row]), self.size) if self.size else 0
        names = self._window if count else ()
        return tuple(slab.host(self._kept(name))[row, :count] for name in names)

    def _kept(self, name: str) -> str:
        stem, _, axes = name.removeprefix("window_").rpartition("_")
        return f"kept_{stem}_R{axes}"
