"""Follows the state topic: what each checkpoint changed, instead of all of it each time.

A checkpoint is one transaction that ends with its manifest, so a read_committed reader has all of it when
the manifest comes. What came before the manifest waits until then; the checksum over all learners, kept while
some of them change, tells that nothing of it is missing: compaction may have removed parts of older
checkpoints that are read on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import structlog

from streamgen.config import KafkaConfig
from streamgen.errors import StateError
from streamgen.kafka.pins import state_topic
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import (
    Checkpoint,
    Fields,
    Manifest,
    Tally,
    decode_fields,
    decode_manifest,
    learner_hash,
)
from streamgen.state.on_kafka import _decode_key

log = structlog.get_logger()

ANSWER_TIMEOUT_MS = 30_000
Parts = Mapping[tuple[str, int], bytes]  # of a learner, by model and number


@dataclass(slots=True)
class _Known:
    """What the topic holds of one task. `learners` and `facts` are as of the last manifest, `waiting` is what
    came after it."""

    manifest: Manifest | None = None
    learners: dict[str | None, Parts] = field(default_factory=dict)
    facts: dict[int, bytes] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    waiting: list[tuple[str, list[Any], bytes | None]] = field(default_factory=list)


class Changes:
    """The checkpoints of `topics` from the records of the state topic, in their order."""

    def __init__(self, topics: Iterable[str], where: str) -> None:
        self._topics, self._where = set(topics), where
        self._known: dict[TopicPartition, _Known] = {}
        self._newest: dict[TopicPartition, Checkpoint] = {}
        self._open: set[TopicPartition] = set()  # whose newest manifest is not looked at yet

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """One record. Raises `StateError` for one that is not ours."""
        kind, *rest = _decode_key(key, self._where)
        if kind == "pin" or rest[0] not in self._topics:
            return
        source = TopicPartition(*rest[:2])
        known = self._known.setdefault(source, _Known())
        if kind != "task":
            known.waiting.append((kind, rest[2:], value))
            return
        self._apply(known, source)
        if value is None:
            known.manifest = None
            self._newest.pop(source, None)
            self._open.discard(source)
            return
        try:
            known.manifest = decode_manifest(value, f"of {source} in {self._where}")
        except StateError as error:
            # As one that is damaged: the task keeps the checkpoint before it, and the others theirs.
            log.warning("a checkpoint cannot be used", source=str(source), reason=str(error))
            self._open.discard(source)
            return
        self._open.add(source)

    def settle(self) -> None:
        """Called where the reader has all that there is: what is whole now is a checkpoint."""
        for source in self._open:
            known = self._known[source]
            assert known.manifest is not None
            try:
                facts = msgspec.json.decode(b"".join(known.facts[n] for n in sorted(known.facts)) or b"{}")
                manifest = replace(known.manifest, facts=facts)
                known.tally.check(manifest, f"in {self._where}")
            except (StateError, msgspec.DecodeError) as error:
                log.warning("a checkpoint is passed over", source=str(source), reason=str(error))
                continue
            where = f"of {source} in {self._where}"
            self._newest[source] = Checkpoint(manifest, _Learners(dict(known.learners), where))
        self._open.clear()

    def newest(self) -> dict[TopicPartition, Checkpoint]:
        return dict(self._newest)

    def _apply(self, known: _Known, source: TopicPartition) -> None:
        changed = set()
        for kind, rest, value in known.waiting:
            if kind == "facts":
                if value is None:
                    known.facts.pop(rest[0], None)
                else:
                    known.facts[rest[0]] = value
                continue
            key, model, part = rest
            changed.add(key)
            # A new mapping: a checkpoint that was given out has the old one.
            parts = dict(known.learners.get(key, {}))
            parts.pop((model, part), None)
            known.learners[key] = parts if value is None else {**parts, (model, part): value}
        known.waiting.clear()
        for key in changed:
            if known.learners[key]:
                try:
                    fields = _joined(known.learners[key], f"of {source} in {self._where}")
                    known.tally.update({key: learner_hash(key, fields)}, ())
                except StateError:
                    known.tally.update({key: 0}, ())  # the checksum is then wrong, and says so
            else:
                del known.learners[key]
                known.tally.update({}, [key])


class KafkaStateReader:
    """`StateReader` of the topic `<application_id>-state`, which must be there.

    It belongs to no group and writes nothing: Read on the topic is all that it needs.
    """

    def __init__(self, kafka: KafkaConfig, application_id: str, topics: Iterable[str]) -> None:
        from kafka import KafkaConsumer
        from kafka import TopicPartition as ClientPartition

        from streamgen.kafka.client import client_settings, translated

        self._topic, self._topics = state_topic(application_id), tuple(topics)
        with translated(f"reading {self._topic}"):
            self._consumer = KafkaConsumer(
                **client_settings(kafka),
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                metadata_max_age_ms=5_000,
                metrics_enabled=False,
                max_partition_fetch_bytes=16 << 20,
                max_poll_records=1000,
            )
            found = self._consumer.partitions_for_topic(self._topic)
            if not found:
                self._consumer.close()
                raise StateError(
                    f"There is no topic {self._topic}: the application never ran here, or its state was "
                    "deleted. Start a worker first (streamgen run)."
                )
            self._partitions = [ClientPartition(self._topic, number) for number in sorted(found)]
            self._begin()

    def _begin(self) -> None:
        """Read all that there is."""
        from streamgen.kafka import fastpath

        self._changes = Changes(self._topics, self._topic)
        self._topic_id = fastpath.topic_id(self._consumer, self._topic)
        self._consumer.assign(self._partitions)
        first = self._consumer.beginning_offsets(self._partitions, timeout_ms=ANSWER_TIMEOUT_MS)
        for partition in self._partitions:
            self._consumer.seek(partition, first[partition])
        self._ends: dict[Any, int] = self._consumer.end_offsets(
            self._partitions, timeout_ms=ANSWER_TIMEOUT_MS
        )

    @property
    def ready(self) -> bool:
        return not self._ends

    def read(self) -> None:
        from kafka.errors import OffsetOutOfRangeError

        from streamgen.kafka import fastpath
        from streamgen.kafka.client import translated

        with translated(f"reading {self._topic}"):
            if fastpath.topic_id(self._consumer, self._topic) not in ("", self._topic_id):
                log.warning("the state topic was made again", topic=self._topic)
                self._begin()
            try:
                polled = self._consumer.poll(timeout_ms=1 if self.ready else 100)
            except OffsetOutOfRangeError:
                # Compaction may remove a tombstone that was not read yet, and a topic may be made again.
                log.warning("the state topic is read again from its beginning", topic=self._topic)
                self._begin()
                return
            for records in polled.values():
                for record in records:
                    self._changes.take(record.key, record.value)
            if not self.ready and all(self._consumer.position(p) >= end for p, end in self._ends.items()):
                self._ends = {}
        if self.ready:
            self._changes.settle()

    def newest(self) -> dict[TopicPartition, Checkpoint]:
        return self._changes.newest()

    def close(self) -> None:
        self._consumer.close()


class _Learners(Mapping[str | None, Fields]):
    """Learners that are decoded when they are asked for."""

    def __init__(self, parts: Mapping[str | None, Parts], where: str) -> None:
        self._parts, self._where = parts, where

    def __getitem__(self, key: str | None) -> Fields:
        return _joined(self._parts[key], self._where)

    def __contains__(self, key: object) -> bool:
        return key in self._parts

    def __iter__(self) -> Iterator[str | None]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _joined(parts: Parts, where: str) -> Fields:
    numbers = sorted(number for _, number in parts)
    if numbers != list(range(len(parts))):
        raise StateError(f"The checkpoint {where} is damaged: parts of a learner are missing.")
    return decode_fields(b"".join(parts[name] for name in sorted(parts)), where)
