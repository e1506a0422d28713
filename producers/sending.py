"""What every producer process needs: a sender that knows what arrived, a clock, and an end on a signal."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from kafka import KafkaProducer

from streamgen.config import KafkaConfig
from streamgen.errors import TopicError
from streamgen.kafka.client import client_settings, translated
from streamgen.kafka.topics import partition_count

_MOST_UNANSWERED = 10_000  # records on their way; then the oldest is waited for
_DELIVERY_MS = 30_000  # the client gives a record up after this
_NAP_S = 0.1  # the longest sleep, so that a signal is noticed soon


class Record(NamedTuple):
    timestamp_ms: int
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a producer is: records sent, the newest event time (ms) and the share that is done (0 to 1),
    None where there is no end."""

    sent: int
    time_ms: int
    share: float | None


Report = Callable[[Progress], None]


class Clock:
    """The machine's clocks; tests give another."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Stop:
    """Whether a signal asked for the end. A plain flag: a handler may run between any two instructions,
    where the locks of `threading.Event` could deadlock."""

    requested = False

    def wait_until(self, due: float, clock: Clock) -> None:
        """Sleep until `clock.monotonic()` is `due`, or until the end is asked for."""
        while not self.requested and (left := due - clock.monotonic()) > 0:
            clock.sleep(min(left, _NAP_S))


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGTERM and SIGINT ask for the end inside the block; a second one acts as if this were not here.

    Outside the main thread, where Python has no signals, nothing is installed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: object) -> None:
        stop.requested = True
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()


class Answer(Protocol):
    """The client's promise for one record."""

    is_done: bool

    def get(self, timeout: float | None = None) -> Any: ...


class Producer(Protocol):
    """What is used of the client."""

    def send(self, topic: str, *, value: bytes, key: bytes | None, timestamp_ms: int) -> Answer: ...

    def flush(self) -> None: ...


class Sender:
    """Writes records to one topic. Every answer is looked at: a record that was not written is an error,
    raised by this or a later call, at the latest by `flush`."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._unanswered: deque[Answer] = deque()
        self.delivered = 0

    def send(self, record: Record) -> None:
        with translated(f"writing to {self._topic}"):
            answer = self._producer.send(
                self._topic, value=record.value, key=record.key, timestamp_ms=record.timestamp_ms
            )
            self._unanswered.append(answer)
            while self._unanswered and (
                self._unanswered[0].is_done or len(self._unanswered) > _MOST_UNANSWERED
            ):
                self._settle()

    def flush(self) -> None:
        """Return when every record is written."""
        with translated(f"writing to {self._topic}"):
            self._producer.flush()
            while self._unanswered:
                self._settle()

    def _settle(self) -> None:
        self._unanswered.popleft().get(timeout=2 * _DELIVERY_MS / 1000)
        self.delivered += 1


@contextmanager
def open_sender(kafka: KafkaConfig, topic: str) -> Iterator[Sender]:
    """A sender to a topic that exists; when the block ends without an error, all that was sent is written.

    Raises TopicError (no such topic), PermissionDenied, BrokerUnavailable or ConfigError.
    """
    if partition_count(kafka, topic) is None:
        raise TopicError(f"The topic {topic} does not exist: create it first, or correct its name.")
    with translated("connecting"):
        producer = KafkaProducer(
            **client_settings(kafka),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            batch_size=131_072,
            delivery_timeout_ms=_DELIVERY_MS,
            request_timeout_ms=_DELIVERY_MS // 2,
            max_block_ms=_DELIVERY_MS,
        )
    try:
        sender = Sender(producer, topic)
        yield sender
        sender.flush()
    finally:
        producer.close(timeout=1)
