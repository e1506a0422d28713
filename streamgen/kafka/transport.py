"""What the loop needs of Kafka, and no more. Every transport passes `tests/conformance/test_transport.py`.

A transport is one member of one consumer group with one transactional producer. It is used from one
thread. It never commits on its own and never seeks on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streamgen.records import OutputBatch, RawBatch, TopicPartition


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought. The changes of assignment happened before the batches were fetched."""

    batches: list[RawBatch] = field(default_factory=list)
    assigned: frozenset[TopicPartition] = frozenset()
    revoked: frozenset[TopicPartition] = frozenset()  # given up in order; a commit is no longer possible
    lost: frozenset[TopicPartition] = frozenset()  # taken away: what was not committed is another's now
    # Partitions whose next record is gone, and the first that there is; they deliver nothing until `seek`.
    gaps: Mapping[TopicPartition, int] = field(default_factory=dict)
    joined: bool = True  # False: the group has not said yet which partitions are this member's
    # Where the next fetch of each partition that was sought begins: beyond what was delivered, and beyond
    # what is never delivered (markers of transactions, aborted and compacted records).
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Committed:
    """A group's committed offset: the next record to read. `topic_id` tells of which topic, where several of
    one name were made one after another; empty: not known."""

    offset: int
    topic_id: str


OnRevoke = Callable[[frozenset[TopicPartition]], None]


class Offsets(Protocol):
    """Where topics begin and end, and how far the group is. Looking disturbs nobody."""

    def committed(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        """The group's committed offset of each partition, waiting for pending transactions; None: never."""

    def topic_id(self, topic: str) -> str:
        """What tells a topic from another one of its name, made later; empty where there is no such id."""

    def bounds(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """First retained offset and read_committed end (last stable offset) of each partition.

        Raises `BrokerUnavailable`, at once when one has no leader.
        """

    def offsets_at(self, sources: Iterable[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        """First offset whose Kafka timestamp is at or after `time_ms`; the end where there is none."""

    def partitions(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic, in order. Raises `TopicError` when it does not exist."""


class Transport(Offsets, Protocol):
    """One group member and its transactional producer.

    Whatever raises `Fenced`: the caller has no partition any more, and the next polls assign again those that
    the group leaves or gives this member.
    """

    def poll(self, timeout_s: float, max_records: int, on_revoke: OnRevoke | None = None) -> Polled:
        """Wait up to `timeout_s` for records. Call often: it also keeps the group membership alive.

        `on_revoke` is called with partitions before they are given up, maybe in another thread while this
        call waits for it: their offsets can be published inside it for the last time. It must not raise and
        may use no method but `publish` and `committed`; while it lasts, nobody else gets the partitions.

        A newly assigned partition is reported in `assigned` and delivers nothing until `seek` was
        called for it. The group metadata is captured with the records (KIP-447): `publish` uses it.

        Raises `Fenced` when the membership is void.
        """

    def seek(self, source: TopicPartition, offset: int) -> None:
        """Deliver from `offset` on; starts a newly assigned partition.

        Raises `Fenced` when the partition is gone meanwhile.
        """

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        """Deliver nothing from these partitions, whose position and membership are kept."""

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        """Undo `pause`."""

    def ends(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The read_committed end of each of the partitions that have a leader now."""

    def forget(self) -> None:
        """Own nothing any more: the next polls assign again what the group leaves this member."""

    def publish(
        self,
        outputs: Sequence[OutputBatch],
        offsets: Mapping[TopicPartition, int],
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        """One transaction: the outputs, and `offsets` (next to read) as the group's position. `topic_ids` say
        of which topic of each name they are (None: of those that there are now), see `Committed`.

        Returns when the commit is known. Raises `PublishAborted` (nothing is visible; call again with
        the same), `OutcomeUnknown` (ask `committed`), `Fenced` (drop the tasks), or a `StopError`.
        """

    def close(self) -> None:
        """Leave the group and end the producer; an open transaction is aborted first."""
