"""Facts resolved once and stored for the application: whoever decides first decides for all.

A pin is a record of the compacted topic `<application_id>-state`, written by one transactional producer
at a time: its key is the JSON array `["pin", topic, name]`, its value `{"version": 1, "value": ...}`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, Fenced, OutcomeUnknown, PublishAborted, StateError
from streamgen.records import OutputBatch, TopicPartition

log = logging.getLogger(__name__)

VERSION = 1
PARTITION = 0  # pins are few: one partition holds them all
# An open transaction of another writer of the topic hides what follows it until its timeout.
READ_TIMEOUT_S = 40.0
ATTEMPTS = 20
DEAD_AFTER_S = 1.0  # a pin takes a fraction of that


class Pins(Protocol):
    """The application's pinned facts."""

    def get(self, topic: str, name: str) -> Any:
        """The pinned JSON value, or None."""

    def all(self, topic: str) -> dict[str, Any]:
        """Every pin of a topic as it stands now, by name."""

    def put_if_absent(self, topic: str, name: str, value: Any) -> Any:
        """Pin a JSON value other than None, unless one stands already; returns the one that stands."""


class KafkaPins:
    """The application's pins in Kafka, read and written on demand. A worker never changes one that stands.

    Raises `BrokerUnavailable`, `PermissionDenied`, `TopicError` when the topic is not compacted, or
    `StateError` for a pin of an unknown version.
    """

    def __init__(self, kafka: KafkaConfig, application_id: str) -> None:
        self._kafka, self._application = kafka, application_id
        self._known: dict[bytes, Any] = {}
        self._topic_is_there = False

    def get(self, topic: str, name: str) -> Any:
        key = encode_key(topic, name)
        if key not in self._known:
            self._read()
        return self._known.get(key)

    def all(self, topic: str) -> dict[str, Any]:
        self._read()
        return names_of(topic, self._known)

    def put_if_absent(self, topic: str, name: str, value: Any) -> Any:
        key = encode_key(topic, name)
        if key in self._known:
            return self._known[key]
        return self._write(topic, name, value, replace=False)

    def put(self, topic: str, name: str, value: Any) -> None:
        """Pin a JSON value other than None in place of the one that stands. Not while workers are live: they
        know the old one, and read it no more."""
        self._write(topic, name, value, replace=True)

    def _write(self, topic: str, name: str, value: Any, replace: bool) -> Any:
        from streamgen.kafka.producer import TransactionalProducer

        key = encode_key(topic, name)
        for attempt in range(ATTEMPTS):
            # From here on no other worker's pin can commit, and what they committed is read below. Not read
            # before too: a read takes a fifth of a second, and a worker that starts makes three pins.
            producer = TransactionalProducer(self._kafka, f"{self._application}-pins")
            try:
                producer.open()
                if key not in self._known:
                    self._read(end_open=False)  # opening the producer has ended what was open
                if replace or key not in self._known:
                    target = TopicPartition(state_topic(self._application), PARTITION)
                    now, encoded = int(time.time() * 1000), encode_value(value)
                    producer.publish([OutputBatch(target, [now], [key], [encoded], [[]])])
                    self._known[key] = decode_value(key, encoded)
                return self._known[key]
            except (Fenced, PublishAborted, OutcomeUnknown) as error:
                log.info("pinning %s of %s again: %s", name, topic, error)
                time.sleep(random.uniform(0, 0.2 * (attempt + 1)))  # so that two don't fence one another on
            finally:
                producer.close()
        raise BrokerUnavailable(f"The pin {name} of {topic} could not be written in {ATTEMPTS} attempts.")

    def _read(self, end_open: bool = True) -> None:
        """Read the topic to its end as it is now; `end_open`: a transaction of a pin that is open for long is
        taken for a killed worker's, and ended."""
        from kafka import KafkaConsumer
        from kafka import TopicPartition as ClientPartition

        from streamgen.kafka.client import client_settings, translated
        from streamgen.kafka.topics import ensure_compacted

        topic = state_topic(self._application)
        if not self._topic_is_there:
            ensure_compacted(self._kafka, topic)
            self._topic_is_there = True
        settings = client_settings(self._kafka) | {"enable_auto_commit": False, "metrics_enabled": False}
        partition = ClientPartition(topic, PARTITION)
        with translated(f"reading {topic}"):
            # The end of the committed is not enough: a pin may stand behind somebody's open transaction.
            uncommitted = KafkaConsumer(**settings)
            consumer = KafkaConsumer(**settings, isolation_level="read_committed")
            try:
                end = uncommitted.end_offsets([partition])[partition]
                consumer.assign([partition])
                consumer.seek_to_beginning(partition)
                began, ended = time.monotonic(), False
                while consumer.position(partition) < end:
                    waited = time.monotonic() - began
                    if end_open and waited > DEAD_AFTER_S and not ended:
                        self._end_open_transaction()
                        ended = True
                    if waited > READ_TIMEOUT_S:
                        raise BrokerUnavailable(f"{topic} was not readable to its end in time.")
                    for records in consumer.poll(timeout_ms=200).values():
                        self._take(records)
            finally:
                consumer.close()
                uncommitted.close()

    def _end_open_transaction(self) -> None:
        """Of a worker that was killed while it pinned; one that is alive tries again."""
        from streamgen.kafka.producer import TransactionalProducer

        producer = TransactionalProducer(self._kafka, f"{self._application}-pins")
        try:
            producer.open()
        except Fenced:
            return  # whoever was quicker has ended it
        finally:
            producer.close()

    def _take(self, records: list[Any]) -> None:
        for record in records:
            if record.value is not None and record.key is not None and record.key.startswith(b'["pin",'):
                self._known[record.key] = decode_value(record.key, record.value)


def state_topic(application_id: str) -> str:
    """The application's internal topic."""
    return f"{application_id}-state"


def encode_key(topic: str, name: str) -> bytes:
    return msgspec.json.encode(["pin", topic, name])


def names_of(topic: str, known: Mapping[bytes, Any]) -> dict[str, Any]:
    """The pins of one topic, by name, in the order in which they were made."""
    named = ((msgspec.json.decode(key), value) for key, value in list(known.items()))
    return {name: value for (_, of, name), value in named if of == topic}


def encode_value(value: Any) -> bytes:
    return msgspec.json.encode({"version": VERSION, "value": value})


def decode_value(key: bytes, encoded: bytes) -> Any:
    """The pinned value. Raises `StateError` for a record of another version or none of ours."""
    try:
        record = msgspec.json.decode(encoded)
    except msgspec.DecodeError as error:
        raise StateError(f"The pin {key.decode(errors='replace')} is not JSON: {error}.") from error
    version = record.get("version") if isinstance(record, dict) else None
    if version != VERSION or "value" not in record:
        raise StateError(
            f"The pin {key.decode(errors='replace')} has version {version}, this streamgen reads version "
            f"{VERSION}: run the version that wrote it, or choose another application_id."
        )
    return record["value"]
