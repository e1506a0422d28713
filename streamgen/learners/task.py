"""A task: one partition of an input topic with all its learners. Columns in, results out.

The state is a function of the records that went through, in offset order; how they were cut into batches
changes no bit of it. N records of a batch, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamgen.config import InputConfig
from streamgen.learners.calibration import Calibration
from streamgen.learners.episodes import Episodes, Verdicts
from streamgen.models import build
from streamgen.models.online import Learner, Scores
from streamgen.models.slab import Slab
from streamgen.records import Columns, Floats, TopicPartition
from streamgen.windows import Clock, Ticks

# A model sees no larger value: the difference of two, and a multiple of it, must be finite.
LARGEST = 1e300


@dataclass(frozen=True, slots=True)
class Results:
    """One result for each record of `columns`."""

    columns: Columns
    scores: Scores
    p_N: Floats
    verdicts: Verdicts
    ticks: Ticks


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task's whole state at one offset: the next record to process is the one at `offset`."""

    offset: int
    keys: list[str | None]  # the learner of row m
    fields: Mapping[str, NDArray[np.generic]]  # [M, ...] each


class Task:
    """Scores and learns one partition's records, a learner per key."""

    def __init__(
        self, source: TopicPartition, config: InputConfig, features: tuple[str, ...], seed: int, device: str
    ) -> None:
        self.source, self.config, self.features = source, config, features
        self.model = build(config.model, len(features), config.window, device)
        self._seed = seed
        self._clock = Clock(config.window)
        self._calibration = Calibration(self.model.surprises)
        self._episodes = Episodes(config.anomaly)
        self._rows: dict[str | None, int] = {}
        self._learners: list[Learner] = []
        fields = {
            **self.model.fields(),
            **Clock.FIELDS,
            **self._calibration.fields(),
            **Episodes.fields(len(features)),
        }
        self.slab = Slab(fields, device)

    def process(self, columns: Columns) -> Results:
        """Score every record by what came before it, and learn from it."""
        rows = self._rows
        row_N = np.array(
            [rows[key] if key in rows else self._add(key) for key in columns.key], dtype=np.int64
        )
        ticks = self._clock.advance(self.slab, row_N, columns.timestamp_N)
        value_ND = np.clip(columns.value_ND, -LARGEST, LARGEST)
        scores = self.model.run(self.slab, row_N, value_ND, ticks, self._learners)
        p_N, ranked_N = self._calibration.rank(self.slab, row_N, scores.surprise_NS, ~ticks.late_N)
        verdicts = self._episodes.judge(self.slab, row_N, columns, scores, p_N, ranked_N, ticks)
        return Results(columns, scores, p_N, verdicts, ticks)

    @property
    def keys(self) -> list[str | None]:
        """The keys that have a learner, in the order in which they came."""
        return list(self._rows)

    def generate(self, key: str | None, length: int, count: int, seed: int) -> Floats:
        """[count, length, D] sequences that go on from the key's newest record, in input units."""
        row = self._rows[key]
        return self.model.generate(self.slab, row, self._learners[row], length, count, seed)

    def state(self, offset: int) -> TaskState:
        """A copy of the state, of which `offset` is the next record."""
        self.model.collect(self.slab)
        return TaskState(offset, self.keys, self.slab.rows())

    def restore(self, state: TaskState) -> None:
        """Take on a state that `state` gave."""
        self._rows = {key: row for row, key in enumerate(state.keys)}
        self._learners = [self._learner(key) for key in state.keys]
        self.slab.load(state.fields, len(state.keys))
        self.model.adopt(self.slab, self._learners)

    def _add(self, key: str | None) -> int:
        row = self._rows[key] = self.slab.add()
        self._learners.append(self._learner(key))
        self.model.start(self.slab, row, self._learners[row])
        return row

    def _learner(self, key: str | None) -> Learner:
        return Learner(self._seed, self.source.topic, key)
