"""One member of a consumer group whose partitions deliver nothing until the caller has said from where."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from kafka import KafkaConsumer, errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.structs import TopicPartition as ClientPartition

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, Fenced, TopicError
from streamgen.kafka import fastpath
from streamgen.kafka.assignor import Assignor
from streamgen.kafka.client import client_settings, translated
from streamgen.kafka.record_codec import Decoded
from streamgen.kafka.transport import Committed, OnRevoke, Polled
from streamgen.records import RawBatch, TopicPartition

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_MS = 30_000
END_TIMEOUT_MS = 5_000  # for the lag; nothing is worth waiting longer for it
METADATA_AGE_MS = 5_000


class _Changes(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the client is untyped
    """Notes what a rebalance did, and has what is revoked finished before it is given up.

    It runs on the client's I/O thread, where a call that waits would fail: all it does to the consumer is
    local. While it sleeps the client goes on, and sends heartbeats; the caller's thread waits in its poll.
    """

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        # Was it lost (or given up)? Which? A queue: two threads may not replace one another's sets.
        self.gone: deque[tuple[bool, TopicPartition]] = deque()
        self.member = ""  # as which the partitions are owned
        self.on_revoke: OnRevoke | None = None  # of the poll that is under way
        self.revoked_under: Any = None  # the group metadata to commit with inside `on_revoke`

    async def on_partitions_assigned(self, assigned: Iterable[ClientPartition]) -> None:
        for partition in assigned:
            self.consumer.pause(partition)
            # A placeholder, never fetched from: it spares the client looking a position up.
            self.consumer.seek(partition, 0)

    async def on_partitions_revoked(self, revoked: Iterable[ClientPartition]) -> None:
        mine = frozenset(TopicPartition(*partition) for partition in revoked)
        group = self.consumer.group_metadata()
        if self.on_revoke is not None and group.member_id == self.member:
            # Nobody else can own them before this member joins again, which it does when this returns. Any
            # later group metadata would vouch for partitions that are another member's by then.
            self.revoked_under = group
            finishing = threading.Thread(target=self.on_revoke, args=(mine,), name="streamgen-revoke")
            finishing.start()
            while finishing.is_alive():
                await fastpath.sleep(self.consumer, 0.005)
            self.revoked_under = None
        self.gone.extend((False, source) for source in mine)

    async def on_partitions_lost(self, lost: Iterable[ClientPartition]) -> None:
        self.gone.extend((True, TopicPartition(*partition)) for partition in lost)


class GroupConsumer:
    """Reads `topics` as a member of `group`. Raises as `streamgen.kafka.transport.Transport` does."""

    def __init__(
        self, kafka: KafkaConfig, topics: Sequence[str], group: str, client_id: str, static: bool = False
    ) -> None:
        """`static`: a member that comes back within the session timeout keeps its partitions (KIP-345), and
        `client_id` is its name; two live members of one name fence one another."""
        self._kafka, self._topics, self._group, self._client_id = kafka, list(topics), group, client_id
        self._static = static
        self._connected = False
        self._connect()

    def _connect(self) -> None:
        session_ms = self._kafka.session_timeout_ms
        session = {"session_timeout_ms": session_ms, "heartbeat_interval_ms": min(3000, session_ms // 3)}
        assignor = self._assignor = Assignor()
        settings = session | client_settings(self._kafka)
        with translated(f"connecting to {self._kafka.bootstrap_servers}"):
            self._consumer = KafkaConsumer(
                **settings,
                client_id=self._client_id,
                group_id=self._group,
                group_instance_id=self._client_id if self._static else None,
                isolation_level="read_committed",
                enable_auto_commit=False,
                # A position that retention has passed, or that lies behind the end, is for us to judge.
                auto_offset_reset="none",
                partition_assignment_strategy=[assignor],
                allow_auto_create_topics=False,
                # An assignor that lacks a topic's metadata gives nobody its partitions until the next
                # refresh, which is 5 minutes away by default.
                metadata_max_age_ms=METADATA_AGE_MS,
                metrics_enabled=False,
            )
        assignor.lost = lambda: fastpath.membership_lost(self._consumer)
        reason = fastpath.check()
        if reason is None:
            fastpath.read_columns(self._consumer)
        else:
            log.warning("records are read one by one, which is slow: %s", reason)
        self._changes = _Changes(self._consumer)
        self._consumer.subscribe(self._topics, listener=self._changes)
        try:
            with translated(f"looking for {', '.join(self._topics)}"):
                # The metadata is there before the group is joined.
                for topic in self._topics:
                    self._consumer.partitions_for_topic(topic)
        except BaseException:
            self.close()
            raise
        self._connected = True
        self._owned: set[TopicPartition] = set()  # as told to the caller
        self._sought: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()  # by the caller
        self._gaps: dict[TopicPartition, int] = {}  # found, and not told yet
        self._polled_under: Any = None  # the group metadata captured with the records of the last poll

    def poll(self, timeout_s: float, max_records: int, on_revoke: OnRevoke | None = None) -> Polled:
        if not self._connected:
            self._connect()
        self._changes.on_revoke = on_revoke
        try:
            with translated(f"reading {', '.join(self._topics)}"):
                polled = self._poll(timeout_s, max_records)
        except BrokerUnavailable as error:
            log.warning("%s", error)  # the client goes on trying; its membership ends if that takes too long
            polled = {}
        finally:
            self._changes.on_revoke = None
        group = self._consumer.group_metadata()
        if self._owned and (group.generation_id < 0 or not group.member_id):
            # The broker would take offsets with such metadata from anyone: nothing of this may be used.
            self.forget()
            raise Fenced("The membership of the group ended: another worker may own the partitions.")
        if group.generation_id < 0 or group.generation_id != self._assignor.generation:
            # Not joined yet, or in the middle of it, where a poll brings no records: what `assignment()`
            # lists is of an earlier generation, and this one vouches for nothing of it.
            return Polled(joined=False)
        self._polled_under = group
        before, self._changes.member = self._changes.member, group.member_id
        assigned, revoked, lost = self._take_changes()
        if before not in ("", group.member_id) and self._owned - assigned:
            # The client takes what is given to the new member for what the old one had; in between it may
            # have been another's.
            self.forget()
            raise Fenced("The membership of the group ended and began anew: the partitions were given away.")
        batches = [
            _raw_batch(source, fastpath.columns(records))
            for source, records in ((TopicPartition(*theirs), r) for theirs, r in polled.items())
            if source in self._sought
        ]
        gaps = {source: first for source, first in self._gaps.items() if source in self._sought}
        self._gaps = {}
        positions = {
            source: position
            for source, position in fastpath.positions(self._consumer).items()
            if source in self._sought
        }
        return Polled(batches, assigned, revoked, lost, gaps, positions=positions)

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

    @property
    def revoking(self) -> bool:
        """Whether `on_revoke` is being called."""
        return self._changes.revoked_under is not None

    @property
    def group_metadata(self) -> Any:
        """What offsets are to be committed with: captured with the records, or when they were revoked."""
        return self._changes.revoked_under or self._polled_under

    def committed(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        with translated("reading the group's committed offsets"):
            found = {
                source: self._consumer.committed(
                    ClientPartition(*source), metadata=True, timeout_ms=ANSWER_TIMEOUT_MS
                )
                for source in sources
            }
        return {
            source: None if one is None else Committed(one.offset, one.metadata or "")
            for source, one in found.items()
        }

    def topic_id(self, topic: str) -> str:
        with translated(f"looking for the topic {topic}"):
            # Metadata that lacks the topic for a moment, as of a broker that has just started, is no answer:
            # an empty id says that the brokers know none.
            if not self._consumer.partitions_for_topic(topic):
                raise BrokerUnavailable(f"The brokers do not know the topic {topic} now.")
        return fastpath.topic_id(self._consumer, topic)

    def bounds(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        partitions = [ClientPartition(*source) for source in sources]
        for partition in partitions:
            # The client would wait for a leader for as long as it may.
            if not fastpath.has_leader(self._consumer, partition):
                raise BrokerUnavailable(f"{TopicPartition(*partition)} has no leader now.")
        with translated("reading the bounds of partitions"):
            first = self._consumer.beginning_offsets(partitions, timeout_ms=ANSWER_TIMEOUT_MS)
            end = self._consumer.end_offsets(partitions, timeout_ms=ANSWER_TIMEOUT_MS)
        return {TopicPartition(*partition): (first[partition], end[partition]) for partition in partitions}

    def ends(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        partitions = [ClientPartition(*source) for source in sources]
        led = [partition for partition in partitions if fastpath.has_leader(self._consumer, partition)]
        with translated("reading the ends of partitions"):
            end = self._consumer.end_offsets(led, timeout_ms=END_TIMEOUT_MS)
        return {TopicPartition(*partition): end[partition] for partition in led}

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
        self._polled_under = None  # nor commit any more what was polled before

    def rejoin(self) -> None:
        """`forget`, and join the group as a new member: another process has this one's name.

        With a new client, at the next poll: one that unsubscribes while it is joining may stay without
        partitions for good.
        """
        self.forget()
        self.close()
        self._connected = False

    def close(self) -> None:
        """Leave the group; a static member keeps its place for the session timeout."""
        self._consumer.close(autocommit=False, timeout_ms=5000)

    def _poll(self, timeout_s: float, max_records: int) -> Any:
        fastpath.free_slot(self._consumer)
        fastpath.keep_join(self._consumer)
        try:
            return self._consumer.poll(timeout_ms=timeout_s * 1000, max_records=max_records)
        except errors.OffsetOutOfRangeError as error:
            self._note_gaps(error.args[0])
        except errors.LogTruncationError as error:
            self._note_gaps(error.divergent_offsets)
        return {}

    def _note_gaps(self, partitions: Iterable[ClientPartition]) -> None:
        """Retention has passed what was to be read next, or the log was cut or made again before it."""
        self._consumer.topics()  # what is known of a topic may be of the one that was there before
        for partition in partitions:
            source = TopicPartition(*partition)
            first, _ = self.bounds([source])[source]
            self._consumer.pause(partition)
            self._consumer.seek(partition, first)  # else every poll would find the gap again
            self._gaps[source] = first

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
        here = self._consumer.assignment() if self._connected else ()
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
