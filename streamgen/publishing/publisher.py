"""Publishes sequences: answers to requests exactly once, and others at a rate.

One thread, and one transport, which is a member of the publishers' own group and reads the topics of
requests. Whoever has partition n of `<input>.generate` also publishes at a rate what is of partition n of the
input; a request may be of any key, wherever it came. State is only read.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait

import structlog

from streamgen.config import Config, InputConfig
from streamgen.errors import (
    BrokerUnavailable,
    PublishAborted,
    Rebalanced,
    ReopenError,
    RetryError,
)
from streamgen.health import Health
from streamgen.kafka.tail import Tail
from streamgen.kafka.transport import Transport
from streamgen.metrics import PublisherMetrics
from streamgen.models.online import KINDS
from streamgen.positions import is_of
from streamgen.publishing.answers import Answer, answer, dead_letter
from streamgen.publishing.following import Followed, holding
from streamgen.publishing.outbox import Outbox, Pending
from streamgen.publishing.rate import Rates
from streamgen.publishing.requests import Refusal, Refused, Request, correlation_id
from streamgen.publishing.waiting import Asked, Until, Waiting
from streamgen.records import TopicPartition
from streamgen.state.reading import StateReader

log = structlog.get_logger()

POLL_RECORDS = 100  # requests that one poll brings
MAX_QUEUED = 500  # with more requests waiting no further ones are read
IDLE_S = 0.2  # the longest wait of a poll
TURN_S = 1.0  # of answering, after which the group is polled again
LOOK_S = 5.0  # between looks whether a broker answers
READ_S = 0.05  # the longest wait for what an input got
BEAT_S = 2.0  # of drawing, after which the group is polled on the way
BACKOFF_S = (0.05, 5.0)  # first and longest wait after a failed publish
OTHER = "other"  # the kind of a request that names none


class Publisher:
    """Answers the requests that the group assigns to this process.

    `clock` gives monotonic seconds and `wall` seconds since 1970: they decide when sequences are published at
    a rate, and with which seed.
    """

    def __init__(
        self,
        config: Config,
        transport: Transport,
        states: StateReader,
        tail: Tail,
        metrics: PublisherMetrics,
        health: Health,
        device: str = "cpu",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._application, self._transport, self._states, self._tail = (
            config.application_id, transport, states, tail,
        )  # fmt: skip
        self._metrics, self._health, self._device = metrics, health, device
        self._clock, self._wall, self._sleep = clock, wall, sleep
        self._inputs = {one.topic: one for one in config.inputs}
        self._asked_of = {one.generate_topic: one for one in config.inputs}
        self.followed: dict[TopicPartition, Followed] = {}  # of the inputs
        self._owned: set[TopicPartition] = set()  # partitions of the topics of requests
        self._to_open: set[TopicPartition] = set()
        self._waiting = Waiting()
        self._unreadable: dict[TopicPartition, float] = {}  # inputs: until when they are not asked for again
        self._drawing = ThreadPoolExecutor(1, "drawing")
        self._paused = False
        self._outbox = Outbox(transport, metrics, clock)
        self._failures = 0  # publishes that failed in a row
        self._rates = Rates()
        self._joined = False  # the group has said which partitions are this process's
        self._looked_at = -LOOK_S
        for one in config.inputs:
            metrics.generates(one.topic, KINDS, map(str, Refusal))

    def run(self, stopping: Callable[[], bool]) -> None:
        """Turn until `stopping()`; what is answered and not committed then is answered again by the next."""
        try:
            while not stopping():
                self.turn()
        finally:
            self._drawing.shutdown(wait=False, cancel_futures=True)
            self._transport.close()
            self._tail.close()
            self._states.close()

    def turn(self) -> None:
        """One turn:

        1. Take up new checkpoints, and what the inputs got since.
        2. Poll for requests, and partitions of them that came and went. Nothing is answered before all state
           was read once.
        3. Answer what waits, for a while; each when its input is read to where it ended when that was asked.
        4. Generate what is due at a rate.
        5. One transaction of all of that and the offsets of the requests.
        """
        self._health.turn()
        try:
            self._follow()
            self._poll()
            if self._states.ready:
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

    # --- state and inputs

    def _follow(self) -> None:
        self._states.read()
        if not self._states.ready:
            return
        newest = self._states.newest()
        for source in newest.keys() - self.followed.keys():
            self.followed[source] = Followed(source, self._tail, self._device)
        for source, followed in self.followed.items():
            followed.take(newest.get(source))
        self._feed(0.0)

    def _feed(self, timeout_s: float) -> None:
        grown = self._tail.poll(timeout_s)
        for source in grown.gaps:
            if source in self.followed:
                self.followed[source].lose()
        for raw in grown.batches:
            if raw.source in self.followed:
                followed = self.followed[raw.source]
                before = followed.comparison.compared
                followed.feed(raw)
                if followed.comparison.compared > before:
                    self._metrics.compared(
                        raw.source, followed.comparison.compared - before, *followed.comparison.distance
                    )

    def _reached(self, until: Until, followed: Followed) -> bool:
        source = followed.source
        if self._clock() < self._unreadable.get(source, 0.0):
            return False
        try:
            return until.reached(followed)
        except BrokerUnavailable as error:
            log.warning(
                "requests of an input wait until it is readable", source=str(source), reason=str(error)
            )
            self._unreadable[source] = self._clock() + LOOK_S
            return False

    # --- requests

    def _poll(self) -> None:
        busy = bool(len(self._waiting) or self._rates.line or not self._states.ready)
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
        full = len(self._waiting) > MAX_QUEUED
        if full != self._paused:
            (self._transport.pause if full else self._transport.resume)(self._owned)
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
            if self._paused:
                self._transport.pause([source])

    def _drop(self, gone: Iterable[TopicPartition]) -> None:
        """Another publisher's now: what of it is not committed is answered there."""
        gone = set(gone)
        if not gone:
            return
        self._owned -= gone
        self._to_open -= gone
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
                self._feed(READ_S)

    def _is_ready(self, asked: Asked) -> bool:
        """Whether its input is read far enough; what is to be refused always is."""
        if isinstance(asked.request, Refused):
            return True
        try:
            return self._reached(asked.until, self._holding(asked, asked.request))
        except Refused:
            return True

    def _holding(self, asked: Asked, request: Request) -> Followed:
        config, key = self._asked_of[asked.raw.source.topic], request.scope_key(asked.raw.key[asked.n])
        return holding(self.followed.values(), config.topic, request.partition, key)

    def _answered(self, asked: Asked) -> Pending:
        began, (source, offset) = self._clock(), asked.place
        raw, n, config = asked.raw, asked.n, self._asked_of[source.topic]
        kind = OTHER
        try:
            if isinstance(asked.request, Refused):
                raise asked.request
            request = asked.request
            kind = request.kind
            # A request without a name is known by its place, and has a seed that no other one has.
            id = request.correlation_id or f"{source}-{offset}"
            seed = _seed(source.partition, offset) if request.seed is None else request.seed
            key = request.scope_key(raw.key[n])
            made = self._made(config, self._holding(asked, request), request, key, seed, id)
        except Refused as refused:
            log.info("a request is refused", source=str(source), offset=offset, reason=refused.detail,
                     correlation_id=correlation_id(raw.value[n]))  # fmt: skip
            self._metrics.refused(config.topic, refused.reason)
            target = TopicPartition(config.generate_dlq_topic, source.partition)
            pending = Pending(dead_letter(raw, n, target, refused), asked.place, config.topic, kind, 0)
        else:
            pending = Pending(made.batch, asked.place, config.topic, kind, len(made.drawn_STD))
        self._metrics.asked(config.topic, kind, self._clock() - began)
        return pending

    def _made(
        self, config: InputConfig, followed: Followed, request: Request, key: str | None, seed: int,
        id: str | None,
    ) -> Answer:  # fmt: skip
        """Raises `Refused`."""
        made = self._drawn(lambda: answer(self._application, config, followed, request, key, seed, id))
        assert followed.checkpoint is not None
        behind = followed.next_offset - followed.checkpoint.manifest.offset
        self._metrics.generated_from(followed.source, made.written, max(behind, 0))
        if request.kind == "continue":
            followed.comparison.watch(key, followed.next_offset, made.newest_ms, made.drawn_STD[0])
        return made

    def _drawn(self, draw: Callable[[], Answer]) -> Answer:
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
                wait([drawing])  # nobody else may touch the learner meanwhile
                raise
        return drawing.result()

    def _generate(self) -> None:
        """What is due at a rate, for a while. What is due of an input that is not readable is left out."""
        for config in self._inputs.values():
            self._rates.turn(config, self._wall(), self.followed, self._owned)
        until = self._clock() + TURN_S
        while self._rates.line and self._clock() < until and not self._outbox.full:
            due = self._rates.line[0]
            topic, request = due.config.topic, due.request
            if TopicPartition(due.config.generate_topic, due.source.partition) not in self._owned:
                self._rates.line.popleft()  # another publisher's, since it was lined up
                continue
            try:
                followed = holding(self.followed.values(), topic, request.partition, due.key)
                if not self._reached(due.until, followed):
                    if self._clock() < self._unreadable.get(due.source, 0.0):
                        self._rates.line.popleft()
                    else:
                        self._feed(READ_S)
                    continue
                made = self._made(due.config, followed, request, due.key, due.seed, None)
            except Refused as refused:
                # The key was forgotten meanwhile, or the model gives no such sequences.
                log.warning(
                    "no sequence is published", source=str(due.source), key=due.key, reason=refused.detail
                )
                self._metrics.refused(topic, refused.reason)
            else:
                self._outbox.add(Pending(made.batch, None, topic, request.kind, len(made.drawn_STD)))
            self._rates.line.popleft()

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
        self._health.restoring(0 if self._states.ready else max(len(self._to_open), 1), 0)
        if self._clock() - self._looked_at >= LOOK_S:
            self._transport.bounds(self._owned)  # raises when no broker answers
            self._looked_at = self._clock()
            self._failures = 0
            self._health.broker(True)


def _seed(partition: int, offset: int) -> int:
    return (partition << 48) + offset
