"""Whether this user has the rights (ACLs) of a worker or a publisher, asked before it does anything.

A right that is missed only when it is used would stop a worker in the middle of its work, some of them only
when its first checkpoint is due. The list is docs/security.md's.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from kafka import errors
from kafka.admin import MemberToRemove

from streamgen.config import Config, KafkaConfig
from streamgen.errors import BrokerUnavailable, PermissionDenied
from streamgen.kafka.client import translated
from streamgen.kafka.pins import state_topic
from streamgen.kafka.producer import TransactionalProducer
from streamgen.kafka.topics import admin_client

# Of each use of a topic. Describe comes with Read and with Write.
INPUT: tuple[str, ...] = ("READ", "DESCRIBE_CONFIGS")
OUTPUT: tuple[str, ...] = ("WRITE",)
GENERATED: tuple[str, ...] = ("WRITE", "DESCRIBE_CONFIGS")
STATE: tuple[str, ...] = ("READ", "WRITE", "DESCRIBE_CONFIGS")

# As kafka-acls has them.
NAMES = {
    "READ": "Read",
    "WRITE": "Write",
    "DESCRIBE": "Describe",
    "DESCRIBE_CONFIGS": "DescribeConfigs",
}
COORDINATOR_TIMEOUT_S = 20.0  # the first group of a cluster waits until the group's own topic is made


def check_rights(config: Config) -> None:
    """Ask the broker what this user may do.

    Raises `PermissionDenied` that names every right a worker of this configuration lacks, and
    `BrokerUnavailable`.
    """
    needed = {state_topic(config.application_id): STATE}
    for source in config.inputs:
        needed[source.topic] = INPUT
        needed |= dict.fromkeys((source.scores_topic, source.anomalies_topic, source.dlq_topic), OUTPUT)
    _check(config, needed, config.application_id, {source.topic for source in config.inputs}, "a worker")


def check_publishing_rights(config: Config, group: str) -> None:
    """`check_rights` of who publishes generated sequences, as a member of `group`."""
    needed: dict[str, tuple[str, ...]] = {state_topic(config.application_id): ("READ",)}
    for source in config.inputs:
        needed |= {source.topic: INPUT, source.generate_topic: INPUT}
        needed |= {source.generated_topic: GENERATED, source.generate_dlq_topic: OUTPUT}
    others = {state_topic(config.application_id), *(source.topic for source in config.inputs)}
    _check(config, needed, group, others, "a publisher")


def check_image_publishing_rights(config: Config, group: str) -> None:
    """`check_rights` of who publishes images, as a member of `group`."""
    (source,) = config.inputs
    needed: dict[str, tuple[str, ...]] = {
        source.topic: ("DESCRIBE", "DESCRIBE_CONFIGS"),
        source.generate_topic: INPUT,
        source.generated_topic: GENERATED,
        source.generate_dlq_topic: OUTPUT,
    }
    _check(config, needed, group, {source.topic}, "a publisher of images")


def check_image_rights(config: Config, group: str) -> None:
    """`check_rights` of who learns a topic of images, as a member of `group`."""
    images = config.images
    assert images.topic is not None
    needed = {images.topic: INPUT, images.dlq_topic: OUTPUT}
    _check(config, needed, group, {images.topic}, "who learns images")


def _check(
    config: Config, needed: Mapping[str, tuple[str, ...]], group: str, others: Container[str], who: str
) -> None:
    """`others` are the topics that are not for this process to make."""
    with admin_client(config.kafka) as admin:
        missing = [*_on_topics(admin, needed, others), *_on_group(admin, group)]
    missing += _on_transactions(config.kafka, config.application_id)
    if missing:
        user = config.kafka.sasl_username
        raise PermissionDenied(
            f"This user{'' if user is None else f' ({user})'} lacks rights on Kafka: {'; '.join(missing)}. "
            f"Grant what is missing; docs/security.md lists all that {who} needs."
        )


def _on_topics(admin: Any, needed: Mapping[str, tuple[str, ...]], others: Container[str]) -> Iterator[str]:
    with translated("asking for the rights on topics"):
        described = admin.describe_topics(sorted(needed))
    for topic in described:
        name, kind = topic["name"], errors.for_code(topic["error_code"])
        if issubclass(kind, errors.AuthorizationError):
            held: Sequence[str] = ()
        else:
            # A broker that does not tell leaves it empty; at least Describe is there where one does.
            held = topic["authorized_operations"] or needed[name]
        lacking = [NAMES[operation] for operation in needed[name] if operation not in held]
        if lacking:
            yield f"{' and '.join(lacking)} on the topic {name}"
        if (
            kind is errors.UnknownTopicOrPartitionError
            and name not in others
            and not _may_create(admin, name)
        ):
            yield f"Create on the topic {name}, which does not exist (or make it yourself)"


def _may_create(admin: Any, topic: str) -> bool:
    """The right may be on the topic or on the whole cluster: only the attempt tells. Nothing is made."""
    with translated(f"asking whether {topic} may be made"):
        answer = admin.create_topics({topic: {"num_partitions": 1}}, validate_only=True, raise_errors=False)
    return not issubclass(errors.for_code(answer["topics"][0]["error_code"]), errors.AuthorizationError)


def _on_group(admin: Any, group: str) -> Iterator[str]:
    # The broker tells the rights of groups that have members only. To leave as a member that does not exist
    # needs Read, and changes nothing.
    nobody = [MemberToRemove(member_id="streamgen-asks-for-its-rights")]
    deadline = time.monotonic() + COORDINATOR_TIMEOUT_S
    while True:
        try:
            admin.remove_group_members(group, nobody)
            return
        except errors.GroupAuthorizationFailedError:
            yield f"Read on the group {group}"
            return
        except errors.RetriableError as error:
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"The coordinator of the group {group} does not answer ({error})."
                ) from error
            time.sleep(0.1)


def _on_transactions(kafka: KafkaConfig, application_id: str) -> Iterator[str]:
    # An id of its own, that no live worker has: to open it fences nobody, and proves a right on the prefix.
    producer = TransactionalProducer(kafka, f"{application_id}-rights")
    try:
        producer.open()
    except PermissionDenied:
        yield f"Write on the transactional ids that begin with {application_id}- (prefixed)"
    finally:
        producer.close()
