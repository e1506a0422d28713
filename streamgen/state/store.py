"""What the loop needs of a state store. Every store passes `tests/conformance/test_stores.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Checkpoint, LearnerState, Manifest


class TaskStore(Protocol):
    """The checkpoints of one task, claimed by its owner. Used from one thread at a time.

    `whole`: each checkpoint must be given all learners; otherwise those that changed since the last one.
    """

    whole: bool

    def read(self, at_most: int, topic_id: str = "") -> Checkpoint | None:
        """The newest whole checkpoint of that topic whose offset is at most `at_most`; None when there is
        none.

        Raises `StateError` when what is there is damaged beyond a fallback, foreign, or of an unknown
        version.
        """

    def write(
        self, manifest: Manifest, learners: Iterable[LearnerState], removed: Iterable[str | None]
    ) -> Manifest:
        """Store a checkpoint: all of it becomes visible at once, or nothing. Returns the sealed manifest.

        `learners` is consumed as it is written; what it raises is raised, and nothing is stored. Learners
        that are neither in it nor in `removed` stay as they are, unless the store is `whole`. The learners
        of the first checkpoint after `read` are relative to what `read` returned; when that was None, all
        are given, and what is stored of others is forgotten.

        Raises `RetryError` (nothing was stored), `Fenced` (another owner has claimed the task), or a
        `StopError`.
        """

    def close(self) -> None:
        """Give the claim up."""


class Store(Protocol):
    """Where an application's checkpoints are."""

    def claim(self, source: TopicPartition) -> TaskStore:
        """Take a task's checkpoints over: from here on no earlier owner's write succeeds.

        Raises `RetryError`, or a `StopError` such as `PermissionDenied`.
        """

    def close(self) -> None:
        """The worker ends: reads that are under way in other threads need not come to their end."""

    def sources(self) -> list[TopicPartition]:
        """The tasks that have a checkpoint."""

    def peek(self, source: TopicPartition) -> Checkpoint | None:
        """The newest checkpoint of a task that another may own: nothing is claimed."""
