"""Rows of CSV and JSON lines files as records with an event time."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from producers.sending import Record
from streamgen.config import TimestampConfig
from streamgen.csvfile import TIME_NAMES, CsvRows
from streamgen.errors import InputError
from streamgen.formats.eventtime import EARLIEST_MS, LATEST_MS, EventTimes
from streamgen.formats.format import ABSENT
from streamgen.formats.json import JsonFormat

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_ROWS = 256  # of a CSV that are read at once: small, so that progress is smooth


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take from a file: columns of a CSV, or fields (dotted paths) of JSON lines.

    `timestamp` None: found by its name. `key` is one key for all rows, `key_column` takes it from the
    row; neither: no key. `values` None: the numeric columns, or whole JSON lines as they are.
    """

    timestamp: str | None = None
    key: str | None = None
    key_column: str | None = None
    values: tuple[str, ...] | None = None
    times: TimestampConfig = field(default_factory=TimestampConfig)


class Rows(Protocol):
    """A file that can be read more than once."""

    @property
    def total_bytes(self) -> int: ...

    @property
    def bytes_read(self) -> int: ...

    def records(self, shift_ms: int) -> Iterator[Record]:
        """The rows in file order, later by `shift_ms`: in the event time and in the field that holds it.

        A row whose time cannot be read has the time of the row before. Raises InputError.
        """


def open_rows(path: Path, choice: Choice) -> Rows:
    """A reader by the file's suffix: .jsonl, .ndjson and .json are JSON lines, all else CSV. InputError."""
    return _JsonLines(path, choice) if path.suffix.lower() in _JSON_LINES else _Csv(path, choice)


class _Csv:
    """A row becomes a JSON object of its value columns, null where missing, with the timestamp as given."""

    def __init__(self, path: Path, choice: Choice) -> None:
        self._rows = CsvRows(path, choice.timestamp, choice.key_column, choice.values, choice.times)
        self._key = None if choice.key is None else choice.key.encode()
        self._times = EventTimes(choice.times)
        self.total_bytes = self._rows.total_bytes

    @property
    def bytes_read(self) -> int:
        return self._rows.bytes_read

    def records(self, shift_ms: int) -> Iterator[Record]:
        time_name, columns = self._rows.timestamp_column, self._rows.columns
        for batch in self._rows.batches(_ROWS):
            values, times = batch.value_ND.tolist(), batch.time_ms_N.tolist()
            for n, key in enumerate(batch.key):
                fields: dict[str, object] = {}
                if time_name is not None and batch.timestamp is not None:
                    fields[time_name] = _shifted(
                        self._times, _as_number(self._times, batch.timestamp[n]), shift_ms
                    )
                fields.update(zip(columns, values[n], strict=True))  # a NaN is written as null
                key_bytes = self._key if key is None else key.encode()
                yield Record(times[n] + shift_ms, key_bytes, msgspec.json.encode(fields))


class _JsonLines:
    """A line is sent as it is, unless fields are chosen or its time is shifted."""

    def __init__(self, path: Path, choice: Choice) -> None:
        self._path, self._choice = path, choice
        self._times = EventTimes(choice.times)
        self._format = JsonFormat()
        self.bytes_read = 0
        first = next(self._lines(), None)
        if first is None:
            raise InputError(f"{path} has no rows.")
        self.total_bytes = path.stat().st_size
        fields = dict(self._format.fields(first[1]))
        for name in (choice.timestamp, choice.key_column, *(choice.values or ())):
            if name is not None and name not in fields:
                near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(
                    f"The first row of {path} has no field {name!r}.{hint} "
                    f"Its fields are: {', '.join(fields)}."
                )
        self._timestamp = choice.timestamp
        if choice.timestamp is None:
            by_lower_case = {name.lower(): name for name in fields if self._time_ms(fields[name]) is not None}
            found = (by_lower_case[name] for name in TIME_NAMES if name in by_lower_case)
            self._timestamp = next(found, None)
        elif self._time_ms(fields[choice.timestamp]) is None:
            raise InputError(
                f"The field {choice.timestamp!r} of {path} holds no time, but {fields[choice.timestamp]!r}: "
                "write times as 2014-07-01 00:00:00 or as numbers since 1970, or name another field."
            )

    def records(self, shift_ms: int) -> Iterator[Record]:
        choice, last_ms = self._choice, EARLIEST_MS
        fixed_key = None if choice.key is None else choice.key.encode()
        get_key = self._format.getter((choice.key_column or "",))
        get_time = self._format.getter((self._timestamp or "",))  # what it gets without a name is not used
        get_values = self._format.getter(choice.values or ())
        for n, (line, row) in enumerate(self._lines()):
            (given,) = get_time(row)
            time = n * 1000 if self._timestamp is None else self._time_ms(given)
            last_ms = last_ms if time is None else time
            fields = row
            if choice.values is not None:
                fields = {} if self._timestamp is None or given is ABSENT else {self._timestamp: given}
                fields |= {
                    name: value
                    for name, value in zip(choice.values, get_values(row), strict=True)
                    if value is not ABSENT
                }
            if shift_ms and self._timestamp is not None and given is not ABSENT:
                fields = _with(fields, self._timestamp, _shifted(self._times, given, shift_ms))
            value = line if fields is row else json.dumps(fields).encode()
            key = fixed_key if choice.key_column is None else _key(get_key(row)[0])
            yield Record(last_ms + shift_ms, key, value)

    def _time_ms(self, value: object) -> int | None:
        try:
            if isinstance(value, str):
                time = self._times.from_text(value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                time = self._times.from_number(value)
            else:
                return None
        except ValueError:
            return None
        return time if EARLIEST_MS <= time < LATEST_MS else None

    def _lines(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        self.bytes_read = 0
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    self.bytes_read += len(line)
                    if stripped := line.strip():
                        try:
                            yield stripped, self._format.parse(stripped)
                        except ValueError as error:
                            raise InputError(
                                f"Line {number} of {self._path} is not a JSON object: {error}."
                            ) from None
        except OSError as error:
            raise InputError(f"Cannot read {self._path}: {error.strerror or error}.") from None


def _as_number(times: EventTimes, text: str) -> str | float:
    """A numeric time as a number, any other as it is: a reader of JSON takes no text for a number."""
    try:
        times.from_text(text)
    except ValueError:
        try:
            number = int(text) if text.strip().isdecimal() else float(text)
        except ValueError:
            return text
        return number if math.isfinite(number) else text
    return text


def _shifted(times: EventTimes, time: object, shift_ms: int) -> object:
    if not shift_ms or not isinstance(time, str | int | float):
        return time
    try:
        return times.shifted(time, shift_ms)
    except ValueError:
        return time  # not a time: it stays what it is


def _with(fields: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with this field changed; `path` is a name or leads through nested objects."""
    if path in fields or "." not in path:
        return {**fields, path: value}
    outer, _, inner = path.partition(".")
    return {**fields, outer: _with(fields[outer], inner, value)} if outer in fields else fields


def _key(value: object) -> bytes | None:
    if value is None or value is ABSENT:
        return None
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
