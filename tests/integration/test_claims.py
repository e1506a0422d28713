"""A member that lost its membership claims nothing, and nothing that it had counts as kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.coordinator.consumer import ConsumerProtocolAssignment

from streamgen.config import InputConfig
from streamgen.errors import Fenced
from streamgen.kafka import fastpath
from streamgen.kafka.assignor import Assignor
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.records import TopicPartition

FOUR = ConsumerProtocolAssignment(1, [("t", [0, 1, 2, 3])], b"")


class Cluster:
    """As much of the client's as the assignor looks at."""

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1, 2, 3}

    def topics(self, *_: object) -> set[str]:
        return {"t"}


@pytest.mark.parametrize("order", [("zombie", "owner"), ("owner", "zombie")])
def test_a_partition_has_one_owner_in_a_generation(order: tuple[str, str]) -> None:
    """The zombie had all in generation 1 and was frozen; in generation 2 the owner got all; now both join."""
    one = {"zombie": Assignor(), "owner": Assignor()}
    one["zombie"].on_assignment(FOUR, 1)
    one["zombie"].lost = lambda: True
    one["owner"].on_assignment(FOUR, 2)
    one["owner"].lost = lambda: False
    members = [SimpleNamespace(member_id=name, metadata=one[name].metadata({"t"})) for name in order]
    made = Assignor().assign(Cluster(), members)
    assert made["zombie"].assigned_partitions == []
    (_, kept) = made["owner"].assigned_partitions[0]
    assert len(kept) == 2  # the other two are given up first, and given to the other in the next round


def test_what_a_new_membership_is_given_counts_as_new(make_rig: Callable[..., Any], kafka: Any) -> None:
    """The client finds out in the middle of joining that it is no member, and takes what it is given for what
    it had."""
    rig = make_rig(kafka)
    # The old member is waited for that long.
    short = kafka.model_copy(update={"session_timeout_ms": 6000})
    rig.config = rig.config.model_copy(update={"kafka": short})
    worker = rig.worker()
    try:
        rig.join(worker)
        client = worker._consumer._consumer
        client._coordinator._generation.member_id = "nobody"  # as after a long sleep
        client._coordinator.request_rejoin()
        told: list[Any] = []

        def given_anew() -> bool:
            try:
                told.append(rig.poll(worker))
            except Fenced:
                told.append(Fenced)
            return any(rig.input in one.assigned for one in told if one is not Fenced)

        rig.wait(given_anew)
        dropped = [one for one in told if one is Fenced or rig.input in one.lost]
        assert dropped
        worker.seek(rig.input, 0)
        rig.read_one(worker)
        worker.publish([rig.batch(b"0")], {rig.input: 1})
        assert rig.committed(worker) == 1
    finally:
        worker.close()


def test_a_generation_whose_assignment_is_not_in_force_vouches_for_nothing(
    make_rig: Callable[..., Any], kafka: Any
) -> None:
    rig = make_rig(kafka)
    worker = rig.worker()
    try:
        rig.join(worker)
        rig.read_one(worker)
        group = worker._consumer
        before = group.group_metadata
        group._assignor.generation -= 1  # joined, and not told what is ours
        polled = rig.poll(worker)
        assert (polled.batches, polled.assigned) == ([], frozenset())
        assert group.group_metadata is before
    finally:
        worker.close()


def test_the_name_that_tells_a_lost_membership_is_there(make_rig: Callable[..., Any], kafka: Any) -> None:
    rig = make_rig(kafka)
    worker = rig.worker()
    try:
        assert fastpath.membership_lost(worker._consumer._consumer)
        rig.join(worker)
        assert not fastpath.membership_lost(worker._consumer._consumer)
        assert isinstance(rig.input, TopicPartition)
    finally:
        worker.close()


def test_a_join_that_ends_between_two_polls_counts(make_rig: Callable[..., Any], kafka: Any) -> None:
    """Two busy members, whose polls do not wait, come to an end with a partition each."""
    rig = make_rig(kafka)
    topic = f"{rig.input.topic}-busy"
    create_topics(kafka, [NewTopic(topic, 2)])
    rig.config = rig.config.model_copy(update={"inputs": [InputConfig(topic=topic)]})
    members = [KafkaTransport(rig.config, [topic], f"busy-{n}") for n in range(2)]
    owned: list[set[TopicPartition]] = [set(), set()]

    def settled() -> bool:
        for n, member in enumerate(members):
            polled = member.poll(0.0, 100)
            owned[n] = (owned[n] | polled.assigned) - polled.revoked - polled.lost
        time.sleep(0.3)  # at work
        return len(owned[0]) == len(owned[1]) == 1

    try:
        rig.wait(settled, seconds=25)
        for _ in range(10):
            settled()
        assert owned[0].isdisjoint(owned[1])
        assert settled()
    finally:
        for member in members:
            member.close()
