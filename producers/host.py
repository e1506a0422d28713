"""This machine's live metrics as a stream: one record a second, the host's name as its key."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from producers.sending import Clock, Progress, Record, Report, Stop, open_sender, stop_on_signals
from streamgen.config import KafkaConfig
from streamgen.errors import ConfigError, MissingDependency


class Reading(NamedTuple):
    """One look at the machine: gauges, and counters of bytes since it started (None: it has none)."""

    cpu_percent: float  # since the last look
    memory_percent: float
    load: float  # the average of one minute
    disk_read: int | None
    disk_written: int | None
    net_sent: int | None
    net_received: int | None


def host(
    topic: str,
    kafka: KafkaConfig,
    *,
    key: str | None = None,
    interval_s: float = 1.0,
    limit: int | None = None,
    report: Report | None = None,
) -> int:
    """Send this machine's metrics to a topic until SIGTERM or SIGINT, or `limit` records; returns how many.

    A record is a JSON object: cpu_percent, memory_percent, load, and bytes a second as
    disk_read_bytes_per_s, disk_write_bytes_per_s, net_sent_bytes_per_s, net_received_bytes_per_s (null
    where the machine does not tell). Its timestamp is the machine's clock; its key is `key`, by default
    the host's name.

    Raises MissingDependency (psutil), ConfigError, TopicError, PermissionDenied or BrokerUnavailable.
    """
    if not interval_s > 0:
        raise ConfigError(f"The interval between two records must be greater than 0, and it is {interval_s}.")
    read = reader()
    name = (key or socket.gethostname()).encode()
    with stop_on_signals() as stop, open_sender(kafka, topic) as sender:
        sample(read, sender.send, stop, Clock(), name, interval_s, limit, report)
    return sender.delivered


def sample(
    read: Callable[[], Reading],
    send: Callable[[Record], None],
    stop: Stop,
    clock: Clock,
    key: bytes,
    interval_s: float = 1.0,
    limit: int | None = None,
    report: Report | None = None,
) -> int:
    """Send a record every `interval_s`, the first after one interval; returns how many. See `host`."""
    before, then = read(), clock.monotonic()
    due, sent = then, 0
    while sent != limit:
        due += interval_s
        if due < clock.monotonic():  # what a sleeping machine missed is not made up for
            due = clock.monotonic() + interval_s
        stop.wait_until(due, clock)
        if stop.requested:
            break
        reading, now = read(), clock.monotonic()
        time_ms = clock.wall_ms()
        send(Record(time_ms, key, msgspec.json.encode(_fields(before, reading, now - then))))
        before, then, sent = reading, now, sent + 1
        if report is not None:
            report(Progress(sent, time_ms, None if limit is None else sent / limit))
    return sent


def reader() -> Callable[[], Reading]:
    """A function that looks at this machine. Raises MissingDependency when psutil is not installed."""
    try:
        import psutil
    except ImportError:
        raise MissingDependency(
            "The host's metrics need the package psutil: pip install 'streamgen-kafka[demo]'."
        ) from None

    def read() -> Reading:
        disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
        return Reading(
            cpu_percent=psutil.cpu_percent(),
            memory_percent=psutil.virtual_memory().percent,
            load=psutil.getloadavg()[0],
            disk_read=disk.read_bytes if disk else None,
            disk_written=disk.write_bytes if disk else None,
            net_sent=net.bytes_sent if net else None,
            net_received=net.bytes_recv if net else None,
        )

    return read


def _fields(before: Reading, now: Reading, seconds: float) -> dict[str, float | None]:
    def per_second(old: int | None, new: int | None) -> float | None:
        # A counter that went down was reset, and tells nothing about this interval.
        return None if old is None or new is None or new < old else (new - old) / seconds

    return {
        "cpu_percent": now.cpu_percent,
        "memory_percent": now.memory_percent,
        "load": now.load,
        "disk_read_bytes_per_s": per_second(before.disk_read, now.disk_read),
        "disk_write_bytes_per_s": per_second(before.disk_written, now.disk_written),
        "net_sent_bytes_per_s": per_second(before.net_sent, now.net_sent),
        "net_received_bytes_per_s": per_second(before.net_received, now.net_received),
    }
