"""How a stream writes its records, seen from its newest ones, so that generated ones are written the same.

What a feature's values are is learned state (`learners.values`); whether a whole number is written `1`, `1.0`
or `true`, a time as text or in seconds, and a key as text or as a number, the state does not know. It is a
function of the log all the same: of the last `LOOKBACK` records of the partition.

Shapes: D features.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from streamgen.config import InputConfig
from streamgen.formats import FORMATS
from streamgen.formats.eventtime import EventTimes
from streamgen.records import Bools, Columns, Floats, RawBatch

LOOKBACK = 1000  # offsets
_RESOLUTIONS = (86_400_000, 3_600_000, 60_000, 1000)  # ms


@dataclass(frozen=True, slots=True)
class _Note:
    """One record: its place, keys and times, and the fields as they are written."""

    offset: int
    key: str | None
    kafka_key: bytes | None
    event_ms: int
    kafka_ms: int
    time: object
    key_field: object
    kinds_D: tuple[type, ...]


class Notation:
    """The notation of one partition. `note` it record by record, then `write`."""

    def __init__(self, config: InputConfig, features: tuple[str, ...]) -> None:
        self._config, self._features = config, features
        self._format = FORMATS[config.format]()
        self._times = EventTimes(config.timestamp)
        self._get = self._format.getter(features)
        self._notes: deque[_Note] = deque()
        self._like: Any = None  # the newest record, parsed

    def note(self, raw: RawBatch, columns: Columns, end: int) -> None:
        """Take in the usable records of a batch; `end` is the next offset after it."""
        first = end - LOOKBACK
        fields = (columns.raw_N, columns.offset_N, columns.timestamp_N)
        for key, n, offset, time in zip(columns.key, *(field.tolist() for field in fields), strict=True):
            if offset >= first:
                self._notes.append(self._note(raw, n, key, offset, time))
        while self._notes and self._notes[0].offset < first:
            self._notes.popleft()

    def _note(self, raw: RawBatch, n: int, key: str | None, offset: int, event_ms: int) -> _Note:
        record = self._like = self._format.parse(raw.value[n] or b"")
        kafka_ms = int(raw.timestamp_N[n])
        time, key_field = (
            None if path is None else self._format.getter((path,))(record)[0]
            for path in (self._config.timestamp.field, self._config.key.field)
        )
        kinds_D = tuple(map(type, self._get(record)))
        return _Note(
            offset,
            key,
            raw.key[n],
            event_ms,
            event_ms if kafka_ms < 0 else kafka_ms,
            time,
            key_field,
            kinds_D,
        )

    def times(self, newest_ms: int, gap_ms: float, first: int, count: int) -> list[int]:
        """Event times at the usual gap, the first of them `first` gaps after the newest, on the marks that
        the stream keeps: whole seconds, minutes, hours or days where all of its times are such."""
        marks = [
            mark for mark in _RESOLUTIONS
            if len(self._notes) > 1 and all(note.event_ms % mark == 0 for note in self._notes)
        ]  # fmt: skip
        mark = (marks or [1])[0]
        gap_ms = gap_ms or mark  # of a key whose records all had one time
        return [newest_ms + round(n * gap_ms / mark) * mark for n in range(first, first + count)]

    def kafka_time(self, event_ms: int) -> int:
        """The Kafka timestamp of a record of that time: as far from it as the newest record's is."""
        newest = self._newest()
        return max(event_ms if newest is None else event_ms + newest.kafka_ms - newest.event_ms, 0)

    def kafka_key(self, key: str | None) -> bytes | None:
        """The Kafka key of the records of a key."""
        scope = None if key is None else key.encode()
        newest = self._newest()
        if newest is None or self._config.key.field is None:
            return scope
        if newest.kafka_key == (None if newest.key is None else newest.key.encode()):
            return scope
        return next((note.kafka_key for note in reversed(self._notes) if note.key == key), None)

    def write(self, key: str | None, time_ms: int, value_D: Floats, whole_D: Bools) -> bytes:
        """A record's value: time, key, and the features as the stream has them."""
        return self._format.write(self._fields(key, time_ms, value_D, whole_D), self._like)

    def _fields(
        self, key: str | None, time_ms: int, value_D: Floats, whole_D: Bools
    ) -> Iterator[tuple[str, object]]:
        newest = self._newest()
        if self._config.timestamp.field is not None:
            like = None if newest is None else newest.time
            known = isinstance(like, str | int | float)
            yield self._config.timestamp.field, self._times.written(time_ms, like if known else None)  # type: ignore[arg-type]
        if self._config.key.field is not None and key is not None:
            yield self._config.key.field, key if newest is None else _key_as(newest.key_field, key)
        kinds_D = self._kinds()
        for name, value, whole, kind in zip(
            self._features, value_D.tolist(), whole_D.tolist(), kinds_D, strict=True
        ):
            if not whole or kind is float:
                yield name, value
            else:
                yield name, bool(value) if kind is bool and value in (0, 1) else int(value)

    def _newest(self) -> _Note | None:
        return self._notes[-1] if self._notes else None

    def _kinds(self) -> list[type]:
        """How each feature's newest value is written; int where none is known."""
        return [
            next((k for note in reversed(self._notes) if (k := note.kinds_D[d]) in (bool, int, float)), int)
            for d in range(len(self._features))
        ]


def _key_as(like: object, key: str) -> object:
    """A scope key as the field that it comes from has it."""
    if isinstance(like, bool):
        return key == "true" if key in ("true", "false") else key
    if isinstance(like, int | float):
        try:
            return msgspec.json.decode(key, type=int | float)
        except msgspec.DecodeError:
            return key
    return key
