"""Raw batches to columns and dead letters: what the records say, and nothing else, decides.

One call handles one batch; a record's outcome depends on its own bytes, key and Kafka timestamp and on
the configuration alone, never on its neighbours, an earlier call or the clock.
"""

from __future__ import annotations

import difflib
import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from streamgen.config import InputConfig
from streamgen.errors import ConfigError
from streamgen.formats import ABSENT, FORMATS, Format
from streamgen.formats.eventtime import EARLIEST_MS, LATEST_MS, EventTimes
from streamgen.records import Columns, DeadLetter, RawBatch, Reason

_NUMERIC = frozenset({int, float, bool})
_TEXT_BYTES = 1000  # how much of a field is quoted in a dead letter's detail


@dataclass(slots=True)
class Drift:
    """How often records differ from the schema, by field: an unknown numeric field, a feature that is
    absent, a feature that is neither number, boolean nor null. The names come from the records: their
    number has no bound, so they are for a log, not for labels."""

    new: Counter[str] = field(default_factory=Counter)
    vanished: Counter[str] = field(default_factory=Counter)
    retyped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Every record of the raw batch is in `columns` or in `dead` (both in order), and in one of them only."""

    columns: Columns
    dead: list[DeadLetter]
    drift: Drift


class _Unusable(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail


class Decoder:
    """Decodes one input's records. Holds no state besides its configuration.

    `features` are the value fields, D of them, in the order of the columns; with none no record is
    usable. New fields are counted only
    where the features were discovered: who names them has chosen to ignore the others.

    Raises ConfigError for an unknown format, for a feature named twice, and for fields asked of a
    format that has none.
    """

    def __init__(self, config: InputConfig, features: tuple[str, ...]) -> None:
        self._format = _format(config, features)
        self._features = features
        self._max_bytes = config.max_bytes
        self._get = self._format.getter(features)
        # Without features nothing can be packed, and each record takes the path of unusable values.
        self._pack = struct.Struct(f"{len(features) or 1}d").pack
        key, time = config.key.field, config.timestamp.field
        self._get_key = None if key is None else self._format.getter((key,))
        self._get_time = None if time is None else self._format.getter((time,))
        self._time_field = time
        self._times = EventTimes(config.timestamp)
        self._max_ahead = _milliseconds(config.timestamp.max_ahead)
        self._max_behind = _milliseconds(config.timestamp.max_behind)
        self._known: frozenset[str] | None = None
        if config.features is None:
            self._known = frozenset(features) | {path for path in (key, time) if path is not None}

    def decode(self, raw: RawBatch) -> Decoded:
        """Columns (`value_ND` float64, NaN where missing) and dead letters. Raises for no input."""
        dead: list[DeadLetter] = []
        drift = Drift()
        rows: list[int] = []
        times: list[int] = []
        keys: list[str | None] = []
        packed = bytearray()
        kafka_times = raw.timestamp_N.tolist()
        parse, fields, known = self._format.parse, self._format.fields, self._known
        get, pack = self._get, self._pack
        get_key, get_time, max_bytes, isfinite = self._get_key, self._get_time, self._max_bytes, math.isfinite
        for n, value in enumerate(raw.value):
            try:
                if not value:
                    raise _Unusable(Reason.EMPTY, "no value")
                if len(value) > max_bytes:
                    raise _Unusable(Reason.TOO_LARGE, f"{len(value)} bytes, max_bytes is {max_bytes}")
                try:
                    record = parse(value)
                except ValueError as error:
                    raise _Unusable(Reason.MALFORMED, _one_line(str(error))) from None
                if known is not None:
                    for name, other in fields(record, known):
                        if type(other) in _NUMERIC:
                            drift.new[name] += 1
                values: Any = get(record)
                try:
                    row = pack(*values)
                    clean = isfinite(sum(values))
                except (struct.error, OverflowError):  # a value is missing, of a wrong type or too large
                    clean = False
                if not clean:
                    row = pack(*self._numbers(values, drift))
                time = kafka_times[n]
                if get_time is not None:
                    time = self._event_time(get_time(record)[0])
                if not EARLIEST_MS <= time < LATEST_MS:
                    raise _Unusable(Reason.TIMESTAMP_OUT_OF_BOUNDS, "the time is before 1970 or after 2199")
                if get_time is not None:
                    self._check_skew(time, kafka_times[n])
                if get_key is not None:
                    key = _key_text(get_key(record)[0])
                else:
                    key_bytes = raw.key[n]
                    key = None if key_bytes is None else _utf8(key_bytes)
            except _Unusable as why:
                dead.append(DeadLetter(n, why.reason, why.detail))
                continue
            rows.append(n)
            times.append(time)
            keys.append(key)
            packed += row
        raw_N = np.array(rows, dtype=np.int64)
        columns = Columns(
            offset_N=raw.offset_N[raw_N],
            timestamp_N=np.array(times, dtype=np.int64),
            key=keys,
            value_ND=np.frombuffer(packed, dtype=np.float64).reshape(len(rows), len(self._features)),
            raw_N=raw_N,
        )
        return Decoded(columns, dead, drift)

    def _numbers(self, values: tuple[object, ...], drift: Drift) -> list[float]:
        """The features as floats, NaN where missing; _Unusable when one is infinite or none is left."""
        numbers = []
        infinite = None
        for name, value in zip(self._features, values, strict=True):
            number = math.nan
            if isinstance(value, int | float):
                try:
                    number = float(value)
                except OverflowError:
                    number = math.inf
                if math.isinf(number):
                    infinite = name
            elif value is ABSENT:
                drift.vanished[name] += 1
            elif value is not None:
                drift.retyped[name] += 1
            numbers.append(number)
        if infinite is not None:
            raise _Unusable(Reason.NOT_FINITE, f"{infinite} is infinite or beyond float64")
        if all(map(math.isnan, numbers)):
            where = f" in {_one_line(', '.join(self._features))}" if self._features else ""
            raise _Unusable(Reason.NO_USABLE_VALUE, f"no number{where}")
        return numbers

    def _event_time(self, value: object) -> int:
        try:
            if isinstance(value, str):
                return self._times.from_text(value)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return self._times.from_number(value)
        except ValueError:
            pass
        what = "absent" if value is ABSENT else _one_line(f"not a time: {value!r}")
        raise _Unusable(Reason.BAD_TIMESTAMP, f"{self._time_field} is {what}")

    def _check_skew(self, time_ms: int, kafka_ms: int) -> None:
        if kafka_ms < 0:  # the record has no timestamp of its own
            return
        ahead = time_ms - kafka_ms
        if self._max_ahead is not None and ahead > self._max_ahead:
            raise _Unusable(Reason.TIMESTAMP_SKEW, f"{ahead} ms ahead of the record's Kafka timestamp")
        if self._max_behind is not None and -ahead > self._max_behind:
            raise _Unusable(Reason.TIMESTAMP_SKEW, f"{-ahead} ms behind the record's Kafka timestamp")


def discover(config: InputConfig, raw: RawBatch) -> tuple[str, ...] | None:
    """The features of a topic: those configured, or else of the first usable record of this batch its
    numeric and boolean fields in order of appearance, without the key and timestamp fields. A record counts
    as usable here when it is with some of these fields.

    None when no record is usable; ask again with a later batch, and pin the answer. Raises ConfigError.
    """
    if config.features is not None:
        return tuple(config.features)
    return _judge(config, raw)[0]


def unusable_before_discovery(config: InputConfig, raw: RawBatch) -> list[DeadLetter]:
    """The dead letters of the records before the first usable one, each judged by its own fields.

    So the outcome of a record before discovery depends on itself, not on how the log was cut into
    batches; the records from row `len(result)` on are for a `Decoder` with the discovered features.
    """
    return [] if config.features is not None else _judge(config, raw)[1]


def _judge(config: InputConfig, raw: RawBatch) -> tuple[tuple[str, ...] | None, list[DeadLetter]]:
    record_format = _format(config, ())
    excluded = {config.key.field, config.timestamp.field}
    dead: list[DeadLetter] = []
    for n, value in enumerate(raw.value):
        features: tuple[str, ...] = ()
        if value and len(value) <= config.max_bytes:
            try:
                fields = record_format.fields(record_format.parse(value))
            except ValueError:
                fields = ()  # the decoder will say why
            numbers = {name: other for name, other in fields if type(other) in _NUMERIC}
            features = tuple(name for name in numbers if name not in excluded)
            # Where another partition was first, its features stand: one that is infinite here may not be
            # among them.
            finite = tuple(name for name in features if _is_finite(numbers[name]))
            if finite != features and not Decoder(config, finite).decode(_row(raw, n)).dead:
                return features, dead
        decoded = Decoder(config, features).decode(_row(raw, n))
        if not decoded.dead:
            return features, dead
        dead.append(decoded.dead[0]._replace(n=n))
    return None, dead


def _is_finite(number: Any) -> bool:
    try:
        return not math.isinf(number)
    except OverflowError:  # an int beyond float64
        return False


def _row(raw: RawBatch, n: int) -> RawBatch:
    cut = slice(n, n + 1)
    return RawBatch(
        raw.source, raw.offset_N[cut], raw.timestamp_N[cut], raw.key[cut], raw.value[cut], raw.headers[cut]
    )


def _format(config: InputConfig, features: tuple[str, ...]) -> Format:
    chosen = FORMATS.get(config.format)
    if chosen is None:
        near = difflib.get_close_matches(config.format, FORMATS, n=1, cutoff=0)[0]
        raise ConfigError(
            f"The format {config.format!r} of input {config.topic} is unknown: did you mean {near!r}? "
            f"There are {', '.join(sorted(FORMATS))}."
        )
    if len(set(features)) < len(features):
        raise ConfigError(f"The features of input {config.topic} name a field twice.")
    if not chosen.named and (len(features) > 1 or config.key.field or config.timestamp.field):
        raise ConfigError(
            f"A record of format {config.format!r} (input {config.topic}) is one value: it can have one "
            "feature and neither a key field nor a timestamp field."
        )
    return chosen()


def _key_text(value: object) -> str | None:
    if value is None or value is ABSENT:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        try:
            if math.isfinite(value):
                return repr(value)
        except OverflowError:
            pass
    raise _Unusable(Reason.BAD_KEY, "the key field is not a string, a finite number or a boolean")


def _utf8(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise _Unusable(Reason.BAD_KEY, "the key is not UTF-8") from None


def _milliseconds(limit: timedelta | None) -> int | None:
    return None if limit is None else limit // timedelta(milliseconds=1)


def _one_line(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:_TEXT_BYTES].replace("\n", " ")
