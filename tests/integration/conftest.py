"""A worker of an application over a real Kafka, for the tests of what can go wrong with one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from streamgen.config import Config, InputConfig, KafkaConfig
from streamgen.errors import PublishAborted
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.client import client_settings
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.kafka.transport import Polled
from streamgen.records import OutputBatch, TopicPartition
from tests.integration.bench import PARTITIONS, Bench
from tests.integration.secured import Secured, secured_broker

if TYPE_CHECKING:
    from tests.conftest import Said


class Rig:
    """An input with one partition and ten records, and an output."""

    def __init__(self, kafka: KafkaConfig, fresh: Callable[[str], str]) -> None:
        from kafka import KafkaProducer

        self.config = Config(
            kafka=kafka, application_id=fresh("app"), inputs=[InputConfig(topic=fresh("source"))]
        )
        self.input = TopicPartition(self.config.inputs[0].topic, 0)
        self.output = TopicPartition(fresh("target"), 0)
        create_topics(kafka, [NewTopic(self.input.topic), NewTopic(self.output.topic)])
        feeder = KafkaProducer(**client_settings(kafka))
        for n in range(10):
            feeder.send(self.input.topic, b"%d" % n)
        feeder.close()
        self.open: list[KafkaTransport] = []

    def worker(self, name: str = "w0") -> KafkaTransport:
        self.open.append(KafkaTransport(self.config, [self.input.topic], name))
        return self.open[-1]

    def batch(self, *values: bytes) -> OutputBatch:
        n = len(values)
        return OutputBatch(self.output, [0] * n, [None] * n, list(values), [[] for _ in values])

    def join(self, worker: KafkaTransport, offset: int = 0) -> None:
        self.wait(lambda: self.input in self.poll(worker).assigned)
        worker.seek(self.input, offset)

    def read_one(self, worker: KafkaTransport) -> None:
        self.wait(lambda: self.poll(worker, 1).batches)

    @staticmethod
    def poll(worker: KafkaTransport, max_records: int = 100) -> Polled:
        return worker.poll(0.1, max_records)

    @staticmethod
    def published(worker: KafkaTransport, batch: OutputBatch, offsets: dict[TopicPartition, int]) -> bool:
        """Whether one attempt went through."""
        try:
            worker.publish([batch], offsets)
        except PublishAborted:
            return False
        return True

    def committed(self, worker: KafkaTransport) -> int | None:
        found = worker.committed([self.input])[self.input]
        return None if found is None else found.offset

    @staticmethod
    def wait(until: Callable[[], object], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A running broker with TLS and ACLs, shared by all tests: use names from `fresh`."""
    with secured_broker(tmp_path_factory.mktemp("certificates")) as running:
        yield running


@pytest.fixture
def rig(kafka: KafkaConfig, fresh: Callable[[str], str]) -> Iterator[Rig]:
    made = Rig(kafka, fresh)
    yield made
    for worker in made.open:
        worker.close()


@pytest.fixture
def make_rig(fresh: Callable[[str], str]) -> Callable[[KafkaConfig], Rig]:
    """A rig on a Kafka of the test's own."""
    return lambda kafka: Rig(kafka, fresh)


@pytest.fixture
def paused(broker: EmbeddedBroker) -> Iterator[Callable[[float], None]]:
    """Stop the broker's process, and let it go on after some seconds."""
    timers: list[threading.Timer] = []

    def pause(seconds: float) -> None:
        os.kill(broker.pid, signal.SIGSTOP)
        timers.append(threading.Timer(seconds, os.kill, (broker.pid, signal.SIGCONT)))
        timers[-1].start()

    yield pause
    for timer in timers:
        timer.join()


@pytest.fixture
def bench(
    kafka: KafkaConfig, fresh: Callable[[str], str], read_committed: Callable[[str], list[Any]],
    tmp_path: Path, cli: Callable[..., Said],
) -> Bench:  # fmt: skip
    """An input of its own, and the command line."""
    topic = fresh("learned")
    create_topics(kafka, [NewTopic(topic, PARTITIONS, settings={"retention.ms": "-1"})])
    return Bench(kafka, topic, tmp_path, fresh, read_committed, cli)
