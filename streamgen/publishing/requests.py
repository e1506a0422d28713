"""Requests for sequences, as `<input>.generate` carries them, and why one is refused.

Shapes: T records of a sequence, D features.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from streamgen.formats import FORMATS
from streamgen.learners.task import LARGEST
from streamgen.models.online import KINDS, Kind
from streamgen.records import Floats

LONGEST = 10_000  # records of a sequence
MOST = 1_000  # sequences of a request
MOST_RECORDS = 100_000  # of an answer: it is one transaction
MOST_VALUES = 2_000_000  # of an answer: of records with many columns there are fewer
LONGEST_ID = 200  # characters of a correlation id


class Refusal(StrEnum):
    """Why a request is not answered: each would be refused again, unless the state becomes another."""

    MALFORMED = "malformed"  # no JSON object, or a field that is unknown or of a wrong type
    UNKNOWN_KIND = "unknown_kind"  # none of continue, prior, impute, what-if
    UNSUPPORTED = "unsupported"  # the model gives no sequences of that kind
    BAD_LENGTH = "bad_length"  # less than 1, above the limit, or beyond the last time
    BAD_COUNT = "bad_count"  # less than 1 or above the limit; or more than one that is imputed
    UNKNOWN_COLUMN = "unknown_column"  # a fixed column that the stream does not have
    BAD_VALUE = "bad_value"  # a fixed or given value that is no finite number, or none at all
    UNKNOWN_KEY = "unknown_key"  # no learner of that key
    AMBIGUOUS_KEY = "ambiguous_key"  # learners of that key in several partitions, and none is named
    NO_STATE = "no_state"  # no checkpoint of the topic yet, or one that cannot be used
    STATE_TOO_OLD = "state_too_old"  # too many records came since the newest checkpoint
    TOO_LARGE = "too_large"  # more values than the limit, or than memory takes
    FAILED = "failed"  # the model raised, or gave what is no number


class Refused(Exception):
    """A request that is not answered: it goes to the dead letters."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked for. `key` unset: the Kafka key of the request's record. `fixed` has, by column, one
    value for all records or one for each (null: free); `window` the records to impute, as the input has them.
    """

    kind: str
    key: str | int | float | bool | msgspec.UnsetType | None = msgspec.UNSET
    partition: int | None = None
    length: int | None = None
    count: int = 1
    seed: int | None = None
    correlation_id: str | None = None
    fixed: dict[str, Any] | None = None
    window: list[Any] | None = None

    @property
    def checked_kind(self) -> Kind:
        """Raises `Refused`."""
        for kind in KINDS:
            if kind == self.kind:
                return kind
        near = difflib.get_close_matches(self.kind, KINDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Refused(
            Refusal.UNKNOWN_KIND, f"there is no kind {self.kind[:100]!r}{hint} Kinds: {', '.join(KINDS)}"
        )

    @property
    def records(self) -> int:
        """T."""
        if self.length is None:
            return 100 if self.window is None else len(self.window)
        return self.length

    @property
    def digest(self) -> str:
        """Tells requests apart that ask for something else."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=8).hexdigest()

    def scope_key(self, kafka_key: bytes | None) -> str | None:
        """The key as the input's records have it. Raises `Refused`."""
        if self.key is msgspec.UNSET:
            try:
                return None if kafka_key is None else kafka_key.decode()
            except UnicodeDecodeError:
                raise Refused(Refusal.MALFORMED, "the record's Kafka key is not UTF-8") from None
        if isinstance(self.key, bool):
            return "true" if self.key else "false"
        return self.key if isinstance(self.key, str) or self.key is None else repr(self.key)


