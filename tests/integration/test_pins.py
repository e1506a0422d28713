"""Pins: whoever is first decides for all, also when all come at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from streamgen.config import KafkaConfig
from streamgen.errors import StateError, TopicError
from streamgen.kafka.pins import KafkaPins, decode_value, state_topic
from streamgen.kafka.producer import TransactionalProducer
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.records import OutputBatch, TopicPartition


def test_the_first_value_stands_for_every_worker(kafka: KafkaConfig, fresh: Callable[[str], str]) -> None:
    app = fresh("app")
    pins = KafkaPins(kafka, app)
    assert pins.get("orders", "features") is None
    assert pins.put_if_absent("orders", "features", ["a", "b"]) == ["a", "b"]
    assert pins.put_if_absent("orders", "features", ["c"]) == ["a", "b"]
    other = KafkaPins(kafka, app)
    assert other.put_if_absent("orders", "features", ["d"]) == ["a", "b"]
    assert other.get("orders", "start") is None
    assert KafkaPins(kafka, fresh("app")).get("orders", "features") is None


def test_workers_that_race_agree(kafka: KafkaConfig, fresh: Callable[[str], str]) -> None:
    app = fresh("app")
    stands: list[object] = []

    def race(mine: int) -> None:
        stands.append(KafkaPins(kafka, app).put_if_absent("orders", "start", mine))

    racers = [threading.Thread(target=race, args=(n,)) for n in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(stands) == 3
    assert set(stands) == {KafkaPins(kafka, app).get("orders", "start")}


def test_other_records_of_the_state_topic_are_left_alone(
    kafka: KafkaConfig, fresh: Callable[[str], str]
) -> None:
    app = fresh("app")
    pins = KafkaPins(kafka, app)
    pins.put_if_absent("orders", "a", 1)
    other = TransactionalProducer(kafka, f"{app}-state-orders-0")
    target = TopicPartition(state_topic(app), 0)
    other.publish([OutputBatch(target, [0], [b"learner"], [b"\x00\x01"], [[]])])
    other.close()
    assert pins.put_if_absent("orders", "b", 2) == 2
    assert KafkaPins(kafka, app).get("orders", "a") == 1


def test_a_worker_that_was_killed_while_it_pinned_holds_nobody_up(
    kafka: KafkaConfig, fresh: Callable[[str], str]
) -> None:
    app = fresh("app")
    KafkaPins(kafka, app).put_if_absent("orders", "a", 1)
    killed = TransactionalProducer(kafka, f"{app}-pins")
    killed.open()
    killed._producer.begin_transaction()
    killed._producer.send(
        state_topic(app), key=b'["pin","orders","b"]', value=b"never committed", partition=0
    )
    killed._producer.flush()
    began = time.monotonic()
    assert KafkaPins(kafka, app).get("orders", "b") is None
    assert time.monotonic() - began < 15  # not the transaction's timeout of 30 s
    with contextlib.suppress(Exception):
        killed.close()


@pytest.mark.parametrize("encoded", [b"no json", b"[]", b'{"version": 2, "value": 1}', b'{"version": 1}'])
def test_a_pin_of_another_version_is_named(encoded: bytes) -> None:
    with pytest.raises(StateError, match="orders"):
        decode_value(b'["pin","orders","a"]', encoded)


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_topic_that_forgets_is_refused(
    kafka: KafkaConfig, fresh: Callable[[str], str], policy: str
) -> None:
    """Without its pins a worker that began at the end of the log would begin there again."""
    app = fresh("app")
    create_topics(kafka, [NewTopic(state_topic(app), settings={"cleanup.policy": policy})])
    with pytest.raises(TopicError, match=rf"{app}-state has the cleanup\.policy"):
        KafkaPins(kafka, app).get("orders", "start")
