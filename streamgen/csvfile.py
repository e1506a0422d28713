"""A CSV file as a stream: read once from top to bottom, in batches of columns.

The first line names the columns. Comma, semicolon, tab and bar are found out; UTF-8, with or without a
byte order mark. A line with nothing in it is not a row.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamgen.config import TimestampConfig
from streamgen.errors import InputError
from streamgen.formats.eventtime import EARLIEST_MS, LATEST_MS, EventTimes
from streamgen.records import Floats, Ints

_DELIMITERS = ",;\t|"
TIME_NAMES = ("timestamp", "time", "datetime", "date", "ts", "event_time", "date_time", "@timestamp")
_MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "null", "none"})
_BOOLEANS = {"true": 1.0, "false": 0.0}
_SAMPLE_ROWS = 1000  # what columns are judged by


class BadCell(NamedTuple):
    """A cell that is not what its column holds. `line` is the line of the file, `column` is empty when the
    whole row has the wrong number of cells."""

    line: int
    column: str
    text: str


@dataclass(frozen=True, slots=True)
class CsvBatch:
    """N rows in file order.

    `timestamp` and `key` are the text as given (None where there is no such column, or an empty key);
    `time_ms_N` is the event time; `value_ND` is NaN where a cell is missing or bad.
    """

    timestamp: list[str] | None
    key: list[str | None]
    value_ND: Floats
    time_ms_N: Ints
    bad: list[BadCell]

    def __len__(self) -> int:
        return len(self.key)


class CsvRows:
    """The rows of one file, to be iterated in batches (`CsvBatch`), more than once if wanted.

    Without `value_columns` the values are all columns that hold only numbers in the first 1000 rows (the
    timestamp, the key and columns without a name excepted). Without `timestamp_column` a column called
    timestamp, time, datetime, date, ts, event_time, date_time or @timestamp is taken when it holds times;
    a file without one gets the row number times 1 s from 1970 as its event time. A time that cannot be
    read is a bad cell and the row gets the time of the row before it. true and false are 1 and 0; an empty
    cell, NA, NaN, null and the like are missing; any other text, and an infinity, is a bad cell.

    Raises InputError when the file cannot be read, has no rows, lacks a named column, or has no column
    of numbers.
    """

    def __init__(
        self,
        path: str | Path,
        timestamp_column: str | None = None,
        key_column: str | None = None,
        value_columns: Sequence[str] | None = None,
        times: TimestampConfig | None = None,
    ) -> None:
        self.path = Path(path)
        self.bytes_read = 0
        self._times = EventTimes(times or TimestampConfig())
        with self._open() as text:
            self._delimiter = _sniff(text)
        with self._open() as text:
            lines = self._lines(text)
            _, header = next(lines, (0, []))
            self._header = [name.strip() for name in header]
            sample = [cells for _, cells in islice(lines, _SAMPLE_ROWS)]
        self.total_bytes = self.path.stat().st_size
        self._check_header(sample)
        self._sample: list[Sequence[str]] = list(zip(*self._squared(sample), strict=True))
        self.key_column = None if key_column is None else self._named(key_column)
        self.timestamp_column = self._find_timestamp(timestamp_column)
        self.columns = self._find_values(value_columns)
        self._first_ms = self._first_time()
        self._sample.clear()

    def __iter__(self) -> Iterator[CsvBatch]:
        return self.batches()

    def batches(self, rows: int = 4096) -> Iterator[CsvBatch]:
        """All rows from the top, at most `rows` at a time. Raises InputError when it turns unreadable."""
        count, last_ms = 0, self._first_ms
        with self._open() as text:
            lines = self._lines(text)
            next(lines)
            while chunk := list(islice(lines, rows)):
                batch = self._batch(chunk, count, last_ms)
                count, last_ms = count + len(batch), int(batch.time_ms_N[-1])
                assert isinstance(text.buffer, BufferedReader)
                self.bytes_read = text.buffer.tell()
                yield batch
        self.bytes_read = self.total_bytes

    def _batch(self, chunk: list[tuple[int, list[str]]], first: int, last_ms: int) -> CsvBatch:
        lines = [line for line, _ in chunk]
        width = len(self._header)
        bad = [
            BadCell(line, "", f"{len(cells)} cells for {width} columns")
            for line, cells in chunk
            if len(cells) != width
        ]
        column = dict(
            zip(self._header, zip(*self._squared([cells for _, cells in chunk]), strict=True), strict=True)
        )
        value_ND = np.empty((len(chunk), len(self.columns)))
        for d, name in enumerate(self.columns):
            value_ND[:, d] = _numbers(column[name], name, lines, bad)
        if self.timestamp_column is None:
            timestamp = None
            time_ms_N = np.arange(first, first + len(chunk), dtype=np.int64) * 1000
        else:
            timestamp = list(column[self.timestamp_column])
            time_ms_N = np.empty(len(chunk), dtype=np.int64)
            for n, cell in enumerate(timestamp):
                time_ms = self.time_ms(cell)
                if time_ms is None:
                    bad.append(BadCell(lines[n], self.timestamp_column, cell))
                else:
                    last_ms = time_ms
                time_ms_N[n] = last_ms
        key: list[str | None] = [None] * len(chunk)
        if self.key_column is not None:
            key = [cell or None for cell in column[self.key_column]]
        return CsvBatch(timestamp, key, value_ND, time_ms_N, sorted(bad))

    def time_ms(self, cell: str) -> int | None:
        """The event time that a timestamp cell names, ISO 8601 or a number; None when it names none."""
        try:
            time = self._times.from_text(cell)
        except ValueError:
            number = _number(cell)
            if number is None or math.isnan(number):
                return None
            text = cell.strip()
            time = self._times.from_number(int(text) if text.isdecimal() else number)
        return time if EARLIEST_MS <= time < LATEST_MS else None

    def _check_header(self, sample: list[list[str]]) -> None:
        if not self._header:
            raise InputError(f"{self.path} is empty: its first line must name the columns.")
        numbers = [_number(name) for name in self._header]
        if None not in numbers and _holds_number(numbers):
            raise InputError(
                f"The first line of {self.path} holds only numbers: put a line of column names above it."
            )
        if not sample:
            raise InputError(f"{self.path} has no rows below the line of column names.")
        named = [name for name in self._header if name]
        for name in named:
            if named.count(name) > 1:
                raise InputError(f"{self.path} has two columns named {name!r}: give them different names.")

    def _named(self, name: str) -> str:
        if name and name in self._header:
            return name
        near = difflib.get_close_matches(name, self._header, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(column for column in self._header if column)
        raise InputError(f"{self.path} has no column {name!r}.{hint} Its columns are: {listed}.")

    def _find_timestamp(self, asked: str | None) -> str | None:
        if asked is not None:
            name = self._named(asked)
            cells = self._sample[self._header.index(name)]
            if all(self.time_ms(cell) is None for cell in cells):
                raise InputError(
                    f"The column {name!r} of {self.path} holds no time, but for example {cells[0]!r}: "
                    "write times as 2014-07-01 00:00:00 or as seconds since 1970, or name another column."
                )
            return name
        by_lower_case = {name.lower(): name for name in self._header if name != self.key_column}
        for candidate in TIME_NAMES:
            name = by_lower_case.get(candidate, "")
            if name:
                cells = [cell for cell in self._sample[self._header.index(name)] if cell.strip()]
                if cells and all(self.time_ms(cell) is not None for cell in cells):
                    return name
        return None

    def _first_time(self) -> int:
        """The first time that can be read: what rows above it get."""
        if self.timestamp_column is None:
            return EARLIEST_MS
        cells = self._sample[self._header.index(self.timestamp_column)]
        return next(time for cell in cells if (time := self.time_ms(cell)) is not None)

    def _find_values(self, asked: Sequence[str] | None) -> tuple[str, ...]:
        named = self._header if asked is None else [self._named(name) for name in dict.fromkeys(asked)]
        found = []
        for name in named:
            numbers = [_number(cell) for cell in self._sample[self._header.index(name)]]
            if asked is None:
                taken = not name or name in (self.timestamp_column, self.key_column)
                if not taken and None not in numbers and _holds_number(numbers):
                    found.append(name)
            elif None in numbers and not _holds_number(numbers):
                raise InputError(
                    f"The column {name!r} of {self.path} holds no number in the first {len(numbers)} rows: "
                    "name another value column (numbers have a decimal point)."
                )
            else:
                found.append(name)
        if not found:
            raise InputError(
                f"{self.path} has no column of numbers: name the value columns, and write numbers with a "
                "decimal point."
            )
        return tuple(found)

    def _squared(self, rows: list[list[str]]) -> list[list[str]]:
        width = len(self._header)
        return [row if len(row) == width else (row + [""] * width)[:width] for row in rows]

    @contextmanager
    def _open(self) -> Iterator[TextIOWrapper]:
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as text:
                yield text
        except OSError as error:
            raise InputError(f"Cannot read {self.path}: {error.strerror or error}.") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is not UTF-8 text ({error.reason}): convert it first.") from None

    def _lines(self, text: TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of each row that is not blank, the header first."""
        reader = csv.reader(text, delimiter=self._delimiter)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise InputError(f"Line {reader.line_num} of {self.path} is not CSV: {error}.") from None


def _sniff(text: TextIOWrapper) -> str:
    """The delimiter that cuts the first line into most cells."""
    head = text.readline(100_000)  # csv allows no longer cell
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([head], delimiter=delimiter), [])))


def _numbers(cells: Sequence[str], column: str, lines: list[int], bad: list[BadCell]) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
        if all(map(math.isfinite, numbers)) and not any("_" in cell for cell in cells):
            return numbers
    except ValueError:
        pass  # at least one is missing or bad
    numbers = []
    for line, cell in zip(lines, cells, strict=True):
        number = _number(cell)
        if number is None:
            bad.append(BadCell(line, column, cell))
        numbers.append(math.nan if number is None else number)
    return numbers


def _holds_number(numbers: list[float | None]) -> bool:
    return any(number is not None and not math.isnan(number) for number in numbers)


def _number(cell: str) -> float | None:
    """A finite number, NaN when it says that it is missing, or None when it is anything else."""
    word = cell.strip().lower()
    if word in _MISSING:
        return math.nan
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in word else None
