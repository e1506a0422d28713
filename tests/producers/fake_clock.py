"""A clock that moves only when someone sleeps."""

from __future__ import annotations

from collections.abc import Callable

from producers.sending import Clock


class FakeClock(Clock):
    def __init__(self) -> None:
        self.now = 1000.0
        self.on_sleep: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.1
        self.now += seconds
        self.on_sleep()
