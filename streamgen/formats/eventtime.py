"""Event times: numbers and ISO 8601 text to milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from streamgen.config import TimestampConfig

EARLIEST_MS: Final = 0
LATEST_MS: Final = 7_258_118_400_000  # 2200-01-01, itself out of bounds

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
