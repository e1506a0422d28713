"""Checkpoints in Kafka: the application's compacted topic `<application_id>-state` is its changelog.

    ["learner", topic, partition, key, model, part]    a part of a learner, as a safetensors file
    ["facts", topic, partition, part]                  a part of the task's own state, as JSON
    ["task", topic, partition]                         the manifest: offset, fingerprint, versions, checksum
    ["pin", topic, name]                               see `kafka.pins`; in partition 0

Partition 0 holds what is of the whole application, partition 1 + n the tasks of input partition n (modulo,
where there are fewer). A checkpoint is one transaction of the task's own transactional id
`<application_id>-state-<topic>-<partition>`: a read_committed reader sees all of it or nothing. Whoever
initialises that id fences every earlier owner (KIP-98), so it is done when a task is assigned, before its
state is read; a producer that failed is never replaced without looking whether another has written since.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any
from uuid import uuid4

import msgspec

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, Fenced, OutcomeUnknown, PublishAborted, StateError
from streamgen.kafka.pins import state_topic
from streamgen.records import OutputBatch, TopicPartition
from streamgen.state.checkpoint import (
    Checkpoint,
    LearnerState,
    Manifest,
    Tally,
    decode_fields,
    decode_manifest,
    encode_fields,
    encode_manifest,
    learner_hash,
    made_with,
    usable,
)

PART_BYTES = 384 << 10  # a record stays well below the 1 MiB that a broker takes unless told otherwise
BATCH_BYTES = 480_000
TRANSACTION_TIMEOUT_MS = 300_000  # a large checkpoint may take minutes; the next owner ends it at once
WRITE_TIMEOUT_S = 240.0  # below that: one that the broker has aborted could not be told from a foreign one
READ_TIMEOUT_S = 120.0  # without any progress


@dataclass(slots=True)
class _Stored:
    """What a state topic holds of one task; `records` are the keys of each learner's records."""

    manifest: Manifest | None = None
    written_by: str = ""
    records: dict[str | None, list[bytes]] = field(default_factory=dict)
    fact_parts: int = 0
    tally: Tally = field(default_factory=Tally)


class KafkaStore:
    """`Store` of one application in Kafka. The topic must be there, see `kafka.topics.ensure_state_topic`."""

    def __init__(self, kafka: KafkaConfig, application_id: str) -> None:
        self._kafka, self._application = kafka, application_id
        self._topic = state_topic(application_id)
        self._partitions: int | None = None  # of the topic
        self._closing = Event()

    def claim(self, source: TopicPartition) -> KafkaTaskStore:
        from streamgen.kafka.producer import TransactionalProducer

        target = self._target(source)
        producer = TransactionalProducer(
            self._kafka, f"{self._application}-state-{source}", TRANSACTION_TIMEOUT_MS
        )
        producer.open()
        return KafkaTaskStore(self._kafka, target, source, producer, self._closing)

    def close(self) -> None:
        self._closing.set()

    def peek(self, source: TopicPartition) -> Checkpoint | None:
        values = _read(self._kafka, self._target(source), source, self._closing)
        return _checkpoint(values, source, f"in {self._topic}")[0]

    def sources(self) -> list[TopicPartition]:
        found = set()
        for partition in range(self._count()):
            for key in _read(self._kafka, TopicPartition(self._topic, partition), None, self._closing):
                kind, *rest = _decode_key(key, self._topic)
                if kind == "task":
                    found.add(TopicPartition(*rest))
        return sorted(found)

    def _count(self) -> int:
        from streamgen.kafka.topics import partition_count

        self._partitions = self._partitions or partition_count(self._kafka, self._topic)
        if self._partitions is None:
            raise StateError(
                f"There is no topic {self._topic}: the application never ran here, or its state was deleted."
            )
        return self._partitions

    def _target(self, source: TopicPartition) -> TopicPartition:
        count = self._count()
        return TopicPartition(self._topic, 1 + source.partition % (count - 1) if count > 1 else 0)


