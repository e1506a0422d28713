"""The host's metrics: rates from counters, one record an interval."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from fake_clock import FakeClock

from producers.host import Reading, reader, sample
from producers.sending import Progress, Record, Stop
from streamgen.errors import MissingDependency


def readings(clock: FakeClock) -> Iterator[Reading]:
    yield Reading(5.0, 40.0, 0.5, 1000, 0, 0, None)
    yield Reading(6.0, 41.0, 0.6, 3000, 50, 10, None)
    clock.now += 9.0  # the machine slept
    yield Reading(7.0, 42.0, 0.7, 4000, 40, 110, None)
    yield Reading(8.0, 43.0, 0.8, 4500, 40, 110, None)


def test_one_record_an_interval_with_rates() -> None:
    clock, sent, reports = FakeClock(), list[Record](), list[Progress]()
    following = readings(clock)
    read = lambda: next(following)  # noqa: E731
    assert sample(read, sent.append, Stop(), clock, b"me", 2.0, 3, reports.append) == 3
    assert [record.timestamp_ms for record in sent] == [1_002_000, 1_013_000, 1_015_000]
    assert {record.key for record in sent} == {b"me"}
    first, second, third = (json.loads(record.value) for record in sent)
    assert first == {
        "cpu_percent": 6.0,
        "memory_percent": 41.0,
        "load": 0.6,
        "disk_read_bytes_per_s": 1000.0,
        "disk_write_bytes_per_s": 25.0,
        "net_sent_bytes_per_s": 5.0,
        "net_received_bytes_per_s": None,
    }
    assert second["net_sent_bytes_per_s"] == pytest.approx(100 / 11)
    assert second["disk_write_bytes_per_s"] is None  # the counter was reset
    assert third["disk_read_bytes_per_s"] == 250.0
    assert reports[-1] == Progress(3, 1_015_000, 1.0)


def test_a_signal_ends_it() -> None:
    clock, stop = FakeClock(), Stop()
    sent: list[Record] = []

    def send(record: Record) -> None:
        sent.append(record)
        stop.requested = len(sent) == 2

    assert sample(lambda: Reading(1, 1, 1, 1, 1, 1, 1), send, stop, clock, b"me") == 2


def test_this_machine_can_be_read() -> None:
    reading = reader()()
    assert 0 <= reading.memory_percent <= 100
    assert reading.load >= 0


def test_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingDependency, match="psutil"):
        reader()
