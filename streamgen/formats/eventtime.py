"""Event times: numbers and ISO 8601 text to milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from streamgen.config import TimestampConfig

EARLIEST_MS: Final = 0
LATEST_MS: Final = 7_258_118_400_000  # 2200-01-01, itself out of bounds

_FRACTION = re.compile(r"[.,]([0-9]+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class EventTimes:
    """Reads times the way one `TimestampConfig` says."""

    def __init__(self, config: TimestampConfig) -> None:
        self._unit = config.unit
        # UTC needs no time zone database, which a slim container may lack.
        self._zone: tzinfo = UTC if config.timezone == "UTC" else ZoneInfo(config.timezone)

    def unit(self, number: float) -> str:
        """The unit of a numeric time: as configured, or by its size alone."""
        if self._unit != "auto":
            return self._unit
        size = abs(number)
        return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"

    def from_number(self, number: float) -> int:
        """Milliseconds: of an int rounded down, of a float to the nearest. ValueError: NaN or infinite."""
        per_second = _PER_SECOND[self.unit(number)]
        try:
            if isinstance(number, int):
                return number * 1000 // per_second
            return round(number * 1000 / per_second)
        except (ValueError, OverflowError):
            raise ValueError(f"{number} is not a time") from None

    def from_text(self, text: str) -> int:
        """Milliseconds of an ISO 8601 time; one without an offset is read in the configured zone.

        Where a clock is put back, the first of the two equal local times is meant. Raises ValueError.
        """
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = datetime.fromisoformat(text.strip())
        if time.tzinfo is None:
            time = time.replace(tzinfo=self._zone)
        try:
            since = time - _EPOCH
        except OverflowError:
            raise ValueError(f"{text!r} is too far away in its time zone") from None
        return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000

    def written(self, time_ms: int, like: str | float | None) -> str | float:
        """A time in the notation of another one; without one, in the configured unit (auto: milliseconds).

        Of text: its separator, at least its digits of a second, its zone, or none where it has none. Raises
        ValueError when `like` is no time.
        """
        if isinstance(like, str):
            return self._as_text(time_ms, like.strip())
        unit = self.unit(1e12 if like is None else like)  # a number of milliseconds, of our time
        per_second = _PER_SECOND[unit]
        return time_ms * per_second / 1000 if isinstance(like, float) else time_ms * per_second // 1000

    def _as_text(self, time_ms: int, like: str) -> str:
        zone = datetime.fromisoformat(like).tzinfo
        moment = (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(zone or self._zone)
        fraction = _FRACTION.search(like)
        digits = 0 if fraction is None else len(fraction[1])
        spec = "microseconds" if digits > 3 else "milliseconds" if digits or time_ms % 1000 else "seconds"
        separator = like[10] if len(like) > 10 and not like[10].isalnum() else "T"
        text = moment.replace(tzinfo=None).isoformat(separator, spec)
        if zone is None:
            return text
        return f"{text}Z" if like[-1] in "zZ" else text + moment.isoformat()[-6:]

    def shifted(self, time: str | float, by_ms: int) -> str | float:
        """The same time later by `by_ms`, in the same notation. Raises ValueError when it is no time."""
        if isinstance(time, str):
            try:
                later = datetime.fromisoformat(time.strip()) + timedelta(milliseconds=by_ms)
            except OverflowError:
                raise ValueError(f"{time!r} is too late to be shifted") from None
            return later.isoformat(sep="T" if "T" in time else " ")
        per_second = _PER_SECOND[self.unit(time)]
        return time + by_ms * per_second // 1000
