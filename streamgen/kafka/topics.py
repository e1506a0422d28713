"""Topics: what must be there before a worker starts, and making what is missing.

A topic that exists is never changed: what does not fit is an error that says what to do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType

from streamgen.config import Config, InputConfig, KafkaConfig
from streamgen.errors import BrokerUnavailable, PermissionDenied, TopicError
from streamgen.kafka.client import client_settings, translated

# A dead letter is a whole input record plus headers that say why.
DEAD_LETTER_HEADERS_BYTES = 65_536
LEAST_MESSAGE_BYTES = 512 << 10  # of the state topic
GONE_S = 20.0  # a deleted topic is gone from all brokers
_COMPACTED = {
    "cleanup.policy": "compact",
    # A learner is replaced at every checkpoint: without these the broker keeps gigabytes of old ones, which
    # every restore reads.
    "segment.bytes": str(64 << 20),
    "min.cleanable.dirty.ratio": "0.2",
    "max.message.bytes": str(1 << 20),
    # A worker whose clock is ahead by more than a broker takes could not store anything.
    "message.timestamp.type": "LogAppendTime",
}
AHEAD_MS = str(2**63 - 1)  # of a generated record's time before the broker's clock: no limit
_DEFAULT_MESSAGE_BYTES = 1_048_588
_OF_THE_INPUT = ("retention.ms", "message.timestamp.after.max.ms")
KNOWN_AFTER_S = (0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to make. `replication_factor` -1 is the broker's default."""

    name: str
    partitions: int = 1
    replication_factor: int = -1
    settings: Mapping[str, str] = field(default_factory=dict)


def ensure_topics(config: Config) -> list[str]:
    """Check every input topic and make its output topics where they are missing; returns those made.

    Raises `TopicError` for a missing or compacted input or an output with another number of partitions,
    `PermissionDenied`, or `BrokerUnavailable`.
    """
    made = []
    with admin_client(config.kafka) as admin:
        for source in config.inputs:
            made += _create(admin, _missing_outputs(admin, source))
    return made


def ensure_publishing_topics(config: Config, future: bool = True) -> list[str]:
    """Make the topics of requests, of what is generated and of refused requests where they are missing, with
    as many partitions as their input; returns those made.

    Raises as `ensure_topics` does, and, if what is generated has times of the `future`, `TopicError` for a
    topic that does not take them.
    """
    made = []
    with admin_client(config.kafka) as admin:
        for source in config.inputs:
            made += _create(admin, _missing_for_publishing(admin, source, future))
    return made


def ensure_image_topics(config: Config) -> list[str]:
    """Check the topic of images, and make that of its dead letters where it is missing; returns it if made.

    Raises as `ensure_topics` does.
    """
    images = config.images
    assert images.topic is not None
    with admin_client(config.kafka) as admin:
        return _create(admin, _missing_dead_letters(admin, images.topic, images.dlq_topic))


def missing_topics(kafka: KafkaConfig, source: InputConfig) -> list[str]:
    """The output topics of an input that `ensure_topics` would make; nothing is made. Raises as it does."""
    with admin_client(kafka) as admin:
        return [topic.name for topic in _missing_outputs(admin, source)]


def create_topics(kafka: KafkaConfig, topics: Sequence[NewTopic]) -> list[str]:
    """Make the topics that do not exist yet; returns the names of those made.

    Raises `TopicError` when the broker refuses one, `PermissionDenied`, or `BrokerUnavailable`.
    """
    with admin_client(kafka) as admin:
        return _create(admin, topics)


def ensure_state_topic(config: Config) -> list[str]:
    """Make the application's state topic with a partition for each of an input's and one more, unless it is
    there; returns its name if it was made. Raises as `ensure_compacted` does."""
    with admin_client(config.kafka) as admin:
        counts = _partition_counts(admin, [source.topic for source in config.inputs])
    name = f"{config.application_id}-state"
    most = max(count or 0 for count in counts.values())
    return [name] if ensure_compacted(config.kafka, name, 1 + most) else []


def ensure_compacted(kafka: KafkaConfig, topic: str, partitions: int = 1) -> bool:
    """Make a topic that keeps the newest record of each key for good, unless it is there; true: it was made.

    Raises `TopicError` when it is there and forgets or takes too small records, `PermissionDenied`, or
    `BrokerUnavailable`.
    """
    with admin_client(kafka) as admin:
        if _create(admin, [NewTopic(topic, partitions, settings=_COMPACTED)]):
            return True
        settings = _settings(admin, topic)
    policy = settings.get("cleanup.policy", "compact")
    if policy != "compact":
        raise TopicError(
            f"The topic {topic} has the cleanup.policy {policy}: Kafka would delete from it where each input "
            "began and what was learned. Set it to compact, or choose another application_id."
        )
    largest = int(settings.get("max.message.bytes", LEAST_MESSAGE_BYTES))
    if largest < LEAST_MESSAGE_BYTES:
        raise TopicError(
            f"The topic {topic} takes records of at most {largest} bytes, and a part of a checkpoint may "
            f"have {LEAST_MESSAGE_BYTES}: raise its max.message.bytes, or choose another application_id."
        )
    return False


