"""Structured logs on standard error: lines to read on a terminal, JSON elsewhere."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from streamgen.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")
REPEATED_S = 10.0  # between lines of the Kafka client that are alike
MOST_KINDS = 1000  # of lines that are remembered


def set_up_logging(level: str = "info", secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send all logs of this process, the libraries' too, to `stream` (standard error).

    Each of `secrets` is replaced by '***' wherever it would appear, tracebacks included. Raises ConfigError
    for an unknown level.
    """
    if level not in LEVELS:
        raise ConfigError(f"the log level is {level!r}; allowed: {', '.join(LEVELS)}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    render: list[Processor]
    if (stream or sys.stderr).isatty():
        # Plain tracebacks: the pretty ones print local variables, and so passwords.
        render = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    clean = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = _ToStderr() if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[clean, *render, _Mask(secrets)],
        )
    )
    if level != "debug":
        handler.addFilter(_Repeated())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # At info the Kafka client tells of every connection and heartbeat; the worker tells what matters of it.
    logging.getLogger("kafka").setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    # It warns of each of its tasks that took a tenth of a second, which no reader can do anything about.
    logging.getLogger("kafka.net.selector").setLevel(logging.DEBUG if level == "debug" else logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _ToStderr(logging.StreamHandler[Any]):
    """Whatever `sys.stderr` is when a line comes: a progress bar puts one in its place that goes round it."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        """The handler sets it once, when it is made."""


class _Repeated(logging.Filter):
    """Holds lines of the Kafka client back that are like one of the last seconds: while a broker is away it
    tells of every attempt to reach it, hundreds a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}  # when, and how many were held back since

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("kafka."):
            return True
        kind, now = (record.name, str(record.msg)), time.monotonic()
        at, held = self._told.get(kind, (-math.inf, 0))
        if now - at < REPEATED_S:
            self._told[kind] = (at, held + 1)
            return False
        if held:
            record.msg = f"{record.msg} (and {held} lines like it)"
        if len(self._told) >= MOST_KINDS:
            self._told.clear()
        self._told[kind] = (now, 0)
        return True


class _Mask:
    """Replaces secrets in the rendered line, where no way of writing one into a log can avoid it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in _written(secret)}
        # The longest first: of two secrets one may begin with the other.
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, logger: WrappedLogger, method: str, line: str | EventDict) -> str:
        text = str(line)
        for form in self._forms:
            text = text.replace(form, "***")
        return text


def _written(secret: str) -> tuple[str, ...]:
    """As it is, and as JSON and Python would quote it and its bytes: the client logs what it sends."""
    sent = repr(secret.encode())[2:-1]
    return secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], sent, json.dumps(sent)[1:-1]
