"""`streamgen demo` as a user starts it: what it says, what it leaves, and what it must not leave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a folder of its own for temporary files, and settings that are meant for another cluster."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    return {
        **os.environ,
        "TMPDIR": str(scratch),
        "COLUMNS": "200",
        "STREAMGEN_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }


@pytest.fixture
def family(environment: dict[str, str]) -> Iterator[list[psutil.Process]]:
    """Filled by a test with all processes that it saw the demo start; none may be left."""
    seen: list[psutil.Process] = []
    yield seen
    left = [one for one in seen if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    for one in left:
        one.kill()
    assert left == []


def demo(environment: dict[str, str], output: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streamgen", "demo", "--output", str(output), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def started(process: subprocess.Popen[str]) -> str:
    """Wait until all processes run; returns what was said."""
    assert process.stdout is not None
    said = ""
    while not re.search(r"^ +\d+ s  replay: ", said, re.MULTILINE):
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


def test_a_short_demo(environment: dict[str, str], tmp_path: Path, family: list[psutil.Process]) -> None:
    with demo(environment, tmp_path / "out", "--seconds", "6") as process:
        said = started(process)
        family += descendants(process)
        assert process.stdout is not None
        said += process.stdout.read()
        assert process.wait(timeout=30) == 0, said
    # broker, two workers, publisher, two producers, and the watchdogs of the broker and of the processes
    assert len(family) == 8, family
    counts = re.search(
        r"([\d,]+) records in, ([\d,]+) scored, 0 dead-lettered: every offset has exactly one", said
    )
    assert counts is not None, said
    written, scored = (int(count.replace(",", "")) for count in counts.groups())
    assert written == scored
    assert 1000 < written < 21_619  # the time ended it
    assert len(re.findall(r"incidents caught|still warming up", said)) == 3
    # The time was too short for a series to be half written, or not; both are said.
    forecasts = re.findall(
        r"^  (\w+): (none, the replay|none, there is no checkpoint|\d+ of the)", said, re.MULTILINE
    )
    assert len(forecasts) == 3
    host = re.search(r"(\d+) records, (\d+) scored; the latest score", said)
    assert host is not None
    assert host[1] == host[2]
    picture = (tmp_path / "out" / "demo.png").read_bytes()
    assert picture.startswith(PNG)
    assert len(picture) > 20_000
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_a_demo_that_is_killed_leaves_nothing(
    environment: dict[str, str], tmp_path: Path, family: list[psutil.Process]
) -> None:
    with demo(environment, tmp_path / "out") as process:
        started(process)
        family += descendants(process)
        process.send_signal(signal.SIGKILL)
    gone, left = psutil.wait_procs(family, timeout=15)
    assert left == []
    assert len(gone) == 8
    deadline = time.monotonic() + 5
    while list(Path(environment["TMPDIR"]).iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_a_folder_that_cannot_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with demo(environment, tmp_path / "file") as process:
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(timeout=30) == 1
    assert said.startswith("streamgen: Cannot write to")
    assert said.count("\n") == 1