def partition_count(kafka: KafkaConfig, topic: str) -> int | None:
    """How many partitions a topic has; None: it does not exist.

    Raises `PermissionDenied` or `BrokerUnavailable`.
    """
    with admin_client(kafka) as admin:
        return _partition_counts(admin, [topic])[topic]


def retention_s(kafka: KafkaConfig, topics: Sequence[str]) -> dict[str, float]:
    """For how long the topics' records are kept, s; one that keeps them for ever is absent.

    Raises `PermissionDenied` or `BrokerUnavailable`.
    """
    with admin_client(kafka) as admin:
        kept = {topic: int(_settings(admin, topic).get("retention.ms", -1)) for topic in topics}
    return {topic: ms / 1000 for topic, ms in kept.items() if ms > 0}


def delete_topic(kafka: KafkaConfig, topic: str) -> None:
    """Delete a topic, which need not be there. Raises `PermissionDenied`, or `BrokerUnavailable` also when it
    is still there after a while."""
    with admin_client(kafka) as admin:
        with translated(f"deleting the topic {topic}"):
            try:
                admin.delete_topics([topic])
            except errors.UnknownTopicOrPartitionError:
                return
        deadline = time.monotonic() + GONE_S
        while _partition_counts(admin, [topic])[topic] is not None:
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"The topic {topic} is being deleted and still there: wait for it.")
            time.sleep(0.1)


def _missing_outputs(admin: Any, source: InputConfig) -> list[NewTopic]:
    results = [source.scores_topic, source.anomalies_topic]
    counts, count = _counts_of(admin, source.topic, results)
    # A result has the Kafka timestamp of its record: it must not be refused, nor deleted as too old before
    # that is.
    settings = _settings(admin, source.topic)
    kept = {name: settings[name] for name in _OF_THE_INPUT if name in settings}
    missing = [
        NewTopic(topic, count, settings={"cleanup.policy": "delete"} | kept)
        for topic in results
        if counts[topic] is None
    ]
    return [*missing, *_missing_dead_letters(admin, source.topic, source.dlq_topic)]


def _missing_dead_letters(admin: Any, source: str, dlq: str) -> list[NewTopic]:
    """The topic of an input's dead letters, unless it is there. Raises `TopicError` for a compacted input."""
    counts, count = _counts_of(admin, source, [dlq])
    settings = _settings(admin, source)
    if "compact" in settings.get("cleanup.policy", ""):
        raise TopicError(
            f"The input topic {source} is compacted: Kafka removes older records of a key from it, so "
            "that what was learned could not be learned again after a crash. Read from a topic whose "
            "cleanup.policy is delete."
        )
    if counts[dlq] is not None:
        return []
    kept = {name: settings[name] for name in _OF_THE_INPUT if name in settings}
    largest = int(settings.get("max.message.bytes", 0))
    room = {"max.message.bytes": str(largest + DEAD_LETTER_HEADERS_BYTES)} if largest else {}
    return [NewTopic(dlq, count, settings={"cleanup.policy": "delete"} | kept | room)]


def _missing_for_publishing(admin: Any, source: InputConfig, future: bool) -> list[NewTopic]:
    generated, asked, refused = source.generated_topic, source.generate_topic, source.generate_dlq_topic
    counts, count = _counts_of(admin, source.topic, [generated, asked, refused])
    missing = []
    if counts[generated] is None:
        settings = _settings(admin, source.topic)
        # Sequences go on into the future, and where the input has no timestamp field, theirs are Kafka's own.
        ahead = {"message.timestamp.after.max.ms": AHEAD_MS, "message.timestamp.type": "CreateTime"}
        kept = {name: settings[name] for name in ("retention.ms",) if name in settings}
        known = {name: value for name, value in ahead.items() if name in settings}
        missing.append(NewTopic(generated, count, settings={"cleanup.policy": "delete"} | kept | known))
    elif future:
        _check_takes_the_future(generated, _settings(admin, generated))
    largest = _DEFAULT_MESSAGE_BYTES
    if counts[asked] is None:
        missing.append(NewTopic(asked, count))
    else:
        largest = int(_settings(admin, asked).get("max.message.bytes", largest))
    if counts[refused] is None:
        room = {"max.message.bytes": str(largest + DEAD_LETTER_HEADERS_BYTES)}
        missing.append(NewTopic(refused, count, settings=room))
    return missing


