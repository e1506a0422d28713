"""Publishes sequences: answers to requests exactly once, and others at a rate.

How it answers is in `answering`. Whoever has partition n of `<input>.generate` also publishes at a rate what
is of partition n of the input; a request may be of any key, wherever it came. State is only read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from streamgen.config import Config, InputConfig
from streamgen.errors import BrokerUnavailable
from streamgen.health import Health
from streamgen.kafka.tail import Tail
from streamgen.kafka.transport import Transport
from streamgen.metrics import PublisherMetrics
from streamgen.models.online import KINDS
from streamgen.publishing.answering import LOOK_S, TURN_S, Answering, seed_of
from streamgen.publishing.answers import Answer, answer, dead_letter
from streamgen.publishing.following import Followed, holding
from streamgen.publishing.outbox import Pending
from streamgen.publishing.rate import Rates
from streamgen.publishing.requests import Refusal, Refused, Request, correlation_id, parse
from streamgen.publishing.waiting import Asked, Until
from streamgen.records import TopicPartition
from streamgen.state.reading import StateReader

log = structlog.get_logger()

READ_S = 0.05  # the longest wait for what an input got
OTHER = "other"  # the kind of a request that names none


class Publisher(Answering):
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
        super().__init__(transport, metrics, health, parse, clock, wall, sleep)
        self._application, self._states, self._tail = config.application_id, states, tail
        self._device = device
        self._inputs = {one.topic: one for one in config.inputs}
        self._asked_of = {one.generate_topic: one for one in config.inputs}
        self.followed: dict[TopicPartition, Followed] = {}  # of the inputs
        self._unreadable: dict[TopicPartition, float] = {}  # inputs: until when they are not asked for again
        self._rates = Rates()
        for one in config.inputs:
            metrics.generates(one.topic, KINDS, map(str, Refusal))

    @property
    def _ready(self) -> bool:
        return self._states.ready

    @property
    def _busy(self) -> bool:
        return bool(self._rates.line)

    def _close(self) -> None:
        self._tail.close()
        self._states.close()

    # --- state and inputs

    def _follow(self) -> None:
        self._states.read()
        if not self._states.ready:
            return
        newest = self._states.newest()
        for source in newest.keys() - self.followed.keys():
            self.followed[source] = Followed(source, self._tail, self._device)
        for source, followed in self.followed.items():
            if self._clock() >= self._unreadable.get(source, 0.0):
                is_other = newest.get(source) is not followed.checkpoint
                try:
                    followed.take(newest.get(source))
                except BrokerUnavailable as error:
                    self._leave(source, error)
                if is_other:
                    self._tell_distance(followed, 0)
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
                    self._tell_distance(followed, followed.comparison.compared - before)

    def _tell_distance(self, followed: Followed, pairs: int) -> None:
        """After whatever may change it: pairs that are complete, keys that are let go, and another state."""
        self._metrics.compared(followed.source, pairs, *followed.comparison.distance)

    def _reached(self, until: Until, followed: Followed) -> bool:
        source = followed.source
        if self._clock() < self._unreadable.get(source, 0.0):
            return False
        try:
            return until.reached(followed)
        except BrokerUnavailable as error:
            self._leave(source, error)
            return False

    def _leave(self, source: TopicPartition, error: BrokerUnavailable) -> None:
        """One input that is not readable holds up no other."""
        log.warning("requests of an input wait until it is readable", source=str(source), reason=str(error))
        self._unreadable[source] = self._clock() + LOOK_S

    def _wait(self) -> None:
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
            seed = seed_of(source.partition, offset) if request.seed is None else request.seed
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
            self._tell_distance(followed, 0)
        return made

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
