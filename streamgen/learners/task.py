"""A task: one partition of an input topic with all its learners. Columns in, results out.

The state is a function of the records that went through, in offset order; how they were cut into batches, and
which learners were in memory, changes no bit of it. Beside the learners it has facts: stream time (the
largest event time so far), the keys that have no learner yet, and with `scope: task` the weights that all
learners share, which stay when keys are paged or forgotten. N records of a batch, D features.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streamgen.config import InputConfig
from streamgen.learners.calibration import Calibration
from streamgen.learners.candidates import Candidates
from streamgen.learners.episodes import Episodes
from streamgen.learners.expiry import Expiry
from streamgen.learners.residents import Residents
from streamgen.learners.results import Results as Results  # both are part of what a task is to its callers
from streamgen.learners.results import chosen
from streamgen.learners.snapshot import Snapshot as Snapshot
from streamgen.learners.values import Values
from streamgen.models import build
from streamgen.models.likelihood import Likelihood
from streamgen.models.online import Kind, Learner, Scores
from streamgen.models.slab import Slab
from streamgen.records import Bools, Columns, Floats, Ints, TopicPartition
from streamgen.state.checkpoint import Fields, decode_fields, encode_fields
from streamgen.windows import Clock, Ticks

# A model sees no larger value: the difference of two, and a multiple of it, must be finite.
LARGEST = 1e300


@dataclass(slots=True)
class _Turn:
    """Records whose learners are all in memory, each in a row of its own: they go through in one call."""

    n: list[int] = field(default_factory=list)  # their rows in the batch
    row: list[int] = field(default_factory=list)  # their learners' rows in the slab
    rows: dict[str | None, int] = field(default_factory=dict)  # the same, of each key


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a learner stands: event time of its newest record and the usual time between records, ms; updates
    made; and which features had whole numbers only."""

    newest_ms: int
    gap_ms: float
    step: int
    whole_D: Bools


