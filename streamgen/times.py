"""Times and durations as people write them in a configuration."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, PlainSerializer

_UNITS = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
}  # microseconds
_SHORT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
DURATION_FORMS = "a duration such as 500ms, 30s, 90m, 1h or 2d, ISO 8601 such as PT1H, or a number of seconds"


def _parse(value: Any) -> Any:
    """Seconds or the short form ('1h', '1h 30m', '500ms') to timedelta; all else is left to pydantic.

    Raises ValueError when it is none of the forms.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str, timedelta)):
        raise ValueError(f"must be {DURATION_FORMS}")
    if isinstance(value, timedelta) or (isinstance(value, str) and "P" in value.upper()):
        return value  # ISO 8601
    parts = _SHORT.findall(value) if isinstance(value, str) else []
    try:
        if parts and _SHORT.sub("", str(value)).strip() == "":
            return timedelta(microseconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
        return timedelta(seconds=float(value))
    except (ValueError, OverflowError):  # not a number; not finite or longer than timedelta holds
        raise ValueError(f"must be {DURATION_FORMS}") from None


def short_duration(value: timedelta) -> str:
    """The shortest form that loads as exactly `value`: '90m', not '5400s'."""
    microseconds = value // timedelta(microseconds=1)
    if microseconds == 0:
        return "0s"
    for unit, size in _UNITS.items():
        if microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return f"{microseconds // 1000}.{microseconds % 1000:03d}ms"


_FORMS = (BeforeValidator(_parse), PlainSerializer(short_duration, return_type=str, when_used="json"))
Duration = Annotated[timedelta, Field(ge=timedelta(0)), *_FORMS]
PositiveDuration = Annotated[timedelta, Field(gt=timedelta(0)), *_FORMS]


def time_ms(text: str, timezone: str) -> int | None:
    """Milliseconds since 1970-01-01 UTC of an ISO 8601 time, one without an offset read in `timezone`.

    None when `text` is no such time: the caller knows which words it allows besides.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
    # In whole numbers: a float of seconds would round some milliseconds.
    return (moment - datetime.fromisoformat("1970-01-01T00:00:00Z")) // timedelta(milliseconds=1)
