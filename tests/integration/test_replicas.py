"""Of two brokers one goes and comes back: what is on it waits, and what is not goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic as ClientTopic

from consumers.online import run_worker
from producers.sending import Record, open_sender
from streamgen.config import Config, InputConfig, KafkaConfig, MetricsConfig, StateConfig
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.client import client_settings
from streamgen.kafka.pins import state_topic
from streamgen.kafka.rights import check_rights
from streamgen.kafka.topics import NewTopic, create_topics, ensure_compacted, ensure_topics
from tests.cluster import another_broker
from tests.integration.secured import read_committed_values

SCORES = "thin.scores"


@pytest.fixture
def first() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def config(first: EmbeddedBroker, tmp_path: Path) -> Config:
    """An application whose topics are all on the first broker, Kafka's own too."""
    config = Config(
        kafka=KafkaConfig(bootstrap_servers=first.bootstrap_servers),
        inputs=[InputConfig(topic="thin")],
        state=StateConfig(directory=str(tmp_path / "state")),
        metrics=MetricsConfig(port=None),
    )
    create_topics(config.kafka, [NewTopic("thin")])
    ensure_topics(config)
    ensure_compacted(config.kafka, state_topic(config.application_id))
    check_rights(config)  # looks for the coordinators, which makes the topics that they keep
    with open_sender(config.kafka, "thin") as sender:
        for n in range(20):
            sender.send(Record(time.time_ns() // 1_000_000, None, b'{"a": %d}' % n))
    return config


@pytest.fixture
def second(first: EmbeddedBroker, config: Config, tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """Another broker of the same cluster."""
    with another_broker(first, 2, tmp_path / "second") as running:
        yield running


def test_too_few_replicas_are_named_and_waited_for(
    second: EmbeddedBroker, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with KafkaAdminClient(**client_settings(config.kafka)) as admin:
        admin.delete_topics([SCORES])
        both = ClientTopic(
            SCORES, replica_assignments={0: [1, 2]}, topic_configs={"min.insync.replicas": "2"}
        )
        admin.create_topics([both])
    deadline, said = time.monotonic() + 90, []

    def published() -> list[int]:
        return [
            json.loads(value)["source"]["offset"] for value in read_committed_values(config.kafka, SCORES)
        ]

    def steps() -> Iterator[bool]:
        """What happens while the worker runs: one value a turn, True at the end."""
        while len(published()) < 20:
            yield False
        with open_sender(config.kafka, "thin") as sender:  # before, since the client may ask the dead one
            second.stop()
            sender.send(Record(time.time_ns() // 1_000_000, None, b'{"a": 20}'))
        while len(said) < 2:
            yield False
        second.start()
        while len(published()) < 21:
            yield False
        yield True

    turns = steps()

    def stopping() -> bool:
        assert time.monotonic() < deadline, said
        logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        said.extend(one["reason"] for one in logged if one["event"].startswith("not published"))
        return next(turns)

    run_worker(config, None, stopping)
    assert published() == list(range(21))
    # The first time, and also while the end of that transaction is what blocks.
    for reason in said[:2]:
        assert reason.startswith(f"{SCORES}-0 takes nothing")
        assert "`min.insync.replicas`" in reason


def test_a_partition_without_a_leader_holds_up_no_other(second: EmbeddedBroker, config: Config) -> None:
    """One partition of the input is on a broker that is gone when the worker starts again. (For its first
    start an application needs all of them, to note where they begin.)"""
    places = {name: {0: [1], 1: [1]} for name in ("thin.scores", "thin.anomalies", "thin.dlq")}
    places["thin"] = {0: [1], 1: [2]}
    with KafkaAdminClient(**client_settings(config.kafka)) as admin:
        admin.delete_topics(list(places))
        admin.create_topics([ClientTopic(name, replica_assignments=at) for name, at in places.items()])
    deadline = time.monotonic() + 90

    def scored() -> list[int]:
        """How many results the partitions have."""
        sources = [json.loads(value)["source"] for value in read_committed_values(config.kafka, SCORES)]
        return [sum(one["partition"] == partition for one in sources) for partition in (0, 1)]

    def run_until(steps: Iterator[bool]) -> None:
        def stopping() -> bool:
            assert time.monotonic() < deadline, scored()
            return next(steps)

        run_worker(config, None, stopping)

    def send(first: int) -> None:
        with open_sender(config.kafka, "thin") as sender:
            for n in range(first, first + 40):
                sender.send(Record(time.time_ns() // 1_000_000, b"%d" % (n % 10), b'{"a": %d}' % n))

    def first_start() -> Iterator[bool]:
        while sum(scored()) < 10:
            yield False
        yield True

    def second_start() -> Iterator[bool]:
        while scored()[0] == before[0]:
            yield False
        for _ in range(50):
            yield False
        assert scored()[1] == before[1]
        second.start()
        while sum(scored()) < 80:
            yield False
        yield True

    send(0)
    run_until(first_start())
    before = scored()
    send(40)
    second.stop()
    run_until(second_start())
