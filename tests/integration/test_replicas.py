"""An output topic with fewer replicas in sync than it asks for: of two brokers one goes and comes back."""

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
