"""An application's consumer group, looked at and changed from outside: nobody joins it here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import errors

from streamgen.config import Config, KafkaConfig
from streamgen.errors import PermissionDenied, StateError, StopError
from streamgen.kafka.client import translated
from streamgen.kafka.topics import admin_client, partition_count
from streamgen.kafka.transport import Offsets
from streamgen.records import TopicPartition

COORDINATOR_S = 20.0  # a broker's first group ever waits for the topic of the offsets to be made


@contextmanager
def offsets_of(config: Config) -> Iterator[Offsets]:
    """Look at the inputs and at how far the application's group is. Raises as `KafkaTransport` does."""
    from streamgen.kafka.consumer import GroupConsumer

    # A member joins at its first poll, and none is made: no worker is disturbed.
    topics = [source.topic for source in config.inputs]
    for topic in topics:
        partition_count(config.kafka, topic)  # to the client a topic that it may not see is one that is gone
    consumer = GroupConsumer(config.kafka, topics, config.application_id, f"{config.application_id}-state")
    try:
        yield consumer
    finally:
        consumer.close()


def live_members(kafka: KafkaConfig, group: str) -> list[str]:
    """The client ids and hosts of a group's members. Raises `PermissionDenied`, `BrokerUnavailable`."""
    found = _described(kafka, group)
    return [f"{member['client_id']} at {member['client_host'].lstrip('/')}" for member in found["members"]]


def refuse_live(kafka: KafkaConfig, group: str, what: str) -> None:
    """Raises `StateError` when the group has members: `what` is not to be done under their feet."""
    members = live_members(kafka, group)
    if members:
        more = f" and {len(members) - 3} more" if len(members) > 3 else ""
        raise StateError(
            f"The application {group} has live workers ({', '.join(members[:3])}{more}): stop them before "
            f"you {what}. One that was killed counts until the session timeout (kafka.session_timeout_ms)."
        )


def committed_offsets(kafka: KafkaConfig, group: str) -> dict[TopicPartition, int]:
    """Everything that a group has committed. Raises `PermissionDenied`, `BrokerUnavailable`."""
    with admin_client(kafka) as admin, translated(f"reading the committed offsets of {group}"):
        found = _patiently(lambda: admin.list_group_offsets(group))[group]
    return {TopicPartition(*partition): one.offset for partition, one in found.items() if one.offset >= 0}


def delete_group(kafka: KafkaConfig, group: str) -> None:
    """Forget what a group has committed; it need not be there. Raises `StateError` when it has members,
    `PermissionDenied`, or `BrokerUnavailable`."""
    with admin_client(kafka) as admin, translated(f"deleting the group {group}"):
        said = str(_patiently(lambda: admin.delete_groups([group]))[group])
    if said.startswith("NonEmptyGroup"):
        refuse_live(kafka, group, "delete its offsets")
    if said.startswith("GroupAuthorizationFailed"):
        raise PermissionDenied(f"This user may not delete the group {group}: grant it Delete on the group.")
    if said != "OK" and not said.startswith("GroupIdNotFound"):
        raise StopError(f"Kafka did not delete the committed offsets of the group {group} ({said}).")


def _described(kafka: KafkaConfig, group: str) -> Any:
    with admin_client(kafka) as admin, translated(f"looking for members of the group {group}"):
        return _patiently(lambda: admin.describe_groups([group]))[group]


def _patiently(ask: Any) -> Any:
    deadline = time.monotonic() + COORDINATOR_S
    while True:
        try:
            return ask()
        except errors.CoordinatorNotAvailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
