"""A bar on a terminal while partitions are restored, and nothing anywhere else."""

from __future__ import annotations

import io
import sys
import time

import pytest
import structlog

from consumers.restore_bar import restore_bar
from streamgen.health import Health
from streamgen.log import set_up_logging

pytestmark = pytest.mark.usefixtures("logging_as_it_was")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(terminal: Terminal, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in terminal.getvalue():
        assert time.monotonic() < deadline, terminal.getvalue()
        time.sleep(0.02)


def test_it_tells_what_is_left_and_log_lines_go_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    health, terminal = Health(), Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    set_up_logging()
    with restore_bar(health):
        health.restoring(3, 0)
        wait_for(terminal, "restoring 3 partitions, 0 records left")
        health.restoring(2, 1200)
        wait_for(terminal, "restoring 2 partitions, 1,200 records left")
        structlog.get_logger("streamgen").info("task opened")
        wait_for(terminal, "task opened")
        health.restoring(0, 0)
        time.sleep(0.5)
        shown = len(terminal.getvalue())
        time.sleep(0.5)
        assert len(terminal.getvalue()) == shown, "nothing is drawn when all is restored"
    assert sys.stderr is terminal


def test_without_a_terminal_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    health = Health()
    with restore_bar(health):
        health.restoring(3, 500)
        time.sleep(0.5)
    assert capsys.readouterr() == ("", "")