def parse(value: bytes | None) -> Request:
    """A request from a record's value, within the limits. Raises `Refused`."""
    try:
        request = msgspec.json.decode(value or b"", type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Refusal.MALFORMED, f"not a request: {error}"[:1000]) from None
    kind = request.checked_kind
    if not 1 <= request.records <= LONGEST:
        raise Refused(Refusal.BAD_LENGTH, f"length is {request.records}; allowed: 1 to {LONGEST}")
    if not 1 <= request.count <= MOST:
        raise Refused(Refusal.BAD_COUNT, f"count is {request.count}; allowed: 1 to {MOST}")
    if request.records * request.count > MOST_RECORDS:
        raise Refused(
            Refusal.BAD_LENGTH,
            f"length times count is {request.records * request.count}; allowed: at most {MOST_RECORDS}",
        )
    if kind == "impute" and request.count > 1:
        raise Refused(Refusal.BAD_COUNT, "what is imputed is a mean: there is one such sequence")
    if request.seed is not None and not 0 <= request.seed < 2**63:
        raise Refused(Refusal.MALFORMED, f"seed is {request.seed}; allowed: 0 to 2⁶³ − 1")
    if request.correlation_id is not None and len(request.correlation_id) > LONGEST_ID:
        raise Refused(Refusal.MALFORMED, f"correlation_id has more than {LONGEST_ID} characters")
    for name, needed_by in (("fixed", "what-if"), ("window", "impute")):
        if (getattr(request, name) is not None) != (kind == needed_by):
            raise Refused(Refusal.MALFORMED, f"{needed_by} needs `{name}`, and no other kind has it")
    if request.window is not None and request.length not in (None, len(request.window)):
        raise Refused(
            Refusal.BAD_LENGTH, f"length is {request.length}, and window has {len(request.window)} records"
        )
    return request


def correlation_id(value: bytes | None) -> str | None:
    """The id that a record's value names, however wrong the rest of it is."""
    try:
        found = msgspec.json.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    name = found.get("correlation_id") if isinstance(found, dict) else None
    return name[:LONGEST_ID] if isinstance(name, str) else None


def given(request: Request, record_format: str, features: Sequence[str]) -> Floats | None:
    """[T, D] the values that are fixed or given, NaN elsewhere; None: the kind has none. Raises `Refused`."""
    if request.fixed is not None:
        return _fixed(request.fixed, request.records, features)
    if request.window is None:
        return None
    get = FORMATS[record_format]().getter(tuple(features))
    if FORMATS[record_format].named and not all(isinstance(record, dict) for record in request.window):
        raise Refused(Refusal.BAD_VALUE, "window: each record must be an object, as in the input")
    value_TD = np.array(
        [
            [
                _number(value, f"window[{t}]: {name}")
                for name, value in zip(features, get(record), strict=True)
            ]
            for t, record in enumerate(request.window)
        ]
    )
    if np.isnan(value_TD).all():
        raise Refused(Refusal.BAD_VALUE, f"window has no value of {', '.join(features)}"[:1000])
    return value_TD


def _fixed(fixed: dict[str, Any], length: int, features: Sequence[str]) -> Floats:
    value_TD = np.full((length, len(features)), np.nan)
    for name, values in fixed.items():
        if name not in features:
            near = difflib.get_close_matches(name, features, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Refused(
                Refusal.UNKNOWN_COLUMN,
                f"there is no column {name[:100]!r}{hint} Columns: {', '.join(features)}"[:1000],
            )
        if isinstance(values, list) and len(values) != length:
            raise Refused(Refusal.BAD_LENGTH, f"fixed: {name} has {len(values)} values for {length} records")
        column_T = values if isinstance(values, list) else [values] * length
        value_TD[:, features.index(name)] = [_number(value, f"fixed: {name}") for value in column_T]
    if np.isnan(value_TD).all():
        raise Refused(Refusal.BAD_VALUE, "fixed: no value is fixed; ask to continue instead")
    return value_TD


def _number(value: object, where: str) -> float:
    """NaN where there is none."""
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if abs(number) <= LARGEST:
            return number
    elif value is None or not isinstance(value, str | list | dict):  # null, or absent
        return math.nan
    raise Refused(Refusal.BAD_VALUE, f"{where} is {str(value)[:100]!r}, which is no number of a usable size")
