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
from streamgen.publishing.answering import TURN_S, Answering, seed_of
from streamgen.publishing.answers import Answer, answer, dead_letter
from streamgen.publishing.following import Followed, holding
from streamgen.publishing.outbox import Pending
from streamgen.publishing.rate import Rates
from streamgen.publishing.requests import Refusal, Refused, Request, correlation_id, parse
from streamgen.records import RawBatch, TopicPartition
from streamgen.state.reading import StateReader

log = structlog.get_logger()

TO_THE_END_S = 30.0  # the longest that a request waits until the input is read to its end
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
        super().__init__(transport, metrics, health, clock, wall, sleep)
        self._application, self._states, self._tail = config.application_id, states, tail
        self._device = device
        self._inputs = {one.topic: one for one in config.inputs}
        self._asked_of = {one.generate_topic: one for one in config.inputs}
        self.followed: dict[TopicPartition, Followed] = {}  # of the inputs
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
            followed.take(newest.get(source))
        self._feed(0.0)

    def _feed(self, timeout_s: float) -> None:
        for raw in self._tail.poll(timeout_s):
            if raw.source in self.followed:
                followed = self.followed[raw.source]
                before = followed.comparison.compared
                followed.feed(raw)
                if followed.comparison.compared > before:
                    self._metrics.compared(
                        raw.source, followed.comparison.compared - before, *followed.comparison.distance
                    )

    def _to_the_end(self, followed: Followed) -> None:
        """Read the input to its end as it is now."""
        until = self._clock() + TO_THE_END_S
        while not followed.read_to_the_end():
            self._feed(0.05)
            if self._clock() > until:
                raise BrokerUnavailable(f"{followed.source} was not readable to its end in time.")

    def _answered(self, raw: RawBatch, n: int) -> Pending:
        began, config = self._clock(), self._asked_of[raw.source.topic]
        place = raw.source, int(raw.offset_N[n])
        kind = OTHER
        try:
            request = parse(raw.value[n])
            kind = request.kind
            # A request without a name is known by its place, and has a seed that no other one has.
            id = request.correlation_id or f"{raw.source}-{place[1]}"
            seed = seed_of(raw.source.partition, place[1]) if request.seed is None else request.seed
            made = self._made(config, request, request.scope_key(raw.key[n]), seed, id)
        except Refused as refused:
            log.info("a request is refused", source=str(raw.source), offset=place[1], reason=refused.detail,
                     correlation_id=correlation_id(raw.value[n]))  # fmt: skip
            self._metrics.refused(config.topic, refused.reason)
            target = TopicPartition(config.generate_dlq_topic, raw.source.partition)
            pending = Pending(dead_letter(raw, n, target, refused), place, config.topic, kind, 0)
        else:
            pending = Pending(made.batch, place, config.topic, kind, len(made.drawn_STD))
        self._metrics.asked(config.topic, kind, self._clock() - began)
        return pending

    def _made(
        self, config: InputConfig, request: Request, key: str | None, seed: int, id: str | None
    ) -> Answer:
        """Raises `Refused`."""
        followed = holding(self.followed.values(), config.topic, request.partition, key)
        self._to_the_end(followed)
        made = answer(self._application, config, followed, request, key, seed, id)
        assert followed.checkpoint is not None
        behind = followed.next_offset - followed.checkpoint.manifest.offset
        self._metrics.generated_from(followed.source, made.written, max(behind, 0))
        if request.kind == "continue":
            followed.comparison.watch(key, followed.next_offset, made.newest_ms, made.drawn_STD[0])
        return made

    def _generate(self) -> None:
        """What is due at a rate, for a while."""
        for config in self._inputs.values():
            self._rates.turn(config, self._wall(), self.followed, self._owned)
        until = self._clock() + TURN_S
        while self._rates.line and self._clock() < until and not self._outbox.full:
            due = self._rates.line[0]
            topic, request = due.config.topic, due.request
            try:
                made = self._made(due.config, request, due.key, due.seed, None)
            except Refused as refused:
                # The key was forgotten meanwhile, or the model gives no such sequences.
                log.warning(
                    "no sequence is published", source=str(due.source), key=due.key, reason=refused.detail
                )
                self._metrics.refused(topic, refused.reason)
            else:
                self._outbox.add(Pending(made.batch, None, topic, request.kind, len(made.drawn_STD)))
            self._rates.line.popleft()
