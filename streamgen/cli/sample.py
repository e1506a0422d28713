"""The newest records of a topic, to see what a worker would make of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from streamgen.config import Config, InputConfig
from streamgen.csvfile import TIME_NAMES
from streamgen.formats import FORMATS
from streamgen.formats.decode import Decoder, discover
from streamgen.records import RawBatch, Reason, TopicPartition

RECORDS = 100  # looked at, spread over the partitions
WAIT_S = 5.0


class Usable(NamedTuple):
    """The scope key of each usable record, and the key by which it was partitioned, as text."""

    keys: list[str | None]
    partition_keys: list[str | None]


@dataclass(frozen=True)
class Sample:
    """Where a topic and the group stand, in records of all partitions, and the newest records."""

    partitions: int
    end: int
    behind: int
    batches: list[RawBatch]

    @property
    def records(self) -> int:
        """How many there are."""
        return sum(map(len, self.batches))

    @property
    def newest_ms(self) -> int:
        """The latest of their Kafka timestamps."""
        return max(int(batch.timestamp_N.max()) for batch in self.batches)

    def decoded(self, source: InputConfig) -> tuple[tuple[str, ...], Usable, Counter[Reason]]:
        """The features, the usable records, and how many would be dead-lettered for which reason."""
        named = source.features or next(filter(None, (discover(source, batch) for batch in self.batches)), ())
        features = tuple(named)
        decoder = Decoder(source, features or ("value",))
        usable, dead = Usable([], []), Counter[Reason]()
        for batch in self.batches:
            done = decoder.decode(batch)
            usable.keys.extend(done.columns.key)
            given = (batch.key[n] for n in done.columns.raw_N.tolist())
            usable.partition_keys.extend(
                None if key is None else key.decode(errors="replace") for key in given
            )
            dead.update(letter.reason for letter in done.dead)
        return features, usable, dead

    def time_field(self, source: InputConfig) -> str | None:
        """A field of the newest record whose name says that it holds a time."""
        form = FORMATS[source.format]()
        for value in (value for batch in self.batches for value in reversed(batch.value) if value):
            try:
                names = [name for name, _ in form.fields(form.parse(value))] if form.named else []
            except ValueError:
                continue
            return next((name for name in names if name.lower() in TIME_NAMES), None)
        return None


def take_sample(config: Config, source: InputConfig) -> Sample:
    """Read the newest records without moving the group. Raises `PermissionDenied` or `BrokerUnavailable`."""
    from kafka import KafkaConsumer
    from kafka import TopicPartition as ClientPartition

    from streamgen.kafka.client import client_settings, translated

    with translated(f"reading {source.topic}"):
        consumer = KafkaConsumer(
            **client_settings(config.kafka),
            group_id=config.application_id,
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        try:
            partitions = [
                ClientPartition(source.topic, n)
                for n in sorted(consumer.partitions_for_topic(source.topic) or ())
            ]
            first, end = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
            begun = {partition: consumer.committed(partition) for partition in partitions}
            consumer.assign(partitions)
            each = max(1, RECORDS // max(1, len(partitions)))
            for partition in partitions:
                consumer.seek(partition, max(first[partition], end[partition] - each))
            batches = _read(consumer, partitions, end)
        finally:
            consumer.close()
    behind = sum(max(0, end[p] - (first[p] if begun[p] is None else begun[p])) for p in partitions)
    return Sample(len(partitions), sum(end[p] - first[p] for p in partitions), behind, batches)


def _read(consumer: Any, partitions: list[Any], end: dict[Any, int]) -> list[RawBatch]:
    deadline, batches = time.monotonic() + WAIT_S, []
    while time.monotonic() < deadline and any(consumer.position(p) < end[p] for p in partitions):
        for partition, records in consumer.poll(timeout_ms=200).items():
            batches.append(
                RawBatch(
                    TopicPartition(*partition),
                    np.array([record.offset for record in records]),
                    np.array([record.timestamp for record in records]),
                    [record.key for record in records],
                    [record.value for record in records],
                    [list(record.headers) for record in records],
                )
            )
    return batches
