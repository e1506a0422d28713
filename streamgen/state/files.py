"""Checkpoints in files: a folder for each task, in it the newest checkpoint and the one before.

    <url>/<topic>-<partition>/<sequence>-<offset>.safetensors        see `state.stacked`

The newest has the highest sequence number, which goes on from what is there: object stores have no clock to
rely on, and a topic may be learned again from an earlier offset. Every checkpoint is whole in itself, and the
one before is kept until the next is whole: a damaged newest one falls back on it, with a warning.

Plain files cannot fence: two owners of a task at once may both write, and either's may be the newest. That
costs a longer replay and nothing else. Every checkpoint is one owner's state at one offset, whole and
checked, and it is restored only when its offset is committed; the results are exactly once because Kafka
fences those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import structlog

from streamgen.errors import RetryError, StateError
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Checkpoint, LearnerState, Manifest, usable
from streamgen.state.folder import Folder, open_folder
from streamgen.state.stacked import Damaged, Stack, decode

log = structlog.get_logger()

# Format version 1 had no sequence number: such a file must be found, to be refused by name.
_CHECKPOINT = re.compile(r"(?:(?P<sequence>[0-9]+)-)?(?P<offset>[0-9]+)\.safetensors")
_TASK = re.compile(r"(?P<topic>.+)-(?P<partition>[0-9]+)")
_TRIES = 5


class FileStore:
    """`Store` in files: a local folder, or any URL of fsspec (file://, memory://, s3://bucket/prefix).

    S3 needs the extra `s3`; credentials, region and the address of a compatible server come from where every
    client of S3 has them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...). The bucket must be there, and on other
    remote file systems the folder.

    Raises `MissingDependency` for a URL whose package is not installed, `ConfigError` for an unknown scheme.
    """

    def __init__(self, url: str | Path) -> None:
        self._folder = open_folder(url)

    def claim(self, source: TopicPartition) -> FileTaskStore:
        """Nobody is fenced (see the module), but what earlier owners left half written is removed."""
        folder = self._folder.inside(str(source))
        folder.clean()
        return FileTaskStore(source, folder)

    def close(self) -> None:
        """A file is read to its end."""

    def sources(self) -> list[TopicPartition]:
        """The tasks that have a checkpoint. Raises `StateError`, `RetryError`."""
        found = []
        for name in self._folder.names():
            if (task := _TASK.fullmatch(name)) and _newest_first(self._folder.inside(name)):
                found.append(TopicPartition(task["topic"], int(task["partition"])))
        return sorted(found)

    def version(self, source: TopicPartition) -> str | None:
        """File of the newest checkpoint; None when there is none. Raises `StateError`, `RetryError`."""
        return next(iter(_newest_first(self._folder.inside(str(source)))), None)

    def peek(self, source: TopicPartition) -> Checkpoint | None:
        """The newest whole checkpoint; None when there is none. Raises as `FileTaskStore.read` does."""
        found = _newest(self._folder.inside(str(source)), source)
        return None if found is None else found[1]


class FileTaskStore:
    """`TaskStore` in files."""

    whole = True

    def __init__(self, source: TopicPartition, folder: Folder) -> None:
        self._source, self._folder = source, folder
        self._before: str | None = None  # the checkpoint that this owner's state goes back to

    def read(self, at_most: int, topic_id: str = "") -> Checkpoint | None:
        """Raises `StateError` when what is there is of another version, or damaged with none before it, and
        `RetryError` when a remote store does not answer."""
        found = _newest(self._folder, self._source, at_most, topic_id)
        self._before = None if found is None else found[0]
        return None if found is None else found[1]

    def write(
        self, manifest: Manifest, learners: Iterable[LearnerState], removed: Iterable[str | None]
    ) -> Manifest:
        """Raises `StateError` when the place is full or may not be written, and `RetryError` when a remote
        store does not answer; what was there before is then still whole."""
        sealed, pieces = Stack(learners).encode(manifest)
        there = _newest_first(self._folder)
        sequence = _sequence(there[0]) + 1 if there else 1
        name = f"{sequence:012d}-{manifest.offset:020d}.safetensors"
        self._folder.write(name, pieces)
        # Also what this owner passed over: damaged, not committed, or of a topic that is no more.
        for old in there:
            if old not in (self._before, name):
                self._remove(old)
        self._before = name
        return sealed

    def close(self) -> None:
        """There is no claim to give up."""

    def _remove(self, name: str) -> None:
        try:
            self._folder.remove(name)
        except (StateError, RetryError) as error:
            # The new one is stored: a worker that may not delete goes on, and fills the place.
            log.warning("an old checkpoint could not be removed", file=name, reason=str(error))


def _newest(
    folder: Folder, source: TopicPartition, at_most: int | None = None, topic_id: str | None = None
) -> tuple[str, Checkpoint] | None:
    """The newest whole checkpoint that is usable, and its name."""
    for _ in range(_TRIES):
        try:
            return _look(folder, source, at_most, topic_id)
        except FileNotFoundError:
            continue  # its owner has written a newer one and removed it since the names were listed
    raise StateError(f"The checkpoints of {source} in {folder} change faster than they can be read.")


def _look(
    folder: Folder, source: TopicPartition, at_most: int | None, topic_id: str | None
) -> tuple[str, Checkpoint] | None:
    damaged: Damaged | None = None
    for name in _newest_first(folder):
        if at_most is not None and _offset(name) > at_most:
            continue
        path = f"{folder}/{name}"
        try:
            checkpoint = decode(folder.read(name), f"in {path}")
        except Damaged as error:
            log.warning("a checkpoint is passed over for the one before it", reason=str(error))
            damaged = damaged or error
            continue
        except StateError as error:
            raise StateError(f"{error} Or move {path} away.") from error
        manifest = checkpoint.manifest
        if manifest.source != source:
            raise StateError(f"The checkpoint in {path} is of {manifest.source}: move it away.")
        if at_most is None or topic_id is None or usable(manifest, at_most, topic_id):
            return name, checkpoint
    if damaged is not None:
        raise StateError(
            f"{damaged} There is no whole one before it: delete it to learn again from the topic."
        ) from damaged
    return None


def _newest_first(folder: Folder) -> list[str]:
    names = [name for name in folder.names() if _CHECKPOINT.fullmatch(name)]
    return sorted(names, key=lambda name: (_sequence(name), _offset(name)), reverse=True)


def _sequence(name: str) -> int:
    found = _CHECKPOINT.fullmatch(name)
    return int(found["sequence"] or 0) if found else 0


def _offset(name: str) -> int:
    found = _CHECKPOINT.fullmatch(name)
    return int(found["offset"]) if found else 0
