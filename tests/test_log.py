"""Logs: JSON for machines, lines for people, secrets for nobody."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from streamgen.errors import ConfigError
from streamgen.log import set_up_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def test_lines_are_json_where_no_person_looks() -> None:
    stream = io.StringIO()
    set_up_logging(stream=stream)
    structlog.get_logger("streamgen.loop").info("assigned", topic="cpu", partitions=3)
    logging.getLogger("somewhere").warning("%d left", 2, extra={"topic": "cpu"})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "assigned", "level": "info", "logger": "streamgen.loop", "topic": "cpu", "partitions": 3,
    }  # fmt: skip
    assert (second["event"], second["level"], second["topic"]) == ("2 left", "warning", "cpu")


def test_lines_are_text_on_a_terminal() -> None:
    stream = Terminal()
    set_up_logging(stream=stream)
    structlog.get_logger("streamgen").info("assigned", topic="cpu")
    assert "assigned" in stream.getvalue()
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(stream.getvalue())


def test_the_level_is_kept() -> None:
    stream = io.StringIO()
    set_up_logging("warning", stream=stream)
    structlog.get_logger("streamgen").info("hidden")
    logging.getLogger("somewhere").info("hidden")
    structlog.get_logger("streamgen").warning("shown")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["shown"]
    with pytest.raises(ConfigError, match="the log level is 'loud'; allowed: debug, info, warning, error"):
        set_up_logging("loud")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_secret_is_in_no_line(stream: io.StringIO) -> None:
    password = "hunter\\'\"2☃"
    set_up_logging("debug", secrets=[password, "hunter", ""], stream=stream)
    log = structlog.get_logger("streamgen")
    log.info("event", sasl_password=password, nested={"config": [password]})
    logging.getLogger("kafka.conn").debug("connecting with %s", password)
    logging.getLogger("kafka.protocol").debug("Send: %r", password.encode())
    try:
        raise ValueError(f"refused {password}")
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert text.count("***") >= 5
    assert "Traceback" in text
    assert "hunter" not in text
    assert "☃" not in text
    assert "2603" not in text
    assert "xe2" not in text


def test_lines_of_the_client_that_are_alike_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = io.StringIO(), 0.0
    monkeypatch.setattr("streamgen.log.time.monotonic", lambda: now)
    set_up_logging(stream=stream)
    client, own = logging.getLogger("kafka.net"), structlog.get_logger("streamgen")
    for n in range(300):
        now = n / 10
        client.error("no way to node %d", n)
        client.error("something else") if n == 5 else None
        own.warning("not published")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert [event for event in events if event != "not published"] == [
        "no way to node 0",
        "something else",
        "no way to node 100 (and 99 lines like it)",
        "no way to node 200 (and 99 lines like it)",
    ]
    assert events.count("not published") == 300


def test_at_debug_no_line_is_held_back() -> None:
    stream = io.StringIO()
    set_up_logging("debug", stream=stream)
    for n in range(3):
        logging.getLogger("kafka.net").error("no way to node %d", n)
    assert len(stream.getvalue().splitlines()) == 3
