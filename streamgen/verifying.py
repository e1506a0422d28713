"""Whether a worker could go on from what is stored: `streamgen state verify`."""

from __future__ import annotations

from collections.abc import Iterator

from streamgen.config import Config
from streamgen.errors import StateError
from streamgen.kafka.groups import offsets_of
from streamgen.kafka.transport import Offsets
from streamgen.opening import check_fingerprint
from streamgen.positions import is_of
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Manifest
from streamgen.state.places import damaged, open_store


def verify(config: Config) -> Iterator[tuple[TopicPartition, Manifest | None, list[str]]]:
    """Each task with a checkpoint: its newest whole one, and a sentence for each thing that is wrong.

    Everything is read and every checksum computed; nothing is claimed or changed. Raises `StateError` when
    there is no store, or what is in it is not streamgen's.
    """
    store = open_store(config)
    sources = store.sources()
    with offsets_of(config) as known:
        for source in sources:
            problems = damaged(config, source)
            try:
                checkpoint = store.peek(source)
            except StateError:
                checkpoint = None  # that is said already
            manifest = None if checkpoint is None else checkpoint.manifest
            if manifest is not None:
                problems += _problems(manifest, config, known)
            yield source, manifest, problems


def _problems(manifest: Manifest, config: Config, known: Offsets) -> Iterator[str]:
    source = manifest.source
    one = next((one for one in config.inputs if one.topic == source.topic), None)
    if one is None:
        return  # an input that was taken out: nobody will open it
    try:
        check_fingerprint(manifest, one, config.seed)
    except StateError as error:
        yield str(error)
    topic_id = known.topic_id(source.topic)
    if manifest.topic_id != topic_id:
        yield f"The state of {source} is of another topic of that name, which is gone: it will not be used."
        return
    committed = known.committed([source])[source]
    first, _ = known.bounds([source])[source]
    if committed is not None and is_of(committed, topic_id) and manifest.offset > committed.offset:
        yield (
            f"The state of {source} is at offset {manifest.offset}, beyond the committed {committed.offset}: "
            "it will not be used. Somebody has set the group's offsets back; set them to the state's, or "
            "learn again (streamgen state rebuild)."
        )
    if manifest.offset < first:
        yield (
            f"The state of {source} is at offset {manifest.offset}, and the topic begins at {first} now: the "
            "records between cannot be learned (see on_log_gap)."
        )
