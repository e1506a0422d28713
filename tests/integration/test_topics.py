"""Checking input topics and making output topics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from streamgen.config import Config, InputConfig, KafkaConfig, OutputConfig
from streamgen.errors import BrokerUnavailable, TopicError
from streamgen.kafka import client
from streamgen.kafka.topics import NewTopic, create_topics, ensure_topics, partition_count

Fresh = Callable[[str], str]


def config(kafka: KafkaConfig, topic: str, **outputs: str) -> Config:
    return Config(kafka=kafka, inputs=[InputConfig(topic=topic, outputs=OutputConfig(**outputs))])


def test_outputs_are_made_once_with_the_partitions_of_the_input(kafka: KafkaConfig, fresh: Fresh) -> None:
    topic = fresh("orders")
    create_topics(kafka, [NewTopic(topic, 3)])
    wanted = config(kafka, topic, dlq=f"{topic}.bad")
    assert ensure_topics(wanted) == [f"{topic}.scores", f"{topic}.anomalies", f"{topic}.bad"]
    assert [partition_count(kafka, f"{topic}.{name}") for name in ("scores", "bad", "dlq")] == [3, 3, None]
    assert ensure_topics(wanted) == []


def test_outputs_take_and_keep_what_the_input_does(kafka: KafkaConfig, fresh: Fresh) -> None:
    topic = fresh("history")
    settings = {"retention.ms": "-1", "message.timestamp.after.max.ms": "86400000"}
    create_topics(kafka, [NewTopic(topic, settings=settings)])
    ensure_topics(config(kafka, topic))
    admin = KafkaAdminClient(**client.client_settings(kafka))
    for name in ("scores", "anomalies", "dlq"):
        resource = ConfigResource(ConfigResourceType.TOPIC, f"{topic}.{name}")
        found = admin.describe_configs([resource], config_filter="all")["topic"][f"{topic}.{name}"]
        assert {setting: found[setting]["value"] for setting in settings} == settings
    admin.close()


def test_a_missing_input_is_named(kafka: KafkaConfig, fresh: Fresh) -> None:
    topic = fresh("orders")
    with pytest.raises(TopicError, match=f"{topic} does not exist"):
        ensure_topics(config(kafka, topic))
    assert partition_count(kafka, f"{topic}.scores") is None


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_input_is_refused(kafka: KafkaConfig, fresh: Fresh, policy: str) -> None:
    topic = fresh("orders")
    create_topics(kafka, [NewTopic(topic, settings={"cleanup.policy": policy})])
    with pytest.raises(TopicError, match="compacted"):
        ensure_topics(config(kafka, topic))


def test_an_output_with_other_partitions_is_refused_and_left_alone(kafka: KafkaConfig, fresh: Fresh) -> None:
    topic = fresh("orders")
    create_topics(kafka, [NewTopic(topic, 2), NewTopic(f"{topic}.scores", 5)])
    with pytest.raises(TopicError, match=r"scores has 5 partitions .* has 2"):
        ensure_topics(config(kafka, topic))
    assert partition_count(kafka, f"{topic}.scores") == 5
    assert partition_count(kafka, f"{topic}.dlq") is None


def test_a_name_that_kafka_refuses(kafka: KafkaConfig) -> None:
    with pytest.raises(TopicError, match="not a name"):
        create_topics(kafka, [NewTopic("not a name")])


def test_no_broker_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BOOTSTRAP_TIMEOUT_MS", 500)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1.*bootstrap_servers"):
        ensure_topics(config(KafkaConfig(bootstrap_servers="127.0.0.1:1"), "orders"))
