"""A state store in memory, and a background that works at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from streamgen.errors import Fenced, StateError, StreamgenError
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import (
    Checkpoint,
    LearnerState,
    Manifest,
    Tally,
    decode_fields,
    decode_manifest,
    encode_fields,
    encode_manifest,
    usable,
)

T = TypeVar("T")


@dataclass(slots=True)
class _Kept:
    """What is stored of one task, in bytes, and who may write it."""

    manifest: bytes | None = None
    learners: dict[str | None, bytes] = field(default_factory=dict)
    owner: object = None


class MemoryStore:
    """`Store` in memory; like the one in Kafka it takes what changed, and fences earlier owners.

    `failures` are raised by the next writes, one each; None lets one through.
    """

    def __init__(self) -> None:
        self._kept: dict[TopicPartition, _Kept] = {}
        self.failures: list[StreamgenError | None] = []
        self.written: list[tuple[TopicPartition, int, int]] = []  # task, offset, learners given

    def claim(self, source: TopicPartition) -> MemoryTaskStore:
        return MemoryTaskStore(self, self._kept.setdefault(source, _Kept()), source)

    def close(self) -> None:
        """No read takes long."""

    def sources(self) -> list[TopicPartition]:
        return sorted(source for source, kept in self._kept.items() if kept.manifest is not None)

    def version(self, source: TopicPartition) -> str | None:
        kept = self._kept.get(source, _Kept())
        return None if kept.manifest is None else kept.manifest.decode()

    def peek(self, source: TopicPartition) -> Checkpoint | None:
        kept = self._kept.get(source, _Kept())
        if kept.manifest is None:
            return None
        where = f"of {source} in memory"
        manifest = decode_manifest(kept.manifest, where)
        learners = {key: decode_fields(data, where) for key, data in kept.learners.items()}
        Tally.of(learners).check(manifest, where)
        return Checkpoint(manifest, learners)


class MemoryTaskStore:
    """`TaskStore` in memory."""

    whole = False

    def __init__(self, store: MemoryStore, kept: _Kept, source: TopicPartition) -> None:
        self._store, self._kept, self._source = store, kept, source
        self._forget = self._read = False
        kept.owner = self

    def read(self, at_most: int, topic_id: str = "") -> Checkpoint | None:
        self._read, checkpoint = True, self._store.peek(self._source)
        self._forget = checkpoint is None or not usable(checkpoint.manifest, at_most, topic_id)
        return None if self._forget else checkpoint

    def write(
        self, manifest: Manifest, learners: Iterable[LearnerState], removed: Iterable[str | None]
    ) -> Manifest:
        if not self._read:
            raise StateError(f"The state of {self._source} was not read before it is written.")
        stored = {} if self._forget else dict(self._kept.learners)
        for key in removed:
            stored.pop(key, None)
        given = {learner.key: encode_fields(learner.fields) for learner in learners}
        stored |= given
        failure = self._store.failures.pop(0) if self._store.failures else None
        if failure is not None:
            raise failure
        if self._kept.owner is not self:
            raise Fenced(f"The state of {self._source} has another owner.")
        decoded = {key: decode_fields(data, "in memory") for key, data in stored.items()}
        sealed = Tally.of(decoded).seal(manifest)
        self._kept.manifest, self._kept.learners = encode_manifest(sealed), stored
        self._forget = False
        self._store.written.append((self._source, manifest.offset, len(given)))
        return sealed

    def close(self) -> None:
        """Nothing is held."""


class Inline(Executor):
    """Does what it is given at once, in the caller's thread: nothing depends on threads then."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # the caller of `result` gets it, as from a thread
            future.set_exception(error)
        return future
