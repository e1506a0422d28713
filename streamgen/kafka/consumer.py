"""One member of a consumer group whose partitions deliver nothing until the caller has said from where."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from kafka import ConsumerRebalanceListener, KafkaConsumer, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import TopicPartition as ClientPartition

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, Fenced, TopicError
from streamgen.kafka import fastpath
from streamgen.kafka.client import client_settings, translated
from streamgen.kafka.record_codec import Decoded
from streamgen.kafka.transport import Polled
from streamgen.records import RawBatch, TopicPartition

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_MS = 30_000
METADATA_AGE_MS = 5_000


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]  # the client is untyped
    """Notes what a rebalance did. It runs on the client's I/O thread, where a call that waits would fail:
    all it does to the consumer is local."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        # Was it lost (or given up)? Which? A queue: two threads may not replace one another's sets.
        self.gone: deque[tuple[bool, TopicPartition]] = deque()

    def on_partitions_assigned(self, assigned: Iterable[ClientPartition]) -> None:
        for partition in assigned:
            self.consumer.pause(partition)
            # A placeholder, never fetched from: it spares the client looking a position up.
            self.consumer.seek(partition, 0)

    def on_partitions_revoked(self, revoked: Iterable[ClientPartition]) -> None:
        self.gone.extend((False, TopicPartition(*partition)) for partition in revoked)

    def on_partitions_lost(self, lost: Iterable[ClientPartition]) -> None:
        self.gone.extend((True, TopicPartition(*partition)) for partition in lost)


