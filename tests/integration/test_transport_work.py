"""A worker at work: records too large, workers that join, a broker that is killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from streamgen.config import Config, InputConfig, KafkaConfig
from streamgen.errors import ConfigError, StopError
from streamgen.kafka import producer as producer_module
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.client import client_settings
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.records import OutputBatch, TopicPartition

if TYPE_CHECKING:
    from conftest import Rig

Reader = Callable[[str], list[Any]]


def values(records: list[Any]) -> list[bytes]:
    return [record.value for record in records]


def test_a_record_that_is_too_large_stops_and_nothing_of_its_transaction_shows(
    rig: Rig, read_committed: Reader
) -> None:
    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    with pytest.raises(StopError, match=rf"{rig.output}.*max\.message\.bytes"):
        worker.publish([rig.batch(b"0", b"x" * 1_100_000, b"2")], {rig.input: 1})
    assert values(read_committed(rig.output.topic)) == []
    assert rig.committed(worker) is None
    worker.publish([rig.batch(b"0")], {rig.input: 1})
    assert values(read_committed(rig.output.topic)) == [b"0"]


def test_batches_are_cut_to_what_a_topic_takes(
    rig: Rig, kafka: KafkaConfig, fresh: Callable[[str], str], read_committed: Reader
) -> None:
    small = fresh("small")
    create_topics(kafka, [NewTopic(small, settings={"max.message.bytes": "20000"})])
    worker = rig.worker()
    batch = rig.batch(*[b"%03d" % n + b"x" * 1000 for n in range(100)])
    batch = OutputBatch(TopicPartition(small, 0), batch.timestamp, batch.key, batch.value, batch.headers)
    rig.wait(lambda: rig.published(worker, batch, {}))
    assert values(read_committed(small)) == batch.value


def test_a_joining_worker_takes_partitions_and_leaves_the_rest_running(
    rig: Rig, kafka: KafkaConfig, fresh: Callable[[str], str]
) -> None:
    topic = fresh("wide")
    create_topics(kafka, [NewTopic(topic, 4)])
    config = Config(kafka=kafka, application_id=fresh("app"), inputs=[InputConfig(topic=topic)])
    owned: list[set[TopicPartition]] = [set(), set()]
    workers: list[KafkaTransport] = []

    def poll_all() -> list[int]:
        for own, worker in zip(owned, workers, strict=False):
            polled = rig.poll(worker)
            assert not polled.lost
            own -= polled.revoked
            assert not own & polled.assigned
            own |= polled.assigned
        return [len(own) for own in owned]

    for name in ("w0", "w1"):
        workers.append(KafkaTransport(config, [topic], name))
        rig.open.append(workers[-1])
        rig.wait(lambda: sum(poll_all()) == 4 and min(map(len, owned[: len(workers)])) == 4 // len(workers))
    assert not owned[0] & owned[1]


def test_a_worker_goes_on_when_the_broker_was_killed(make_rig: Callable[[KafkaConfig], Rig]) -> None:
    from kafka import KafkaConsumer

    with EmbeddedBroker() as broker:
        rig = make_rig(KafkaConfig(bootstrap_servers=broker.bootstrap_servers))
        worker = rig.worker()
        rig.join(worker)
        rig.read_one(worker)
        worker.publish([rig.batch(b"0")], {rig.input: 1})
        broker.kill()
        killed = time.monotonic()
        restart = threading.Timer(0.5, broker.start)
        restart.start()
        # The client alone would lose the request that was under way and wait for the delivery timeout.
        rig.wait(lambda: rig.published(worker, rig.batch(b"1"), {rig.input: 2}))
        assert time.monotonic() - killed < producer_module.DELIVERY_TIMEOUT_MS / 1000
        restart.join()
        settings = client_settings(rig.config.kafka)
        reader = KafkaConsumer(
            rig.output.topic,
            **settings,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            consumer_timeout_ms=1500,
        )
        assert values(list(reader)) == [b"0", b"1"]
        reader.close()
        assert rig.committed(worker) == 2
        worker.close()


def test_a_session_timeout_that_the_broker_does_not_take_is_said(
    make_rig: Callable[[KafkaConfig], Rig], kafka: KafkaConfig
) -> None:
    rig = make_rig(kafka)
    short = kafka.model_copy(update={"session_timeout_ms": 1000})
    rig.config = rig.config.model_copy(update={"kafka": short})
    worker = rig.worker()
    with pytest.raises(ConfigError, match=r"no such kafka\.session_timeout_ms .*group\.min\.session"):
        rig.join(worker)
    worker.close()
