"""A task is opened in the background: its checkpoints are claimed, the newest is read, its learners restored.

So the partitions that are restored already go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from streamgen.config import InputConfig
from streamgen.errors import StateError, StopError, StreamgenError
from streamgen.kafka.pins import Pins
from streamgen.learners.task import Task
from streamgen.positions import Begun
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Manifest
from streamgen.state.store import Store, TaskStore

MOST_FAILED = 100  # records of a partition whose learner failed


@dataclass(frozen=True, slots=True)
class Opened:
    """A task as its checkpoint left it; without one there is no manifest, and no task unless its features are
    known."""

    begun: Begun
    store: TaskStore
    failed: dict[int, str]  # records whose learner failed: offsets, and how
    task: Task | None
    manifest: Manifest | None

    @property
    def position(self) -> int:
        """The next record to learn."""
        if self.manifest is not None:
            return self.manifest.offset
        # Without features no record was usable yet: there is nothing to learn again.
        return self.begun.start if self.task is not None else max(self.begun.start, self.begun.committed)


class Opening:
    """Opens tasks, each in a call of `background`."""

    def __init__(self, store: Store, seed: int, device: str, background: Executor) -> None:
        self._store, self._seed, self._device, self._background = store, seed, device, background
        self._begun: dict[TopicPartition, Future[Opened]] = {}

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._begun)

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, source: TopicPartition, config: InputConfig, begun: Begun, pins: Pins) -> None:
        """Begin to open a task."""
        self._begun[source] = self._background.submit(self._open, source, config, begun, pins)

    def done(self) -> Iterator[tuple[TopicPartition, Future[Opened]]]:
        """The tasks that are open now, or could not be opened: `result` raises why. Each is given once."""
        for source in [source for source, future in self._begun.items() if future.done()]:
            yield source, self._begun.pop(source)

    def forget(self, source: TopicPartition) -> None:
        """The partition is another's meanwhile."""
        future = self._begun.pop(source, None)
        if future is not None and not future.cancel():
            future.add_done_callback(_close)

    def _open(self, source: TopicPartition, config: InputConfig, begun: Begun, pins: Pins) -> Opened:
        # Before the read: what an earlier owner has under way is ended, and nothing of it comes after.
        store = self._store.claim(source)
        try:
            checkpoint = store.read(begun.committed, begun.topic_id)
            pinned = pins.all(begun.topic)
            failed = _failed(source, pinned)
            features = tuple(config.features or pinned.get("features") or ())
            if checkpoint is None:
                task = Task(source, config, features, self._seed, self._device) if features else None
                return Opened(begun, store, failed, task, None)
            manifest = checkpoint.manifest
            check_fingerprint(manifest, config, self._seed)
            task = Task(source, config, manifest.features, self._seed, self._device)
            task.restore(manifest.facts, checkpoint.learners)
            return Opened(begun, store, failed, task, manifest)
        except BaseException:
            store.close()
            raise


def failed_pin(partition: int, offset: int) -> str:
    """Name of the pin of a record that its learner failed at."""
    return f"failed/{partition}/{offset}"


def _failed(source: TopicPartition, pinned: Mapping[str, Any]) -> dict[int, str]:
    """Raises `StopError` when there are so many that the fault is not the records'."""
    prefix = failed_pin(source.partition, 0)[:-1]
    facts = [fact for name, fact in pinned.items() if name.startswith(prefix)]
    if len(facts) > MOST_FAILED:
        raise StopError(
            f"The learner of {source} has failed at {len(facts)} records, the last time with: "
            f"{facts[-1]['detail']}. That is a defect of streamgen or of this machine, not of the records: "
            "report it; the records are in the dead-letter topic."
        )
    return {int(fact["offset"]): str(fact["detail"]) for fact in facts}


def check_fingerprint(manifest: Manifest, config: InputConfig, seed: int) -> None:
    """Raises `StateError` when the state was learned with another configuration."""
    differ = differing(manifest, config, seed)
    if differ:
        raise StateError(
            f"The state of {manifest.source} was learned with another configuration: {differ}. "
            "Change it back; or learn again from the retained input (streamgen state rebuild); or choose "
            "another application_id; or forget everything (streamgen state reset)."
        )


def differing(manifest: Manifest, config: InputConfig, seed: int) -> str:
    """The fields of what changes learning that the state was not learned with; empty: there are none."""
    features = tuple(config.features or manifest.features)
    if config.fingerprint(seed, features) == manifest.fingerprint:
        return ""
    before = InputConfig.model_validate(manifest.input).learning(manifest.seed, manifest.features)
    fields = [
        f"{name} (was {was!r}, is {now!r})"
        for name, was, now in _differences(before, config.learning(seed, features))
    ]
    return ", ".join(fields) or "its defaults"


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    found = []
    for name in sorted(before.keys() | now.keys()):
        was, is_ = before.get(name), now.get(name)
        if isinstance(was, dict) and isinstance(is_, dict):
            found += _differences(was, is_, f"{prefix}{name}.")
        elif was != is_:
            found.append((f"{prefix}{name}", was, is_))
    return found


def _close(future: Future[Opened]) -> None:
    try:
        future.result().store.close()
    except StreamgenError:
        return  # it was never open
