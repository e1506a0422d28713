"""Replay: which records are sent, and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_clock import FakeClock

from producers.replay import pump, replay
from producers.rows import Choice, Rows, open_rows
from producers.sending import Progress, Record, Stop
from streamgen.config import KafkaConfig
from streamgen.errors import ConfigError

START_MS = 1_404_172_800_000


def file(folder: Path, name: str, seconds: list[float], key: str | None = None) -> Rows:
    path = folder / f"{name}.csv"
    times = [f"{START_MS + round(1000 * second)},{n}\n" for n, second in enumerate(seconds)]
    path.write_text("ts,v\n" + "".join(times))
    return open_rows(path, Choice(key=key))


def run(files: list[Rows], **options: Any) -> list[tuple[float, Record]]:
    """Every record with the second, since the start, in which it was sent."""
    clock, sent = FakeClock(), []

    def send(record: Record) -> None:
        sent.append((round(clock.now - 1000, 6), record))

    assert pump(files, send, options.pop("stop", Stop()), clock, **options) == len(sent)
    return sent


def values(sent: list[tuple[float, Record]]) -> list[float]:
    return [json.loads(record.value)["v"] for _, record in sent]


def test_as_fast_as_it_goes(tmp_path: Path) -> None:
    sent = run([file(tmp_path, "a", [0, 5, 9])])
    assert [second for second, _ in sent] == [0, 0, 0]
    assert [record.timestamp_ms - START_MS for _, record in sent] == [0, 5000, 9000]


def test_real_time_times_a_factor_keeps_file_order(tmp_path: Path) -> None:
    sent = run([file(tmp_path, "a", [0, 5, 2, 9])], speed=10.0)
    assert [second for second, _ in sent] == [0, 0.5, 0.5, 0.9]
    assert values(sent) == [0, 1, 2, 3]


def test_a_fixed_rate(tmp_path: Path) -> None:
    sent = run([file(tmp_path, "a", [0, 5, 2, 9])], rate=4.0)
    assert [second for second, _ in sent] == [0, 0.25, 0.5, 0.75]


def test_files_start_together(tmp_path: Path) -> None:
    files = [file(tmp_path, "a", [0, 2, 4], "a"), file(tmp_path, "b", [1000, 1001, 1006], "b")]
    sent = run(files, speed=1.0)
    assert [(second, record.key) for second, record in sent] == [
        (0, b"a"),
        (0, b"b"),
        (1, b"b"),
        (2, b"a"),
        (4, b"a"),
        (6, b"b"),
    ]
    assert sent[1][1].timestamp_ms == START_MS + 1_000_000


def test_a_loop_goes_on_in_time(tmp_path: Path) -> None:
    sent = run([file(tmp_path, "a", [0, 2, 4])], speed=1.0, loop=True, limit=8)
    assert [second for second, _ in sent] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert [record.timestamp_ms - START_MS for _, record in sent] == [
        1000 * second for second in range(0, 16, 2)
    ]
    assert [json.loads(record.value)["ts"] for _, record in sent] == [r.timestamp_ms for _, r in sent]
    assert values(sent) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_loop_of_one_row(tmp_path: Path) -> None:
    sent = run([file(tmp_path, "a", [0])], speed=1.0, loop=True, limit=3)
    assert [second for second, _ in sent] == [0, 1, 2]


def test_the_limit(tmp_path: Path) -> None:
    assert len(run([file(tmp_path, "a", [0, 1, 2])], limit=2)) == 2


def test_a_signal_ends_it_while_it_waits(tmp_path: Path) -> None:
    stop, clock, sent = Stop(), FakeClock(), list[Record]()

    def ask() -> None:
        if clock.now > 1005:
            stop.requested = True

    clock.on_sleep = ask
    assert pump([file(tmp_path, "a", [0, 3600])], sent.append, stop, clock, speed=1.0) == 1
    assert len(sent) == 1
    assert clock.now < 1006


def test_progress(tmp_path: Path) -> None:
    reports: list[Progress] = []
    run([file(tmp_path, "a", list(range(1000)))], rate=100.0, report=reports.append)
    assert reports[0].sent == 1
    assert reports[-1] == Progress(1000, START_MS + 999_000, 1.0)
    assert 30 <= len(reports) <= 50
    shares = [report.share for report in reports if report.share is not None]
    assert shares == sorted(shares)
    assert 0 < shares[1] < 1
    run([file(tmp_path, "a", [0, 1])], loop=True, limit=4, report=reports.append)
    assert reports[-1].share == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speed": 1.0, "rate": 1.0}, "not both"),
        ({"speed": 0.0}, "speed .* greater than 0"),
        ({"rate": float("nan")}, "rate .* greater than 0"),
        ({"limit": 0}, "limit .* greater than 0"),
        ({"choice": Choice(key="k", key_column="v")}, "not both"),
        ({"paths": []}, "at least one file"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    file(tmp_path, "a", [0, 1])
    with pytest.raises(ConfigError, match=words):
        replay(**{"paths": [tmp_path / "a.csv"], "topic": "t", "kafka": KafkaConfig(), **options})