def _check_takes_the_future(topic: str, settings: Mapping[str, str]) -> None:
    """Raises `TopicError` when the broker would refuse or replace the times of generated records."""
    kind = settings.get("message.timestamp.type", "CreateTime")
    if kind != "CreateTime":
        raise TopicError(
            f"The topic {topic} has the message.timestamp.type {kind}: Kafka would replace the times of "
            "generated records. Set it to CreateTime, or name another topic in `outputs`."
        )
    ahead_ms = settings.get("message.timestamp.after.max.ms", AHEAD_MS)
    if ahead_ms != AHEAD_MS:
        raise TopicError(
            f"The topic {topic} takes no times further ahead than {ahead_ms} ms, and generated sequences go "
            f"on into the future: set its message.timestamp.after.max.ms to {AHEAD_MS}, or name another one "
            "in `outputs`."
        )


def _counts_of(admin: Any, source: str, outputs: Sequence[str]) -> tuple[dict[str, int | None], int]:
    """The partitions of these outputs, and of the input. Raises `TopicError` when it is not there, or when
    one of theirs is another number."""
    counts = _partition_counts(admin, [source, *outputs])
    count = counts[source]
    if count is None:
        raise TopicError(
            f"The input topic {source} does not exist: create it, or correct `inputs` or --input."
        )
    for topic in outputs:
        if counts[topic] not in (None, count):
            raise TopicError(
                f"The output topic {topic} has {counts[topic]} partitions and its input {source} has "
                f"{count}: delete {topic} and let it be made again, or name another one in `outputs`."
            )
    return counts, count


def _create(admin: Any, topics: Sequence[NewTopic]) -> list[str]:
    made: list[str] = []
    # Looked for first: who may not make topics is refused even one that is there, and who may not see a topic
    # would wait for it in vain.
    there = _partition_counts(admin, [topic.name for topic in topics]) if topics else {}
    for topic in topics:
        if there[topic.name]:
            continue
        options = {
            "num_partitions": topic.partitions,
            "replication_factor": topic.replication_factor,
            "configs": dict(topic.settings),
        }
        with translated(f"creating the topic {topic.name}"):
            answer = admin.create_topics({topic.name: options}, raise_errors=False)["topics"][0]
            kind = errors.for_code(answer["error_code"])
            if kind is errors.TopicAlreadyExistsError:
                continue  # another worker was faster
            if kind is errors.NoError:
                admin.wait_for_topics([topic.name])
            elif issubclass(kind, errors.AuthorizationError):
                raise PermissionDenied(
                    f"This user may not make the topic {topic.name}: grant it Create on the topic or on the "
                    "cluster, or have the topic made by one who may (streamgen topics)."
                )
            elif issubclass(kind, errors.RetriableError):
                raise kind(answer["error_message"])
            else:
                raise TopicError(f"Kafka did not make the topic {topic.name}: {answer['error_message']}")
        made.append(topic.name)
    return made


def _partition_counts(admin: Any, topics: Sequence[str]) -> dict[str, int | None]:
    """By topic; None: it does not exist."""
    counts: dict[str, int | None] = {}
    with translated(f"looking for the topics {', '.join(topics)}"):
        described = admin.describe_topics(list(topics))
    for topic in described:
        kind = errors.for_code(topic["error_code"])
        if issubclass(kind, errors.AuthorizationError):
            raise PermissionDenied(
                f"This user may not see the topic {topic['name']}: grant it Describe on the topic (which "
                "Read and Write imply)."
            )
        counts[topic["name"]] = (
            None if kind is errors.UnknownTopicOrPartitionError else len(topic["partitions"])
        )
    return counts


def _settings(admin: Any, topic: str) -> dict[str, str]:
    """A topic's settings in force. Raises `PermissionDenied`."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    for wait_s in (*KNOWN_AFTER_S, None):
        with translated(f"reading the settings of {topic}"):
            found = admin.describe_configs([resource], config_filter="all")["topic"][topic]
        if found or wait_s is None:
            break
        time.sleep(wait_s)  # a broker may not know yet a topic that was just made
    if not found:  # every topic has some; the client keeps a refusal to itself
        raise PermissionDenied(
            f"This user may not read the settings of the topic {topic}: grant it DescribeConfigs on it."
        )
    return {name: entry["value"] for name, entry in found.items() if entry["value"] is not None}


@contextmanager
def admin_client(kafka: KafkaConfig) -> Iterator[Any]:
    """The client for topics and groups. Raises `BrokerUnavailable` or `ConfigError`."""
    with translated(f"connecting to {kafka.bootstrap_servers}"):
        admin = KafkaAdminClient(**client_settings(kafka))
    try:
        yield admin
    finally:
        admin.close()
