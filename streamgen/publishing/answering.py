"""Answers the requests of a topic, each exactly once: what publishers of sequences and of images share.

One thread, and one transport, which is a member of the publishers' own group and reads the topics of
requests.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import structlog

from streamgen.errors import PublishAborted, Rebalanced, ReopenError, RetryError
from streamgen.health import Health
from streamgen.kafka.transport import Transport
from streamgen.metrics import PublisherMetrics
from streamgen.positions import is_of
from streamgen.publishing.outbox import Outbox, Pending
from streamgen.publishing.waiting import Asked, Waiting
from streamgen.records import TopicPartition

log = structlog.get_logger()

POLL_RECORDS = 100  # requests that one poll brings
MAX_QUEUED = 500  # with more requests waiting no further ones are read
IDLE_S = 0.2  # the longest wait of a poll
TURN_S = 1.0  # of answering, after which the group is polled again
LOOK_S = 5.0  # between looks whether a broker answers
BEAT_S = 2.0  # of drawing, after which the group is polled on the way
BACKOFF_S = (0.05, 5.0)  # first and longest wait after a failed publish
Drawn = TypeVar("Drawn")


class Answering(ABC):
    """Answers the requests that the group assigns to this process.

    `clock` gives monotonic seconds and `wall` seconds since 1970: they decide when something is published at
    a rate, and with which seed.
    """

    def __init__(
        self,
        transport: Transport,
        metrics: PublisherMetrics,
        health: Health,
        parse: Callable[[bytes | None], Any],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport, self._metrics, self._health = transport, metrics, health
        self._clock, self._wall, self._sleep = clock, wall, sleep
        self._owned: set[TopicPartition] = set()  # partitions of the topics of requests
        self._to_open: set[TopicPartition] = set()
        self._waiting = Waiting(parse)
        self._drawing = ThreadPoolExecutor(1, "drawing")
        self._paused: set[TopicPartition] = set()
        self._outbox = Outbox(transport, metrics, clock)
        self._failures = 0  # publishes that failed in a row
        self._joined = False  # the group has said which partitions are this process's
        self._looked_at = -LOOK_S

    @abstractmethod
    def _follow(self) -> None:
        """Take up newer state."""

    @property
    @abstractmethod
    def _ready(self) -> bool:
        """Whether all state was read once; nothing is answered before."""

    @property
    @abstractmethod
    def _busy(self) -> bool:
        """Whether something waits that is not a request."""

    @abstractmethod
    def _is_ready(self, asked: Asked) -> bool:
        """Whether the request can be answered, or refused, now."""

    @abstractmethod
    def _wait(self) -> None:
        """Wait a bit for what no request that waits is ready without."""

    @abstractmethod
    def _answered(self, asked: Asked) -> Pending:
        """The answer to a request, or its refusal."""

    @abstractmethod
    def _generate(self) -> None:
        """What is due at a rate, for a while."""

    @abstractmethod
    def _close(self) -> None:
        """Let the state go."""

    def run(self, stopping: Callable[[], bool]) -> None:
        """Turn until `stopping()`; what is answered and not committed then is answered again by the next."""
        try:
            while not stopping():
                self.turn()
        finally:
            self._drawing.shutdown(wait=False, cancel_futures=True)
            self._transport.close()
            self._close()

    def turn(self) -> None:
        """One turn:

        1. Take up new state.
        2. Poll for requests, and partitions of them that came and went. Nothing is answered before all state
           was read once.
        3. Answer what waits and is ready, for a while; in each partition one after the other.
        4. Generate what is due at a rate.
        5. One transaction of all of that and the offsets of the requests.
        """
        self._health.turn()
        try:
            self._follow()
            self._poll()
            if self._ready:
                self._open()
                self._outbox.ask()
                self._answer()
                self._generate()
                self._outbox.commit()
            self._tell()
        except ReopenError as error:
            log.warning("the claim on the requests is void; rejoining", reason=str(error))
            self._drop(self._owned | self._to_open)
            self._transport.forget()
        except RetryError as error:
            self._back_off(error)

    def _poll(self) -> None:
        busy = bool(len(self._waiting) or self._busy or not self._ready)
        polled = self._transport.poll(0.0 if busy else IDLE_S, POLL_RECORDS)
        self._joined |= polled.joined
        if polled.assigned or polled.revoked or polled.lost:
            self._metrics.rebalanced()
        self._drop(polled.revoked | polled.lost)
        for raw in polled.batches:
            if raw.source in self._owned:
                self._waiting.add(raw)
        self._to_open |= polled.assigned
        for source, first in polled.gaps.items():
            log.warning("requests were removed before they were read", source=str(source), first=first)
            self._transport.seek(source, first)
        full = {source for source in self._owned if self._waiting.count(source) > MAX_QUEUED}
        if full - self._paused:
            self._transport.pause(full - self._paused)
        if self._paused - full:
            self._transport.resume(self._paused - full)
        self._paused = full

    def _open(self) -> None:
        """Go on where the group's last answer was committed, or at the first request that there is."""
        for source in sorted(self._to_open):
            committed = self._transport.committed([source])[source]
            first, _ = self._transport.bounds([source])[source]
            known = committed is not None and is_of(committed, self._transport.topic_id(source.topic))
            self._transport.seek(source, max(committed.offset, first) if committed and known else first)
            self._to_open.discard(source)
            self._owned.add(source)

    def _drop(self, gone: Iterable[TopicPartition]) -> None:
        """Another publisher's now: what of it is not committed is answered there."""
        gone = set(gone)
        if not gone:
            return
        self._owned -= gone
        self._to_open -= gone
        self._paused -= gone
        self._waiting.drop(gone)
        self._outbox.drop(gone)

    def _answer(self) -> None:
        until = self._clock() + TURN_S
        while len(self._waiting) and self._clock() < until and not self._outbox.full:
            answered = False
            for asked in self._waiting.ready(self._is_ready):
                answered = True
                pending = self._answered(asked)
                if self._waiting.answered(asked):
                    self._outbox.add(pending)
                if self._outbox.full or self._clock() >= until:
                    break
            if not answered:
                self._wait()

    def _drawn(self, draw: Callable[[], Drawn]) -> Drawn:
        """What `draw` gives, drawn beside: long sequences take minutes, and who does not poll in that time is
        put out of the group, and so is the next one who gets the request."""
        drawing = self._drawing.submit(draw)
        while not wait([drawing], BEAT_S).done:
            self._health.turn()
            try:
                self._poll()
            except RetryError as error:
                log.info("the group was not polled", reason=str(error))  # the next turn says more
            except BaseException:
                wait([drawing])  # nobody else may touch the model meanwhile
                raise
        return drawing.result()

    def _back_off(self, error: RetryError) -> None:
        if isinstance(error, PublishAborted):
            self._metrics.aborted()
        if isinstance(error, Rebalanced):
            return  # no outage: the next poll brings it to its end
        self._failures += 1
        self._health.broker(self._failures < 3)
        longest = min(BACKOFF_S[0] * 2 ** min(self._failures, 16), BACKOFF_S[1])
        wait = random.uniform(longest / 2, longest)
        log.warning("trying again", reason=str(error), again_in_s=round(wait, 2))
        self._sleep(wait)

    def _tell(self) -> None:
        if self._joined:
            self._health.assigned(len(self._owned | self._to_open))
        self._health.restoring(0 if self._ready else max(len(self._to_open), 1), 0)
        if self._clock() - self._looked_at >= LOOK_S:
            self._transport.bounds(self._owned)  # raises when no broker answers
            self._looked_at = self._clock()
            self._failures = 0
            self._health.broker(True)


def seed_of(partition: int, offset: int) -> int:
    """Of a request that names none: one that no other request has."""
    return (partition << 48) + offset
