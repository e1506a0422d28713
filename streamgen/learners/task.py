"""A task: one partition of an input topic with all its learners. Columns in, results out.

The state is a function of the records that went through, in offset order; how they were cut into batches
changes no bit of it. N records of a batch, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgen.config import InputConfig
from streamgen.learners.calibration import Calibration
from streamgen.learners.episodes import Episodes, Verdicts
from streamgen.models import build
from streamgen.models.online import Learner, Scores
from streamgen.models.slab import Slab
from streamgen.records import Columns, Floats, TopicPartition
from streamgen.state.checkpoint import Fields, LearnerState
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


class Snapshot:
    """A task's state at one offset, copied little by little while the task goes on.

    A learner is copied when its turn comes, or before a record changes it: copy on write. So the stream
    never waits for a whole copy, and the copies are the state at `offset`, bit by bit.
    """

    def __init__(
        self,
        offset: int,
        facts: Mapping[str, Any],
        keys: Iterable[str | None],
        removed: Iterable[str | None],
        copy: Callable[[str | None], LearnerState],
    ) -> None:
        self.offset, self.facts, self.removed = offset, facts, frozenset(removed)
        self.keys = tuple(keys)  # whose learners are part of it
        self._left = dict.fromkeys(self.keys)
        self._copy = copy
        self._early: list[LearnerState] = []  # copied because they were about to change

    @property
    def done(self) -> bool:
        """Whether every learner was taken."""
        return not self._left and not self._early

    def before(self, keys: Iterable[str | None]) -> None:
        """These learners are about to change."""
        for key in keys:
            if key in self._left:
                del self._left[key]
                self._early.append(self._copy(key))

    def take(self, count: int) -> list[LearnerState]:
        """Up to `count` more learners."""
        taken, self._early = self._early[:count], self._early[count:]
        while self._left and len(taken) < count:
            taken.append(self._copy(self._left.popitem()[0]))
        return taken


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
        # Since the last snapshot:
        self._changed: set[str | None] = set()
        self._removed: set[str | None] = set()
        self._snapshot: Snapshot | None = None
        fields = {
            **self.model.fields(),
            **Clock.FIELDS,
            **self._calibration.fields(),
            **Episodes.fields(len(features)),
        }
        self.slab = Slab(fields, device)

    def process(self, columns: Columns) -> Results:
        """Score every record by what came before it, and learn from it."""
        touched = set(columns.key)
        if self._snapshot is not None:
            self._snapshot.before(touched)
        self._changed |= touched
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

    def snapshot(self, offset: int, whole: bool = False) -> Snapshot:
        """The state now, of which `offset` is the next record: the learners that changed since the last
        snapshot, or all of them. One at a time: an earlier one must be done, or is given up."""
        keys = list(self._rows) if whole else [key for key in self._rows if key in self._changed]
        self._snapshot = Snapshot(offset, {}, keys, self._removed - self._rows.keys(), self._copy)
        self._changed, self._removed = set(), set()
        return self._snapshot

    def give_up(self, snapshot: Snapshot) -> None:
        """A snapshot was not stored: what was part of it counts as changed again."""
        self._changed.update(key for key in snapshot.keys if key in self._rows)
        self._removed |= snapshot.removed
        self._snapshot = None

    def learners(self) -> dict[str | None, Fields]:
        """A copy of every learner, by key."""
        return {key: self._copy(key).fields for key in self._rows}

    def restore(self, facts: Mapping[str, Any], learners: Mapping[str | None, Fields]) -> None:
        """Take on a state that `snapshot` gave. Raises `StateError` when its fields are not this task's."""
        for key, fields in learners.items():
            row = self._rows[key] = self.slab.add()
            self._learners.append(self._learner(key))
            self.slab.load(row, fields)
            self.model.adopt(self.slab, row, self._learners[row])

    def _copy(self, key: str | None) -> LearnerState:
        row = self._rows[key]
        self.model.collect(self.slab, row)
        return LearnerState(key, self.slab.row(row))

    def _add(self, key: str | None) -> int:
        row = self._rows[key] = self.slab.add()
        self._learners.append(self._learner(key))
        self.model.start(self.slab, row, self._learners[row])
        return row

    def _learner(self, key: str | None) -> Learner:
        return Learner(self._seed, self.source.topic, key)
