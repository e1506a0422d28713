"""Replay files into a topic, as they once flowed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from operator import itemgetter
from pathlib import Path

from producers.rows import Choice, Rows, open_rows
from producers.sending import Clock, Progress, Record, Report, Stop, open_sender, stop_on_signals
from streamgen.config import KafkaConfig
from streamgen.errors import ConfigError

_REPORT_S = 0.25  # between two reports of progress


def replay(
    paths: Sequence[Path],
    topic: str,
    kafka: KafkaConfig,
    *,
    choice: Choice | None = None,
    speed: float | None = None,
    rate: float | None = None,
    loop: bool = False,
    limit: int | None = None,
    report: Report | None = None,
) -> int:
    """Send the rows of CSV and JSON lines files to a topic; returns how many were written.

    A record's Kafka timestamp is the event time of its row. Several files start together: their rows are
    merged by the event time since each file's first row, in file order within a file, and the key of a
    row is the name of its file unless `choice` says otherwise. `speed` replays in real time times that
    factor, `rate` sends that many records a second, neither sends as fast as it goes. `loop` begins anew
    when a file ends, with all times shifted so that they go on. `limit` ends after so many records;
    SIGTERM and SIGINT end after the record in hand. What was sent is flushed at the end.

    Raises InputError (a file), ConfigError (options), TopicError, PermissionDenied or BrokerUnavailable.
    """
    choice = choice or Choice()
    _check(paths, choice, speed, rate, limit)
    by_file = len(paths) > 1 and choice.key is None and choice.key_column is None
    files = [open_rows(path, replace(choice, key=path.stem) if by_file else choice) for path in paths]
    with stop_on_signals() as stop, open_sender(kafka, topic) as sender:
        pump(files, sender.send, stop, Clock(), speed, rate, loop, limit, report)
    return sender.delivered


def pump(
    files: Sequence[Rows],
    send: Callable[[Record], None],
    stop: Stop,
    clock: Clock,
    speed: float | None = None,
    rate: float | None = None,
    loop: bool = False,
    limit: int | None = None,
    report: Report | None = None,
) -> int:
    """Send the rows of these files when each is due; returns how many. See `replay`."""
    sent, newest_ms, began = 0, 0, clock.monotonic()
    next_report = began
    for elapsed_ms, record in heapq.merge(*(_timed(file, loop) for file in files), key=itemgetter(0)):
        if sent == limit:
            break
        if rate is not None:
            stop.wait_until(began + sent / rate, clock)
        elif speed is not None:
            stop.wait_until(began + elapsed_ms / 1000 / speed, clock)
        if stop.requested:
            break
        send(record)
        sent, newest_ms = sent + 1, max(newest_ms, record.timestamp_ms)
        if report is not None and clock.monotonic() >= next_report:
            next_report = clock.monotonic() + _REPORT_S
            report(Progress(sent, newest_ms, _share(files, sent, loop, limit)))
    if report is not None:
        report(Progress(sent, newest_ms, _share(files, sent, loop, limit)))
    return sent


def _timed(file: Rows, loop: bool) -> Iterator[tuple[int, Record]]:
    """Each record with the event time (ms) since the file's first; a late one is due when it comes."""
    shift_ms = 0
    first_ms: int | None = None
    newest_ms = 0
    for turn in count():
        rows = 0
        for record in file.records(shift_ms):
            rows += 1
            if first_ms is None:
                first_ms = newest_ms = record.timestamp_ms
            newest_ms = max(newest_ms, record.timestamp_ms)
            yield newest_ms - first_ms, record
        if not loop or first_ms is None:
            return
        if turn == 0:
            # The next turn begins one typical step after the last row; whole seconds, since a time may
            # be given in them.
            span_ms = newest_ms - first_ms
            turn_ms = -(-(span_ms + span_ms // max(rows - 1, 1)) // 1000) * 1000 or 1000
        shift_ms += turn_ms


def _share(files: Sequence[Rows], sent: int, loop: bool, limit: int | None) -> float | None:
    read = sum(file.bytes_read for file in files) / sum(file.total_bytes for file in files)
    if limit is not None:
        return min(1.0, sent / limit if loop else max(read, sent / limit))
    return None if loop else read


def _check(
    paths: Sequence[Path], choice: Choice, speed: float | None, rate: float | None, limit: int | None
) -> None:
    if not paths:
        raise ConfigError("There is nothing to replay: name at least one file.")
    if choice.key is not None and choice.key_column is not None:
        raise ConfigError("The key of a replay is one for all rows or comes from a column, not both.")
    if speed is not None and rate is not None:
        raise ConfigError("A replay has a speed (times real time) or a rate (records a second), not both.")
    for name, value in (("speed", speed), ("rate", rate), ("limit", limit)):
        if value is not None and not value > 0:
            raise ConfigError(f"The {name} of a replay must be greater than 0, and it is {value}.")
