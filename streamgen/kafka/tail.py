"""Reads partitions on as they grow, as nobody's member: no group, no commit, no claim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
from kafka import KafkaConsumer, errors
from kafka.structs import TopicPartition as ClientPartition

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable
from streamgen.kafka import fastpath
from streamgen.kafka.client import client_settings, translated
from streamgen.records import RawBatch, TopicPartition

ANSWER_TIMEOUT_MS = 30_000
END_TIMEOUT_MS = 5_000  # others wait meanwhile


class Grown(NamedTuple):
    """What came, in offset order within each partition; and the partitions of which records were removed
    before they were read, with the first offset that is left: reading goes on there."""

    batches: list[RawBatch]
    gaps: dict[TopicPartition, int]


class Tail(Protocol):
    """What is new in some partitions, for a read_committed reader."""

    def begin(self, source: TopicPartition, offset: int) -> None:
        """Read a partition from `offset` on, or from its first record where that is gone."""

    def stop(self, source: TopicPartition) -> None:
        """Read a partition no more."""

    def poll(self, timeout_s: float = 0.0) -> Grown:
        """What came since. Raises `BrokerUnavailable`."""

    def position(self, source: TopicPartition) -> int:
        """The next offset that `poll` will look at; what lies before it was given, or never will be."""

    def end(self, source: TopicPartition) -> int:
        """The partition's end as it is now. Raises `BrokerUnavailable`."""

    def topic_id(self, topic: str) -> str:
        """See `Transport.topic_id`."""

    def close(self) -> None:
        """Read no more."""


class KafkaTail:
    """`Tail` with kafka-python."""

    def __init__(self, kafka: KafkaConfig) -> None:
        with translated(f"connecting to {kafka.bootstrap_servers}"):
            self._consumer = KafkaConsumer(
                **client_settings(kafka),
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                metadata_max_age_ms=5_000,
                metrics_enabled=False,
                max_poll_records=2000,
            )
        if fastpath.check() is None:
            fastpath.read_columns(self._consumer)

    def begin(self, source: TopicPartition, offset: int) -> None:
        with translated(f"reading {source}"):
            partition = ClientPartition(*source)
            # Asked before it is assigned: one that is, and has no position, ends the next poll.
            first = self._consumer.beginning_offsets([partition], timeout_ms=END_TIMEOUT_MS)[partition]
            # Assigning anew drops no position of the others.
            self._consumer.assign([*(self._consumer.assignment() - {partition}), partition])
            self._consumer.seek(partition, max(offset, first))

    def stop(self, source: TopicPartition) -> None:
        self._consumer.assign(list(self._consumer.assignment() - {ClientPartition(*source)}))

    def poll(self, timeout_s: float = 0.0) -> Grown:
        if not self._consumer.assignment():
            return Grown([], {})
        with translated("reading the inputs"):
            try:
                polled = self._consumer.poll(timeout_ms=max(int(timeout_s * 1000), 1))
            except errors.OffsetOutOfRangeError as error:
                return Grown([], self._begin_again(error.args[0]))
            except errors.LogTruncationError as error:
                return Grown([], self._begin_again(error.divergent_offsets))
        batches = [
            _raw_batch(TopicPartition(*theirs), records) for theirs, records in polled.items() if records
        ]
        return Grown(batches, {})

    def position(self, source: TopicPartition) -> int:
        with translated(f"reading {source}"):
            try:
                position: int = self._consumer.position(ClientPartition(*source))
            except errors.LogTruncationError:
                raise BrokerUnavailable(f"{source} was cut at its end: looking where it is.") from None
        return position

    def end(self, source: TopicPartition) -> int:
        partition = ClientPartition(*source)
        with translated(f"looking for the end of {source}"):
            end: int = self._consumer.end_offsets([partition], timeout_ms=END_TIMEOUT_MS)[partition]
        return end

    def topic_id(self, topic: str) -> str:
        with translated(f"looking for the topic {topic}"):
            if not self._consumer.partitions_for_topic(topic):
                raise BrokerUnavailable(f"The brokers do not know the topic {topic} now.")
        return fastpath.topic_id(self._consumer, topic)

    def close(self) -> None:
        self._consumer.close()

    def _begin_again(self, positions: Iterable[Any]) -> dict[TopicPartition, int]:
        """Retention was faster than this reader, or the log was cut, or made anew, before its place."""
        first = self._consumer.beginning_offsets(list(positions), timeout_ms=ANSWER_TIMEOUT_MS)
        for partition in positions:
            self._consumer.seek(partition, first[partition])
        return {TopicPartition(*partition): first[partition] for partition in positions}


def _raw_batch(source: TopicPartition, records: Any) -> RawBatch:
    columns = fastpath.columns(records)
    return RawBatch(
        source,
        np.array(columns.offset, np.int64),
        np.array(columns.timestamp, np.int64),
        columns.key,
        columns.value,
        columns.headers,
    )