class KafkaTaskStore:
    """`TaskStore` in Kafka."""

    whole = False

    def __init__(
        self,
        kafka: KafkaConfig,
        target: TopicPartition,
        source: TopicPartition,
        producer: Any,
        closing: Event,
    ) -> None:
        self._kafka, self._target, self._source, self._producer = kafka, target, source, producer
        self._closing = closing
        self._stored: _Stored | None = None  # known since `read`
        self._forget: set[str | None] = set()  # stored learners that are no part of the task's state
        self._attempt = ""  # the last write, whose outcome may be unknown
        self._sure = True  # that `_stored` is what the topic holds

    def read(self, at_most: int, topic_id: str = "") -> Checkpoint | None:
        checkpoint, self._stored = self._look()
        if checkpoint is None or not usable(checkpoint.manifest, at_most, topic_id):
            self._forget = set(self._stored.records)
            return None
        return checkpoint

    def write(
        self, manifest: Manifest, learners: Iterable[LearnerState], removed: Iterable[str | None]
    ) -> Manifest:
        if self._stored is None:
            raise StateError(f"The state of {self._source} was not read before it is written.")
        if not (self._sure and self._producer.is_open):
            self._claim_again(self._stored)
        self._attempt = uuid4().hex
        draft = _Draft(self, self._stored, manifest, learners, self._forget | set(removed), self._attempt)
        self._publish(draft.batches())
        self._stored, self._forget = draft.next, set()
        assert draft.next.manifest is not None
        return draft.next.manifest

    def forget(self) -> None:
        """The task has no checkpoint any more; its learners go with the next one. Raises as `write` does."""
        gone = OutputBatch(
            self._target, [int(time.time() * 1000)], [_key("task", *self._source)], [None], [[]]
        )
        self._publish([gone])
        self._stored = None

    def _publish(self, batches: Iterable[OutputBatch]) -> None:
        self._sure = False
        try:
            self._producer.publish(batches)
        except OutcomeUnknown as error:
            # The next write looks which way it went, see `_claim_again`.
            raise PublishAborted(str(error)) from error
        self._sure = True

    def close(self) -> None:
        self._producer.abandon()

    def _claim_again(self, known: _Stored) -> None:
        """The producer failed, and its successor fences whoever came meanwhile: if somebody did and has
        written, the state here is stale."""
        try:
            self._producer.open()
            found = self._look()[1]
        except OutcomeUnknown as error:
            raise PublishAborted(str(error)) from error
        if found.written_by not in (known.written_by, self._attempt):
            raise Fenced(f"Another worker has stored the state of {self._source} meanwhile.")
        self._stored, self._sure = found, True

    def _look(self) -> tuple[Checkpoint | None, _Stored]:
        values = _read(self._kafka, self._target, self._source, self._closing)
        return _checkpoint(values, self._source, f"in {self._target.topic}")


class _Draft:
    """One checkpoint on its way into the topic."""

    def __init__(
        self,
        store: KafkaTaskStore,
        before: _Stored,
        manifest: Manifest,
        learners: Iterable[LearnerState],
        removed: set[str | None],
        written_by: str,
    ) -> None:
        self._target, self._source = store._target, store._source
        self._manifest, self._learners, self._removed = manifest, learners, removed
        self._until = time.monotonic() + WRITE_TIMEOUT_S
        self._model = str(manifest.input.get("model", {}).get("name"))
        # A copy: an aborted write leaves what is known of the topic as it was.
        self.next = _Stored(None, written_by, dict(before.records), before.fact_parts, before.tally.copy())

    def batches(self) -> Iterator[OutputBatch]:
        """The records, in batches of a size that a broker takes."""
        now = int(time.time() * 1000)
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        size = 0
        for key, value in self._records():
            length = len(key) + len(value or b"")
            if keys and size + length > BATCH_BYTES:
                yield self._batch(now, keys, values)
                keys, values, size = [], [], 0
            keys.append(key)
            values.append(value)
            size += length
        yield self._batch(now, keys, values)

    def _batch(self, now: int, keys: list[bytes | None], values: list[bytes | None]) -> OutputBatch:
        return OutputBatch(self._target, [now] * len(keys), keys, values, [[] for _ in keys])

    def _records(self) -> Iterator[tuple[bytes, bytes | None]]:
        stored = self.next
        for learner in self._learners:
            if time.monotonic() > self._until:
                raise PublishAborted(
                    f"The checkpoint of {self._source} took longer than {WRITE_TIMEOUT_S:.0f} s: it has too "
                    "many learners for this machine. Checkpoint more often, or keep the state in files "
                    "(state.store)."
                )
            self._removed.discard(learner.key)
            stored.tally.update({learner.key: learner_hash(learner.key, learner.fields)}, ())
            parts = _cut(encode_fields(learner.fields))
            keys = [_key("learner", *self._source, learner.key, self._model, n) for n in range(len(parts))]
            yield from zip(keys, parts, strict=True)
            yield from ((key, None) for key in stored.records.get(learner.key, ()) if key not in keys)
            stored.records[learner.key] = keys
        for gone in self._removed & stored.records.keys():
            yield from ((key, None) for key in stored.records.pop(gone))
        stored.tally.update({}, self._removed)
        facts = _cut(msgspec.json.encode(self._manifest.facts))
        for n in range(max(len(facts), stored.fact_parts)):
            yield _key("facts", *self._source, n), facts[n] if n < len(facts) else None
        stored.fact_parts = len(facts)
        stored.manifest = replace(
            stored.tally.seal(self._manifest),
            made_with=self._manifest.made_with or made_with(),  # of one that is moved: where it was learned
            written=self._manifest.written or time.time(),
        )
        slim = replace(stored.manifest, facts={})
        envelope = {"written_by": stored.written_by, "model": self._model}
        yield _key("task", *self._source), _wrap(slim, envelope)


