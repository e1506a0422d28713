"""Sending: no record is lost in silence, and signals end a producer cleanly."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
from kafka import errors

from producers import sending
from producers.sending import Record, Sender, stop_on_signals
from streamgen.errors import BrokerUnavailable, StopError

RECORD = Record(5, b"k", b"v")


class Promise:
    def __init__(self) -> None:
        self.is_done = False
        self.error: Exception | None = None

    def get(self, timeout: float | None = None) -> None:
        self.is_done = True
        if self.error is not None:
            raise self.error


class Client:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes | None, int]] = []
        self.promises: list[Promise] = []
        self.flushed = 0

    def send(self, topic: str, *, value: bytes, key: bytes | None, timestamp_ms: int) -> Promise:
        self.sent.append((topic, value, key, timestamp_ms))
        self.promises.append(Promise())
        return self.promises[-1]

    def flush(self) -> None:
        self.flushed += 1


def test_a_record_goes_out_whole_and_is_counted_when_written() -> None:
    client = Client()
    sender = Sender(client, "t")
    sender.send(RECORD)
    assert client.sent == [("t", b"v", b"k", 5)]
    assert sender.delivered == 0
    sender.flush()
    assert (sender.delivered, client.flushed) == (1, 1)


def test_a_failed_record_is_an_error_of_the_next_call() -> None:
    client = Client()
    sender = Sender(client, "t")
    sender.send(RECORD)
    client.promises[0].error = errors.KafkaTimeoutError("expired")
    client.promises[0].is_done = True
    with pytest.raises(BrokerUnavailable, match="writing to t"):
        sender.send(RECORD)


def test_a_failed_record_is_an_error_of_the_flush() -> None:
    client = Client()
    sender = Sender(client, "t")
    for _ in range(3):
        sender.send(RECORD)
    client.promises[2].error = errors.MessageSizeTooLargeError("too large")
    with pytest.raises(StopError, match="writing to t"):
        sender.flush()
    assert sender.delivered == 2


def test_so_many_may_be_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_MOST_UNANSWERED", 3)
    client = Client()
    sender = Sender(client, "t")
    for _ in range(5):
        sender.send(RECORD)
    assert [promise.is_done for promise in client.promises] == [True, True, False, False, False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_the_end_and_a_second_one_acts_as_before(number: signal.Signals) -> None:
    got: list[int] = []
    before = signal.signal(number, lambda number, frame: got.append(number))
    try:
        with stop_on_signals() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            assert got == []
            os.kill(os.getpid(), number)
            assert got == [number]
        os.kill(os.getpid(), number)
        assert got == [number, number]
    finally:
        signal.signal(number, before)


def test_other_threads_have_no_signals() -> None:
    found: list[Any] = []

    def inside() -> None:
        with stop_on_signals() as stop:
            found.append(stop.requested)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [False]
