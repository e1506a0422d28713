"""What is generated and waits for its commit, which is one transaction with the offsets of the requests."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import structlog

from streamgen.errors import OutcomeUnknown
from streamgen.kafka.transport import Transport
from streamgen.metrics import PublisherMetrics
from streamgen.records import OutputBatch, TopicPartition

log = structlog.get_logger()

MAX_PENDING = 5_000  # records of a transaction, unless one answer has more


@dataclass(frozen=True, slots=True)
class Pending:
    """Records, and the request that they answer: its partition and offset (None: at a rate)."""

    batch: OutputBatch
    place: tuple[TopicPartition, int] | None
    topic: str
    kind: str
    sequences: int  # 0: it was refused


class Outbox:
    """Commits what is `add`ed, all of it or nothing. Raises as `Transport.publish` and `committed` do."""

    def __init__(self, transport: Transport, metrics: PublisherMetrics, clock: Callable[[], float]) -> None:
        self._transport, self._metrics, self._clock = transport, metrics, clock
        self._pending: list[Pending] = []
        self._in_doubt = False  # a commit was sent and its answer lost

    def add(self, one: Pending) -> None:
        self._pending.append(one)

    @property
    def full(self) -> bool:
        """Whether it is time to commit."""
        return sum(len(one.batch) for one in self._pending) >= MAX_PENDING

    def drop(self, gone: Container[TopicPartition]) -> None:
        """These partitions are another publisher's: what of them is not committed is answered there."""
        self._pending = [one for one in self._pending if one.place is None or one.place[0] not in gone]

    def commit(self) -> None:
        """One transaction. A failed one leaves everything pending, and it is sent again."""
        if not self._pending:
            return
        began = self._clock()
        try:
            self._transport.publish([one.batch for one in self._pending], self._offsets())
        except OutcomeUnknown as error:
            log.warning("asking for the committed offsets", reason=str(error))
            self._in_doubt = True
            self.ask()
        else:
            self._settle()
        self._metrics.transaction(self._clock() - began)

    def ask(self) -> None:
        """Learn from the committed offsets which way a commit went whose answer was lost; until that is known
        nothing may be added. Sequences at a rate that were alone in it are not sent again: twice would be
        worse than not."""
        if not self._in_doubt:
            return
        offsets = self._offsets()
        known = self._transport.committed(offsets)
        self._in_doubt = False
        if not offsets or any((one := known[s]) and one.offset >= offsets[s] for s in offsets):
            self._settle()

    def _offsets(self) -> dict[TopicPartition, int]:
        """Of each partition of requests, the one after the last that was answered."""
        return {one.place[0]: one.place[1] + 1 for one in self._pending if one.place is not None}

    def _settle(self) -> None:
        for one in self._pending:
            if one.sequences:
                self._metrics.sequences(one.topic, one.kind, one.sequences)
        self._pending = []
