"""Errors, named for how one recovers from them.

    StreamgenError
    ├── RetryError            the same call may be made again, nothing was changed
    │   ├── PublishAborted        the transaction was aborted; its results are kept and sent again
    │   │   └── Rebalanced            because the group moves on: the next poll tells what is still ours
    │   └── BrokerUnavailable     no broker answered in time
    ├── OutcomeUnknown        a commit was sent and its answer lost: read the committed offsets first
    ├── ReopenError           drop the tasks without writing, rejoin the group, open them again
    │   └── Fenced                another worker owns the partitions or the transactional id
    ├── TaskError             drop one task without writing, and open it again
    │   ├── StoreFenced           another worker has claimed its checkpoints
    │   ├── TopicRemade           its topic was deleted and made again: what it holds is of the old one
    │   └── LearnerFailed         its learner raised: its state is not to be used
    └── StopError             a person must act; the message says what is wrong, where, and what to do
        ├── ConfigError           the configuration
        ├── InputError            a file or a topic's content that cannot be used as asked
        ├── TopicError            a topic is missing, compacted, or has the wrong partition count
        ├── PermissionDenied      the broker refused a right
        ├── StateError            a checkpoint is damaged, foreign or of an unknown version
        ├── LogGap                the topic no longer has records that are needed
        └── MissingDependency     an optional package is not installed

Every message is one sentence or two: what is wrong, where, and what to do. The command line prints
it without a traceback and exits with a code other than 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamgen.records import TopicPartition


class StreamgenError(Exception):
    """Base of every error that streamgen raises on purpose."""


class RetryError(StreamgenError):
    """Nothing was changed; the same call may be made again."""


class PublishAborted(RetryError):
    """The transaction was aborted: no output and no offset of it is visible."""


class Rebalanced(PublishAborted):
    """The group moved on since the records were polled: poll, for so a rebalance comes to its end."""


class BrokerUnavailable(RetryError):
    """No broker answered in time."""


class OutcomeUnknown(StreamgenError):
    """A commit may or may not have happened; the committed offsets tell."""


class ReopenError(StreamgenError):
    """The worker's claim on its tasks is void: drop them without writing, rejoin, open again."""


class Fenced(ReopenError):
    """Another worker owns the partitions or the transactional id now."""


class TaskError(StreamgenError):
    """One task's state is void: drop it without writing, and open it again."""

    def __init__(self, source: TopicPartition, message: str) -> None:
        super().__init__(message)
        self.source = source


class StoreFenced(TaskError):
    """Another worker has claimed the task's checkpoints."""


class TopicRemade(TaskError):
    """The task's topic was deleted and made again: what it has learned is of the old one."""


class LearnerFailed(TaskError):
    """The learner raised at the records `first` … `end` − 1: its state may be half changed. `alone`: it is a
    record that was tried by itself, for a learner had failed at it among others."""

    def __init__(self, source: TopicPartition, first: int, end: int, reason: str, alone: bool) -> None:
        super().__init__(
            source, f"The learner failed at the records {first} to {end - 1} of {source}: {reason}"
        )
        self.first, self.end, self.reason, self.alone = first, end, reason, alone


class StopError(StreamgenError):
    """A person must act before it is worth trying again."""


class ConfigError(StopError):
    """The configuration cannot be used."""


class InputError(StopError):
    """A file or a topic's content cannot be used as asked."""


class TopicError(StopError):
    """A topic is missing, compacted, or has the wrong partition count."""


class PermissionDenied(StopError):
    """The broker refused a right."""


class StateError(StopError):
    """A checkpoint is damaged, foreign or of an unknown version."""


class LogGap(StopError):
    """The topic no longer has records that are needed: retention took them, or it was made anew."""


class MissingDependency(StopError):
    """An optional package is not installed."""