class Task:
    """Scores and learns one partition's records, a learner per key.

    `page_directory` is where learners beyond `max_resident` are kept (None: where temporary files are).
    """

    def __init__(
        self,
        source: TopicPartition,
        config: InputConfig,
        features: tuple[str, ...],
        seed: int,
        device: str,
        page_directory: Path | None = None,
    ) -> None:
        self.source, self.config, self.features = source, config, features
        self.model = build(config.model, len(features), config.window, device)
        self._clock = Clock(config.window)
        self._values = Values()
        self._calibration = Calibration(self.model.surprises, self.model.cautious)
        self._episodes = Episodes(config.anomaly)
        ttl_ms = None if config.key_ttl is None else config.key_ttl // timedelta(milliseconds=1)
        self._expiry = None if ttl_ms is None else Expiry(ttl_ms)
        self._candidates = Candidates(config.min_records, ttl_ms)
        self._stream_time: int | None = None  # ms; None before the first record
        # Since the last snapshot:
        self._changed: set[str | None] = set()
        self._removed: set[str | None] = set()
        self._told: set[str | None] = set()  # the keys of learners that a snapshot has or that were restored
        self._snapshot: Snapshot | None = None
        fields = {
            **self.model.fields(),
            **Clock.FIELDS,
            **Values.fields(len(features)),
            **self._calibration.fields(),
            **Episodes.fields(len(features)),
            **(Expiry.FIELDS if self._expiry else {}),
        }
        self.slab = Slab(fields, device, config.max_resident)
        name = partial(Learner, seed, source.topic)  # no method: a task that is dropped goes at once
        self._residents = Residents(self.model, self.slab, name, config.max_resident, page_directory)

    def process(self, columns: Columns) -> Results:
        """Score every record by what came before it, and learn from it.

        Raises `StopError` when learners beyond `max_resident` cannot be kept on disk.
        """
        if self._snapshot is not None:
            self._snapshot.before(set(columns.key))
        parts = []
        for turn in self._turns(columns):
            whole = len(turn.n) == len(columns)
            n_N, row_N = np.array(turn.n, dtype=np.int64), np.array(turn.row, dtype=np.int64)
            results = self._run(columns if whole else chosen(columns, n_N), row_N)
            if self._expiry is not None:
                for key, row in turn.rows.items():
                    self.slab.host("key_newest")[row] = self._expiry.newest(key)
            parts.append((n_N, results))
        self._sweep()
        if len(parts) == 1 and len(parts[0][0]) == len(columns):
            return parts[0][1]
        return Results.together(columns, parts, self.model.surprises)

    def _run(self, columns: Columns, row_N: Ints) -> Results:
        ticks, scores, p_N, ranked_N = self._advance(columns, row_N, learn=True)
        verdicts = self._episodes.judge(self.slab, row_N, columns, scores, p_N, ranked_N, ticks)
        return Results(columns, scores, p_N, verdicts, ticks)

    def _advance(self, columns: Columns, row_N: Ints, learn: bool) -> tuple[Ticks, Scores, Floats, Ints]:
        ticks = self._clock.advance(self.slab, row_N, columns.timestamp_N)
        value_ND = np.clip(columns.value_ND, -LARGEST, LARGEST)
        self._values.observe(self.slab, row_N, value_ND, ticks.late_N)
        run = partial(self.model.run, self.slab, row_N, value_ND, ticks, self._residents.learners, learn)
        if not self.model.cautious:
            scores = run()
            if not learn:  # nobody asks how a record ranks
                return ticks, scores, np.empty(0), np.empty(0, dtype=np.int64)
            return ticks, scores, *self._calibration.rank(self.slab, row_N, scores.surprise_NS, ~ticks.late_N)
        # What a record teaches depends on how it ranks: each is ranked between its score and its lesson.
        p_N, ranked_N = np.ones(len(row_N)), np.zeros(len(row_N), dtype=np.int64)

        def heed(scores: Scores, n: int) -> bool:
            surprise_S, learned = scores.surprise_NS[n], not ticks.late_N[n]
            p_N[n], ranked_N[n], incident = self._calibration.rank_one(
                self.slab, int(row_N[n]), surprise_S, learned
            )
            return incident

        return ticks, run(heed), p_N, ranked_N

    def follow(self, columns: Columns) -> None:
        """Move on over records without learning from them: what is carried from record to record (the
        model's state, scales, clock, bounds) is then as after a scoring, and weights are as they were.

        For one that generates from a state: it is none to learn on from. Raises as `process` does.
        """
        for turn in self._turns(columns):
            n_N, row_N = np.array(turn.n, dtype=np.int64), np.array(turn.row, dtype=np.int64)
            self._advance(chosen(columns, n_N), row_N, learn=False)

    @property
    def keys(self) -> list[str | None]:
        """The keys that have a learner, in the order in which they came."""
        return list(self._residents)

    @property
    def resident(self) -> int:
        """Learners in memory."""
        return len(self._residents.rows)

    @property
    def paged(self) -> int:
        """Learners on disk, beyond `max_resident`."""
        return len(self._residents.pages)

    @property
    def candidates(self) -> int:
        """Keys that have no learner yet and are counted."""
        return len(self._candidates)

    def generate(
        self,
        key: str | None,
        length: int,
        count: int,
        seed: int,
        kind: Kind = "continue",
        given_TD: Floats | None = None,
    ) -> Floats:
        """[count, length, D] sequences of the key's learner, in input units (see `OnlineModel.generate`),
        whole and within bounds where its features are (see `Values`). Raises `KeyError` for a key without a
        learner, `InputError` for a kind that the model does not give."""
        row = self._row_of(key)
        learner = self._residents.learners[row]
        drawn_SLD = self.model.generate(self.slab, row, learner, length, count, seed, kind, given_TD)
        shaped_SLD = self._values.shaped(self.slab, row, drawn_SLD)
        return shaped_SLD if given_TD is None else np.where(np.isnan(given_TD), shaped_SLD, given_TD)

    def likelihood(self, key: str | None, columns: Columns, draws: int, seed: int) -> Likelihood:
        """How likely the key's learner finds records of its key that follow (see `OnlineModel.likelihood`).
        Nothing is changed. Raises `KeyError` for a key without a learner, `InputError` for a model without a
        likelihood."""
        row = self._row_of(key)
        clock = Slab(Clock.FIELDS)
        clock.load(clock.add(), {name: self.slab.host(name)[row] for name in Clock.FIELDS})
        ticks = self._clock.advance(clock, np.zeros(len(columns), dtype=np.int64), columns.timestamp_N)
        value_ND = np.clip(columns.value_ND, -LARGEST, LARGEST)
        learner = self._residents.learners[row]
        return self.model.likelihood(self.slab, row, learner, value_ND, ticks, draws, seed)

    def standing(self, key: str | None) -> Standing:
        """Where a key's learner stands. Raises `KeyError` for a key without one."""
        row, host = self._row_of(key), self.slab.host
        newest, gap = int(host("clock_newest")[row]), float(host("clock_gap")[row])
        return Standing(newest, gap, int(host("updates")[row]), self._values.whole(self.slab, row))

    def _row_of(self, key: str | None) -> int:
        if key not in self._residents:
            raise KeyError(key)
        row = self._residents.use(key)
        assert row is not None  # no other learner is busy
        return row

    def snapshot(self, offset: int, whole: bool = False) -> Snapshot:
        """The state now, of which `offset` is the next record: the learners that changed since the last
        snapshot, or all of them. One at a time: an earlier one must be done, or is given up."""
        keys = [key for key in self._residents if whole or key in self._changed]
        removed = {key for key in self._removed if key not in self._residents}
        facts: dict[str, Any] = {
            "stream_time": self._stream_time,
            "candidates": self._candidates.facts(),
        }
        if self.slab.common:
            facts["shared"] = b64encode(encode_fields(self.slab.shared())).decode()
        self._snapshot = Snapshot(offset, facts, keys, removed, self._residents.copy)
        self._told.update(keys)
        self._changed, self._removed = set(), set()
        return self._snapshot

    def give_up(self, snapshot: Snapshot) -> None:
        """A snapshot was not stored: what was part of it counts as changed again."""
        self._changed.update(key for key in snapshot.keys if key in self._residents)
        self._removed |= snapshot.removed
        self._snapshot = None

    def learners(self) -> dict[str | None, Fields]:
        """A copy of every learner, by key."""
        return {key: self._residents.copy(key).fields for key in self._residents}

    def restore(self, facts: Mapping[str, Any], learners: Mapping[str | None, Fields]) -> None:
        """Take on a state that `snapshot` gave; only a new task can. Raises `StateError` when its fields are
        not this task's."""
        self._stream_time = facts.get("stream_time")
        self._candidates.restore(facts.get("candidates", ()))
        if self.slab.common:
            shared = b64decode(facts.get("shared", ""))
            self.slab.load_shared(decode_fields(shared, f"that the keys of {self.source} share"))
        self.slab.reserve(len(learners))
        for key, fields in learners.items():
            self._residents.put(key, fields)
            if self._expiry is not None:
                self._expiry.heard(key, int(fields["key_newest"]))
        self._told.update(learners)

    def _turns(self, columns: Columns) -> Iterator[_Turn]:
        """All records whose keys have a learner, in as few turns as can be: one ends where a key of it
        expires, or where `max_resident` leaves no room for one more. Each must be run before the next."""
        whole = self._whole(columns)
        if whole is not None:
            yield whole
            return
        turn, residents, expiry = _Turn(), self._residents, self._expiry
        for n, (key, time) in enumerate(zip(columns.key, columns.timestamp_N.tolist(), strict=True)):
            now = self._stream_time = self._later(time)
            if expiry is not None and expiry.expired(key, now):
                if key in turn.rows:
                    yield turn
                    turn = _Turn()
                self._forget(key)
            if key not in residents and not self._candidates.admit(key, time, now):
                continue
            row = residents.use(key, turn.rows)
            if row is None:
                yield turn
                turn = _Turn()
                row = residents.use(key)
                assert row is not None
            if expiry is not None:
                expiry.heard(key, time)
            turn.rows[key] = row
            turn.n.append(n)
            turn.row.append(row)
            self._changed.add(key)
        if turn.n:
            yield turn

    def _whole(self, columns: Columns) -> _Turn | None:
        """The usual batch at once: all its learners are in memory, and none can expire."""
        if self._expiry is not None or not len(columns):
            return None
        resident = self._residents.rows
        row = [resident.get(key, -1) for key in columns.key]
        if -1 in row:
            return None
        for key in columns.key if self.config.max_resident is not None else ():
            self._residents.use(key)
        self._changed.update(columns.key)
        self._stream_time = self._later(int(columns.timestamp_N.max()))
        return _Turn(list(range(len(row))), row)

    def _later(self, time: int) -> int:
        return time if self._stream_time is None else max(time, self._stream_time)

    def _sweep(self) -> None:
        """Forget the keys that are silent for too long: no later than at the end of the batch, so that a
        snapshot has none of them, wherever batches end."""
        if self._expiry is not None and self._stream_time is not None:
            for key in self._expiry.sweep(self._stream_time):
                self._forget(key)
            self._residents.compact()

    def _forget(self, key: str | None) -> None:
        """The key's learner is no more; its open episode ends unsaid."""
        if self._snapshot is not None:
            self._snapshot.before((key,))
        self._residents.remove(key)
        if self._expiry is not None:
            self._expiry.forget(key)
        self._changed.discard(key)
        if key in self._told:
            self._told.discard(key)
            self._removed.add(key)
