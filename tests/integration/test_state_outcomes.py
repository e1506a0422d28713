"""Checkpoints in Kafka that do not come to their end: the task goes on from what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, Fenced, OutcomeUnknown, PublishAborted
from streamgen.kafka.pins import state_topic
from streamgen.kafka.topics import ensure_compacted
from streamgen.records import TopicPartition
from streamgen.state import on_kafka
from streamgen.state.checkpoint import LearnerState, Manifest
from streamgen.state.on_kafka import KafkaStore, KafkaTaskStore

SOURCE = TopicPartition("in", 0)


@pytest.fixture
def state(kafka: KafkaConfig, fresh: Callable[[str], str]) -> KafkaStore:
    application = fresh("outcomes")
    ensure_compacted(kafka, state_topic(application), 2)
    return KafkaStore(kafka, application)


@pytest.mark.parametrize("committed", [True, False])
def test_the_next_checkpoint_goes_on_from_what_is_there(
    state: KafkaStore, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    store = state.claim(SOURCE)
    assert store.read(100) is None
    write(store, 10, {"a": 1.0, "b": 1.0})
    publish = store._producer.publish

    def lost(batches: Any) -> None:
        if committed:
            publish(batches)
        store._producer.close()
        raise OutcomeUnknown("the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr(store._producer, "publish", lost)
        with pytest.raises(PublishAborted, match="the answer was lost"):
            write(store, 20, {"b": 2.0, "c": 2.0})
    found = state.peek(SOURCE)
    assert found is not None
    assert found.manifest.offset == (20 if committed else 10)
    write(store, 30, {"b": 3.0, "c": 3.0})
    store.close()
    found = state.peek(SOURCE)
    assert found is not None
    assert found.manifest.offset == 30
    assert {key: float(one["x"]) for key, one in found.learners.items()} == {"a": 1.0, "b": 3.0, "c": 3.0}


def test_one_that_takes_longer_than_its_transaction_may_is_given_up(
    state: KafkaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker would abort it, and it would look like another owner's doing."""
    store = state.claim(SOURCE)
    store.read(100)
    write(store, 10, {"a": 1.0})
    with monkeypatch.context() as patched:
        patched.setattr(on_kafka, "WRITE_TIMEOUT_S", 0.0)
        with pytest.raises(PublishAborted, match=r"longer than 0 s.*Checkpoint more often"):
            write(store, 20, {"a": 2.0})
    found = state.peek(SOURCE)
    assert found is not None
    assert found.manifest.offset == 10
    write(store, 30, {"a": 3.0})
    store.close()


def test_a_read_ends_with_its_worker(state: KafkaStore) -> None:
    store = state.claim(SOURCE)
    store.read(100)
    write(store, 10, {"a": 1.0})
    state.close()
    with pytest.raises(BrokerUnavailable, match="the worker ends"):
        store.read(100)
    store.close()


def test_what_another_has_written_meanwhile_fences(
    state: KafkaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the first look at it fails: what is not known to be there is not written over."""
    store = state.claim(SOURCE)
    store.read(100)
    write(store, 10, {"a": 1.0})
    with pytest.raises(ZeroDivisionError):
        store.write(manifest(20), failing(), ())
    other = state.claim(SOURCE)
    other.read(100)
    write(other, 15, {"a": 1.5})
    read, failures = on_kafka._read, [BrokerUnavailable("no broker answered")]

    def unlucky(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(on_kafka, "_read", unlucky)
    with pytest.raises(BrokerUnavailable):
        write(store, 20, {"a": 2.0})
    with pytest.raises(Fenced, match="Another worker has stored the state of in-0 meanwhile"):
        write(store, 20, {"a": 2.0})
    store.close()
    other.close()


def failing() -> Iterator[LearnerState]:
    yield LearnerState("a", {"x": np.array(0.0)})
    raise ZeroDivisionError


def manifest(offset: int) -> Manifest:
    return Manifest(SOURCE, offset, ("x",), 0, {}, "fingerprint")


def write(store: KafkaTaskStore, offset: int, learners: dict[str, float]) -> None:
    states = [LearnerState(key, {"x": np.array(value)}) for key, value in learners.items()]
    store.write(manifest(offset), states, ())
