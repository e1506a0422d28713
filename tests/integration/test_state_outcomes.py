"""A checkpoint in Kafka whose commit's answer is lost is no failure of the task, whichever way it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamgen.config import KafkaConfig
from streamgen.errors import OutcomeUnknown, PublishAborted
from streamgen.kafka.pins import state_topic
from streamgen.kafka.topics import ensure_compacted
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import LearnerState, Manifest
from streamgen.state.on_kafka import KafkaStore, KafkaTaskStore

SOURCE = TopicPartition("in", 0)


@pytest.mark.parametrize("committed", [True, False])
def test_the_next_checkpoint_goes_on_from_what_is_there(
    kafka: KafkaConfig, fresh: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    application = fresh("outcomes")
    ensure_compacted(kafka, state_topic(application), 2)
    store = KafkaStore(kafka, application).claim(SOURCE)
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
    found = KafkaStore(kafka, application).peek(SOURCE)
    assert found is not None
    assert found.manifest.offset == (20 if committed else 10)
    write(store, 30, {"b": 3.0, "c": 3.0})
    store.close()
    found = KafkaStore(kafka, application).peek(SOURCE)
    assert found is not None
    assert found.manifest.offset == 30
    assert {key: float(one["x"]) for key, one in found.learners.items()} == {"a": 1.0, "b": 3.0, "c": 3.0}


def write(store: KafkaTaskStore, offset: int, learners: dict[str, float]) -> None:
    states = [LearnerState(key, {"x": np.array(value)}) for key, value in learners.items()]
    store.write(Manifest(SOURCE, offset, ("x",), 0, {}, "fingerprint"), states, ())