def _key(*parts: str | int | None) -> bytes:
    return msgspec.json.encode(parts)


def _decode_key(key: bytes | None, topic: str) -> list[Any]:
    try:
        parts = msgspec.json.decode(key or b"", type=list[Any])
        if parts and parts[0] in ("learner", "facts", "task", "pin"):
            return parts
    except msgspec.DecodeError:
        pass
    raise StateError(
        f"The topic {topic} holds a record that streamgen did not write (its key is {key!r:.80}): another "
        "application uses the name. Choose another application_id."
    )


def _cut(data: bytes) -> list[bytes]:
    return [data[first : first + PART_BYTES] for first in range(0, max(len(data), 1), PART_BYTES)]


def _wrap(manifest: Manifest, envelope: dict[str, str]) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(encode_manifest(manifest)), **envelope})


def _checkpoint(
    values: dict[bytes, bytes], source: TopicPartition, where: str
) -> tuple[Checkpoint | None, _Stored]:
    """The task's checkpoint, and what the topic holds of it. Raises `StateError`. Empties `values`."""
    encoded = values.pop(_key("task", *source), None)
    stored = _Stored()
    learners: dict[str | None, dict[int, bytes]] = {}
    facts: dict[int, bytes] = {}
    for key in list(values):
        kind, *rest = msgspec.json.decode(key)
        if kind == "learner":
            learners.setdefault(rest[2], {})[rest[4]] = values.pop(key)
            stored.records.setdefault(rest[2], []).append(key)
        else:
            facts[rest[2]] = values.pop(key)
            stored.fact_parts += 1
    if encoded is None:
        # Learners without a manifest: what a rebuild or a reset has left for the next checkpoint to replace.
        return None, stored
    manifest = decode_manifest(encoded, f"of {source} {where}")
    stored.written_by = msgspec.json.decode(encoded)["written_by"]
    decoded = {}
    for name in list(learners):
        parts = learners.pop(name)
        if sorted(parts) != list(range(len(parts))):
            raise StateError(
                f"The checkpoint of {source} {where} is damaged: parts of a learner are missing."
            )
        decoded[name] = decode_fields(b"".join(parts[n] for n in range(len(parts))), f"of {source} {where}")
    manifest = replace(
        manifest, facts=msgspec.json.decode(b"".join(facts[n] for n in sorted(facts)) or b"{}")
    )
    stored.manifest, stored.tally = manifest, Tally.of(decoded)
    stored.tally.check(manifest, where)
    return Checkpoint(manifest, decoded), stored


def _read(
    kafka: KafkaConfig, partition: TopicPartition, source: TopicPartition | None, closing: Event
) -> dict[bytes, bytes]:
    """The newest value of each key of a task (of all tasks: None), up to the partition's end as it is now."""
    from kafka import KafkaConsumer
    from kafka import TopicPartition as ClientPartition

    from streamgen.kafka.client import client_settings, translated

    settings = client_settings(kafka) | {
        "enable_auto_commit": False,
        "metrics_enabled": False,
        "max_partition_fetch_bytes": 16 << 20,
        "max_poll_records": 1000,
    }
    theirs = ClientPartition(*partition)
    newest: dict[bytes, bytes] = {}
    with translated(f"reading {partition.topic}"):
        # Not the end of the committed: the task's last checkpoint may stand behind another's open one.
        uncommitted = KafkaConsumer(**settings)
        consumer = KafkaConsumer(**settings, isolation_level="read_committed")
        try:
            end = uncommitted.end_offsets([theirs])[theirs]
            consumer.assign([theirs])
            consumer.seek_to_beginning(theirs)
            moved, position = time.monotonic(), -1
            while (now := consumer.position(theirs)) < end:
                if closing.is_set():
                    raise BrokerUnavailable(f"{partition} was not read to its end: the worker ends.")
                if now > position:
                    moved, position = time.monotonic(), now
                elif time.monotonic() - moved > READ_TIMEOUT_S:
                    raise BrokerUnavailable(f"{partition} was not readable to its end in time.")
                for records in consumer.poll(timeout_ms=200).values():
                    for record in records:
                        kind, *rest = _decode_key(record.key, partition.topic)
                        if kind == "pin" or (source is not None and tuple(rest[:2]) != tuple(source)):
                            continue
                        if record.value is None:
                            newest.pop(record.key, None)
                        else:
                            newest[record.key] = record.value
        finally:
            consumer.close()
            uncommitted.close()
    return newest
