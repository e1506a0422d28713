"""A uniform sample of all windows that a learner ever had, of bounded size (Vitter 1985, algorithm R).

Learning from the newest window alone forgets: a minibatch of it and kept ones is drawn from the whole past.
Drawn uniformly alone, the first windows of a stream are learned from all the time, and each later one less
often: of N updates with B windows the n-th window gets B ln(N / n), so the newest part of a stream, which it
now is like, is the one that the model knows least. A share of the draws is therefore by recency: of R kept
windows the r-th newest with probability ln(1 + 1/r) / ln(R + 1), as often between 1 and 10 as between 10 and
100. By these alone each window has about as many draws, when the stream has gone on, as any other.

A window is a row's fields `window_…`, each with T records first; the kept ones are `kept_…`, R of them.
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
    """R windows of the given fields, with a share `recent` of the draws by recency; of size 0 it has no state
    and keeps nothing."""

    def __init__(self, model: str, size: int, recent: float, window: Mapping[str, Field]) -> None:
        self._model, self.size, self._recent = model, size, recent
        self._window = dict(window)

    def fields(self) -> dict[str, Field]:
        """The kept windows, which of all they are (from 1), and how many there ever were."""
        if not self.size:
            return {}
        kept = {
            self._kept(name): replace(field, shape=(self.size, *field.shape))
            for name, field in self._window.items()
        }
        return {**kept, "kept_at_R": Field((self.size,), dtype="int64"), "windows": Field(dtype="int64")}

    def keep(self, slab: Slab, row: int, learner: Learner) -> None:
        """The n-th window, n > R, takes the place of a kept one with probability R / n."""
        if not self.size:
            return
        slab.host("windows")[row] += 1
        n = int(slab.host("windows")[row])
        noise = generator(learner.seed, learner.topic, learner.key, f"{self._model}.keep", n)
        slot = n - 1 if n <= self.size else int(noise.integers(n))
        if slot < self.size:
            slab.host("kept_at_R")[row, slot] = n
            for name in self._window:
                slab.host(self._kept(name))[row, slot] = slab.host(name)[row]

    def batch(self, slab: Slab, row: int, count: int, noise: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """The newest window and `count` − 1 that were kept, drawn with replacement (above): each field
        [count, T, ...]. Of size 0, the newest alone."""
        newest = tuple(slab.host(name)[row][None] for name in self._window)
        if not self.size:
            return newest
        present = min(int(slab.host("windows")[row]), self.size)
        slot_B = noise.integers(present, size=count - 1)
        if self._recent:
            newest_first_R = np.argsort(-slab.host("kept_at_R")[row, :present])
            rank_B = np.exp(noise.uniform(0.0, np.log(present + 1), count - 1)).astype(np.int64)
            recent_B = newest_first_R[np.clip(rank_B, 1, present) - 1]
            slot_B = np.where(noise.uniform(size=count - 1) < self._recent, recent_B, slot_B)
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