class GroupConsumer:
    """Reads `topics` as a member of `group`. Raises as `streamgen.kafka.transport.Transport` does."""

    def __init__(self, kafka: KafkaConfig, topics: Sequence[str], group: str, client_id: str) -> None:
        self._kafka, self._topics, self._group, self._client_id = kafka, list(topics), group, client_id
        self._connect()

    def _connect(self) -> None:
        with translated(f"connecting to {self._kafka.bootstrap_servers}"):
            self._consumer = KafkaConsumer(
                **client_settings(self._kafka),
                client_id=self._client_id,
                group_id=self._group,
                isolation_level="read_committed",
                enable_auto_commit=False,
                # A position that retention has passed, or that lies behind the end, is for us to judge.
                auto_offset_reset="none",
                partition_assignment_strategy=[CooperativeStickyAssignor],
                allow_auto_create_topics=False,
                # An assignor that lacks a topic's metadata gives nobody its partitions until the next
                # refresh, which is 5 minutes away by default.
                metadata_max_age_ms=METADATA_AGE_MS,
                metrics_enabled=False,
            )
        reason = fastpath.check()
        if reason is None:
            fastpath.read_columns(self._consumer)
        else:
            log.warning("records are read one by one, which is slow: %s", reason)
        self._changes = _Changes(self._consumer)
        self._consumer.subscribe(self._topics, listener=self._changes)
        with translated(f"looking for {', '.join(self._topics)}"):
            # The metadata is there before the group is joined.
            for topic in self._topics:
                self._consumer.partitions_for_topic(topic)
        self._owned: set[TopicPartition] = set()  # as told to the caller
        self._sought: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()  # by the caller
        self.group_metadata: Any = None  # captured with the records of the last poll

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        try:
            with translated(f"reading {', '.join(self._topics)}"):
                polled = self._poll(timeout_s, max_records)
        except BrokerUnavailable as error:
            log.warning("%s", error)  # the client goes on trying; its membership ends if that takes too long
            polled = {}
        self.group_metadata = group = self._consumer.group_metadata()
        if self._owned and (group.generation_id < 0 or not group.member_id):
            # The broker would take offsets with such metadata from anyone: nothing of this may be used.
            self.forget()
            raise Fenced("The membership of the group ended: another worker may own the partitions.")
        if group.generation_id < 0:
            return Polled()  # not joined yet: what `assignment()` lists is of an earlier membership
        changes = self._take_changes()
        batches = [
            _raw_batch(source, fastpath.columns(records))
            for source, records in ((TopicPartition(*theirs), r) for theirs, r in polled.items())
            if source in self._sought
        ]
        return Polled(batches, *changes)

    def seek(self, source: TopicPartition, offset: int) -> None:
        partition = ClientPartition(*source)
        if source not in self._owned or partition not in self._consumer.assignment():
            self.forget()
            raise Fenced(f"{source} is not assigned to this worker any more.")
        self._consumer.seek(partition, offset)
        self._sought.add(source)
        if source not in self._paused:
            self._consumer.resume(partition)

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.update(sources)
        self._each(self._consumer.pause, sources)

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.difference_update(sources)
        self._each(self._consumer.resume, (source for source in sources if source in self._sought))

    def committed(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        with translated("reading the group's committed offsets"):
            return {
                source: self._consumer.committed(ClientPartition(*source), timeout_ms=ANSWER_TIMEOUT_MS)
                for source in sources
            }

    def bounds(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        partitions = [ClientPartition(*source) for source in sources]
        with translated("reading the bounds of partitions"):
            first = self._consumer.beginning_offsets(partitions, timeout_ms=ANSWER_TIMEOUT_MS)
            end = self._consumer.end_offsets(partitions, timeout_ms=ANSWER_TIMEOUT_MS)
        return {TopicPartition(*partition): (first[partition], end[partition]) for partition in partitions}

    def offsets_at(self, sources: Iterable[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        sources = list(sources)
        with translated("looking offsets up by time"):
            found = self._consumer.offsets_for_times(
                {ClientPartition(*source): time_ms for source in sources}, timeout_ms=ANSWER_TIMEOUT_MS
            )
        ends = self.bounds(sources)
        hits = {source: found[ClientPartition(*source)] for source in sources}
        return {source: ends[source][1] if hit is None else hit.offset for source, hit in hits.items()}

    def partitions(self, topic: str) -> list[TopicPartition]:
        with translated(f"looking for the topic {topic}"):
            found = self._consumer.partitions_for_topic(topic)
        if not found:
            raise TopicError(f"The topic {topic} does not exist: create it, or correct its name.")
        return [TopicPartition(topic, number) for number in sorted(found)]

    def forget(self) -> None:
        """Own nothing any more: the next poll assigns again what the group still gives this member."""
        self._each(self._consumer.pause, self._owned)
        self._owned, self._sought, self._paused = set(), set(), set()

    def rejoin(self) -> None:
        """`forget`, and join the group as a new member: another process has this one's name.

        With a new client: one that unsubscribes while it is joining may stay without partitions for good.
        """
        self.close()
        self._connect()

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close(autocommit=False, timeout_ms=5000)

    def _poll(self, timeout_s: float, max_records: int) -> Any:
        fastpath.free_slot(self._consumer)
        try:
            return self._consumer.poll(timeout_ms=timeout_s * 1000, max_records=max_records)
        except errors.OffsetOutOfRangeError as error:
            self._judge_out_of_range(error.args[0])
        except errors.LogTruncationError as error:
            raise TopicError(
                f"A topic's log was cut or made anew below what was read already ({error}): its committed "
                "offsets mean nothing now. Choose another application_id, or reset the group's offsets."
            ) from error
        return {}

    def _judge_out_of_range(self, positions: dict[ClientPartition, int]) -> None:
        for partition, position in positions.items():
            source = TopicPartition(*partition)
            first, end = self.bounds([source])[source]
            if position > end:
                raise TopicError(
                    f"{source} ends at offset {end}, and offset {position} was read already: the topic was "
                    "made anew or cut. Choose another application_id, or reset the group's offsets."
                )
            log.warning("%s: retention removed %d records before they were read", source, first - position)
            self._consumer.seek(partition, first)

    def _take_changes(self) -> tuple[frozenset[TopicPartition], ...]:
        """What was assigned, revoked and lost since the last call; a partition may be in two of them."""
        taken = [self._changes.gone.popleft() for _ in range(len(self._changes.gone))]
        lost = frozenset(source for was_lost, source in taken if was_lost and source in self._owned)
        revoked = frozenset(source for _, source in taken if source in self._owned) - lost
        for gone in (self._owned, self._sought, self._paused):
            gone -= lost | revoked
        assigned = frozenset(TopicPartition(*p) for p in self._consumer.assignment()) - self._owned
        self._owned |= assigned
        return assigned, revoked, lost

    def _each(self, act: Any, sources: Iterable[TopicPartition]) -> None:
        here = self._consumer.assignment()
        for source in sources:
            if ClientPartition(*source) in here:
                act(ClientPartition(*source))


def _raw_batch(source: TopicPartition, columns: Decoded) -> RawBatch:
    return RawBatch(
        source,
        np.array(columns.offset, np.int64),
        np.array(columns.timestamp, np.int64),
        columns.key,
        columns.value,
        columns.headers,
    )
