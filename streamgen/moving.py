"""An application's state to a folder of files and back: `state export | import` and `run --from-state`.

What an import changes is invisible until the pin `start` of the topic says the imported offset: a checkpoint
beyond where the history begins is not used. So an import that was interrupted changed nothing, and is made
again. The pin `imported` is written before it, and tells a restarted `run --from-state` that the state that
it finds is the one it has brought.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import structlog

from streamgen.config import Config, InputConfig
from streamgen.errors import ConfigError, Fenced, StateError
from streamgen.kafka.groups import offsets_of, refuse_live
from streamgen.kafka.pins import KafkaPins
from streamgen.kafka.topics import ensure_state_topic
from streamgen.kafka.transport import Offsets
from streamgen.opening import differing
from streamgen.positions import is_of, pinned_name, resolve
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Manifest
from streamgen.state.places import open_store, place, put
from streamgen.state.store import Store

log = structlog.get_logger()

ATTEMPTS = 5  # of workers that start at once, each with the same state to bring


def export_state(config: Config, directory: Path) -> Iterator[Manifest]:
    """Write the newest checkpoint of every task into a folder; a running worker is not disturbed.

    Raises `StateError` when there is none, or the folder holds state of other tasks, and `ConfigError` when
    the folder is the store itself.
    """
    from streamgen.state.files import FileStore

    if config.state.store != "kafka" and _same(config.state.store, directory):
        raise ConfigError(f"{directory} is where the application keeps its state: export to another folder.")
    store, target = open_store(config), FileStore(directory)
    sources = store.sources()
    if not sources:
        raise StateError(f"There is no checkpoint in {place(config)} yet: the first comes within minutes.")
    others = set(target.sources()) - set(sources)
    if others:
        raise StateError(
            f"{directory} holds state of {_listed(others)}, which is not this application's: choose another "
            "folder."
        )
    for source in sources:
        checkpoint = store.peek(source)
        if checkpoint is not None:
            yield put(target, checkpoint, checkpoint.manifest)


def import_state(
    config: Config, directory: Path, over: bool = False, topics: Iterable[str] | None = None
) -> list[Manifest]:
    """Store the state of a folder as the application's own, to go on from it: of all its tasks, or of those
    of `topics`. Learning goes on exactly at each checkpoint's offset, and so does publishing where the group
    has committed nothing; `publish_from` may put it off.

    `over`: also where a task has a checkpoint already. Nothing is stored unless all can be. Raises
    `StateError` for state that this application cannot go on from, and when workers are live.
    """
    from streamgen.state.files import FileStore

    refuse_live(config.kafka, config.application_id, "import state")
    origin = FileStore(directory)
    sources = [source for source in origin.sources() if topics is None or source.topic in topics]
    if not sources:
        raise StateError(f"There is no state in {directory}: export some first (streamgen state export).")
    ensure_state_topic(config)
    store, pins = open_store(config), KafkaPins(config.kafka, config.application_id)
    if not over and (there := set(sources) & set(store.sources())):
        raise StateError(
            f"The application {config.application_id} has a checkpoint of {_listed(there)} already: choose "
            "another application_id, or replace what it has learned (--replace)."
        )
    with offsets_of(config) as known:
        one = _Import(config, origin, store, pins, known)
        manifests = [one.checked(source) for source in sources]
        for topic in {source.topic for source in sources}:
            one.announce(topic, manifests)
        stored = [one.store(manifest) for manifest in manifests]
        for topic in {source.topic for source in sources}:
            one.switch(topic, manifests)
    return stored


def start_from(config: Config, directory: Path) -> None:
    """Import a folder's state unless this application has brought its own from one before.

    Raises `StateError` when it has state that was not imported, and as `import_state` does.
    """
    for attempt in range(ATTEMPTS):
        left = _left_to_import(config)
        if left is not None and not left:
            log.info("the state was imported before; the application goes on from its own", ignored=directory)
            return
        try:
            manifests = import_state(config, directory, over=left is not None, topics=left)
        except (Fenced, StateError):
            time.sleep(random.uniform(0, 0.5 * (attempt + 1)))
            # Another worker that was started at the same time may have brought it, or be about to.
            if attempt == ATTEMPTS - 1 or _left_to_import(config) == left:
                raise
        else:
            for manifest in manifests:
                log.info("state imported", source=str(manifest.source), offset=manifest.offset)
            return


def _left_to_import(config: Config) -> set[str] | None:
    """The inputs whose import was begun and is not done; None: none was ever begun. Raises `StateError` when
    the application has begun by itself."""
    ensure_state_topic(config)
    pins = KafkaPins(config.kafka, config.application_id)
    begun, announced = set(), set()
    with offsets_of(config) as known:
        for source in config.inputs:
            pinned = pins.all(pinned_name(source.topic, known.topic_id(source.topic)))
            committed = known.committed(known.partitions(source.topic)).values()
            if "start" in pinned or any(one is not None for one in committed):
                begun.add(source.topic)
            if "imported" in pinned:
                announced.add(source.topic)
    if begun and not begun & announced:
        raise StateError(
            f"The application {config.application_id} has state of its own for {_listed(begun)}: leave "
            "--from-state out to go on from it, or choose another application_id."
        )
    return announced - begun if announced else None


class _Import:
    """One import: the folder's side and the application's."""

    def __init__(self, config: Config, origin: Store, store: Store, pins: KafkaPins, known: Offsets) -> None:
        self._config, self._origin, self._store = config, origin, store
        self._pins, self._known = pins, known
        self._inputs = {one.topic: one for one in config.inputs}

    def checked(self, source: TopicPartition) -> Manifest:
        """The manifest to be stored. Raises `StateError`."""
        checkpoint = self._origin.peek(source)
        if checkpoint is None:
            raise StateError(f"The state of {source} was removed while it was being read.")
        manifest = checkpoint.manifest
        reason = self._objection(manifest)
        if reason:
            raise StateError(f"The state of {source} at offset {manifest.offset} is not imported: {reason}")
        return replace(manifest, topic_id=self._known.topic_id(source.topic))

    def announce(self, topic: str, manifests: Iterable[Manifest]) -> None:
        self._pins.put(self._name(topic), "imported", _offsets(topic, manifests))

    def store(self, manifest: Manifest) -> Manifest:
        checkpoint = self._origin.peek(manifest.source)
        if checkpoint is None or checkpoint.manifest.checksum != manifest.checksum:
            raise StateError(f"The state of {manifest.source} was changed while it was imported: try again.")
        return put(self._store, checkpoint, manifest)

    def switch(self, topic: str, manifests: Iterable[Manifest]) -> None:
        """From here on the application's history is the imported one."""
        name, config = self._name(topic), self._inputs[topic]
        mine = [manifest for manifest in manifests if manifest.source.topic == topic]
        if config.features is None:
            self._pins.put_if_absent(name, "features", list(mine[0].features))
        before = self._pins.get(name, "start")
        start = before or resolve(self._known, topic, "start", config.start, config.timestamp.timezone)
        offsets = _offsets(topic, mine).items()
        moved = start | {p: offset for p, offset in offsets if self._committed(topic, p) is None}
        if moved != before:
            self._pins.put(name, "start", moved)

    def _objection(self, manifest: Manifest) -> str:
        """Why the application cannot go on from there; empty: it can."""
        source, config = manifest.source, self._inputs.get(manifest.source.topic)
        if config is None:
            return f"{source.topic} is no input of the configuration. Add it, or remove its folder."
        differ = differing(manifest, config, self._config.seed)
        if differ:
            return f"it was learned with another configuration: {differ}. Configure the same."
        if source not in self._known.partitions(source.topic):
            return f"{source.topic} has no partition {source.partition}."
        if manifest.topic_id not in ("", self._known.topic_id(source.topic)):
            return (
                f"it was learned from another topic of the name {source.topic}, deleted since or in another "
                "cluster, whose offsets mean nothing here. Learn this one from its start."
            )
        return self._objection_to_offset(manifest, config)

    def _objection_to_offset(self, manifest: Manifest, config: InputConfig) -> str:
        source, offset = manifest.source, manifest.offset
        first, end = self._known.bounds([source])[source]
        if offset > end:
            return f"{source} ends at offset {end}."
        if offset < first and config.on_log_gap == "fail":
            return (
                f"{source} begins at offset {first} now, and the records between are lost to it. Set "
                "`on_log_gap: continue` to go on without them."
            )
        committed = self._committed(source.topic, str(source.partition))
        if committed is not None and offset > committed:
            return (
                f"the group has committed offset {committed}, before it. Choose another application_id, or "
                "reset this one (streamgen state reset)."
            )
        pinned = self._pins.get(self._name(source.topic), "features")
        if config.features is None and pinned is not None and tuple(pinned) != manifest.features:
            return f"its features are {list(manifest.features)}, and the application's {pinned}."
        return ""

    def _committed(self, topic: str, partition: str) -> int | None:
        source = TopicPartition(topic, int(partition))
        found = self._known.committed([source])[source]
        return found.offset if found is not None and is_of(found, self._known.topic_id(topic)) else None

    def _name(self, topic: str) -> str:
        return pinned_name(topic, self._known.topic_id(topic))


def _offsets(topic: str, manifests: Iterable[Manifest]) -> dict[str, int]:
    return {str(one.source.partition): one.offset for one in manifests if one.source.topic == topic}


def _listed(names: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, names)))


def _same(store: str, directory: Path) -> bool:
    return Path(store.removeprefix("file://")).resolve() == directory.resolve()
