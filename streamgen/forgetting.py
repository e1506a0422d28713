"""What an application forgets: its learners, to learn them again (rebuild), or everything (reset).

A rebuild changes no result that was published: the committed offsets stay, the next worker learns the
retained input in silence up to them and goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamgen.config import Config, InputConfig
from streamgen.kafka.groups import committed_offsets, delete_group, offsets_of, refuse_live
from streamgen.kafka.pins import KafkaPins, state_topic
from streamgen.kafka.topics import delete_topic, partition_count
from streamgen.kafka.transport import Offsets
from streamgen.positions import is_of, pinned_name
from streamgen.records import TopicPartition
from streamgen.state.places import forget, open_store, place


@dataclass(frozen=True, slots=True)
class Again:
    """A partition that is to be learned again: the records from `start` on, up to the committed offset in
    silence. `missing` were part of its history and are no longer retained."""

    source: TopicPartition
    start: int
    committed: int
    missing: int

    @property
    def records(self) -> int:
        return self.committed - self.start


def to_learn_again(config: Config) -> list[Again]:
    """What a rebuild means, by partition; those of which nothing was ever committed are left out.

    Raises `StateError` when workers are live.
    """
    refuse_live(config.kafka, config.application_id, "rebuild the state")
    if _state_topic_partitions(config) is None:
        return []  # it never ran; to look for pins would make the topic, with one partition
    pins = KafkaPins(config.kafka, config.application_id)
    with offsets_of(config) as known:
        return [again for one in config.inputs for again in _of_topic(one, pins, known)]


def rebuild(config: Config, plan: Sequence[Again]) -> list[TopicPartition]:
    """Forget the learners of the configuration's inputs and move where their history begins, as
    `to_learn_again` said. Returns the tasks whose checkpoints are gone.

    Interrupted, it is made again. Raises `StateError` when workers are live.
    """
    refuse_live(config.kafka, config.application_id, "rebuild the state")
    pins = KafkaPins(config.kafka, config.application_id)
    with offsets_of(config) as known:
        for topic in {again.source.topic for again in plan}:
            name = pinned_name(topic, known.topic_id(topic))
            before = pins.get(name, "start")
            moved = {str(one.source.partition): one.start for one in plan if one.source.topic == topic}
            if before | moved != before:
                pins.put(name, "start", before | moved)
    gone = checkpoints(config)
    forget(config, gone)
    return gone


def _of_topic(config: InputConfig, pins: KafkaPins, known: Offsets) -> list[Again]:
    topic_id = known.topic_id(config.topic)
    begun = pins.get(pinned_name(config.topic, topic_id), "start")
    if begun is None:
        return []
    found = []
    sources = known.partitions(config.topic)
    bounds = known.bounds(sources)
    for source, committed in known.committed(sources).items():
        if committed is None or not is_of(committed, topic_id):
            continue
        before = begun.get(str(source.partition), 0)
        # What retention took beyond the committed offset was never scored: for the worker to judge, not to
        # be passed over here.
        first = min(bounds[source][0], committed.offset)
        # Also further back than the history began, which for imported state is where it was imported.
        start = first if config.start == "earliest" else min(max(before, first), committed.offset)
        found.append(Again(source, start, committed.offset, max(0, start - before)))
    return found


def checkpoints(config: Config) -> list[TopicPartition]:
    """The tasks of the configuration's inputs that have a checkpoint."""
    if config.state.store == "kafka" and _state_topic_partitions(config) is None:
        return []
    topics = {one.topic for one in config.inputs}
    return [source for source in open_store(config).sources() if source.topic in topics]


def to_reset(config: Config) -> list[str]:
    """Everything that a reset deletes, in words."""
    found = []
    if _state_topic_partitions(config) is not None:
        holds = "where each input began, its features"
        holds += ", what was learned" if config.state.store == "kafka" else ""
        found.append(f"the topic {state_topic(config.application_id)}: {holds}")
    if config.state.store != "kafka":
        found += [f"the checkpoints of {source} in {place(config)}" for source in checkpoints(config)]
    committed = committed_offsets(config.kafka, config.application_id)
    for source, offset in sorted(committed.items()):
        found.append(f"the committed offset of {source}, which is {offset}")
    return found


def reset(config: Config) -> None:
    """Forget everything of the application: its state topic, its checkpoints, what its group has committed.
    Its outputs stay as they are. Interrupted, it is made again.

    Raises `StateError` when workers are live, `PermissionDenied`, or `RetryError`.
    """
    refuse_live(config.kafka, config.application_id, "reset it")
    # Whatever is left by one that was interrupted is a state that a worker can begin from.
    if config.state.store != "kafka":
        forget(config, checkpoints(config))
    delete_group(config.kafka, config.application_id)
    delete_topic(config.kafka, state_topic(config.application_id))


def _state_topic_partitions(config: Config) -> int | None:
    return partition_count(config.kafka, state_topic(config.application_id))
