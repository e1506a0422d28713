"""Who gets which partition: the client's cooperative-sticky assignor, with members that claim what is theirs.

The client's own goes on claiming the partitions that it was assigned last after its membership was lost. The
claims carry no generation, so the leader cannot tell them from those of the true owner, and may move a
partition without the round in which its owner gives it up (KIP-429): two members own it in one generation,
and the broker takes the offsets of both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor


class Assignor(CooperativeStickyAssignor):  # type: ignore[misc]  # the client is untyped
    """`lost` tells whether this process is no member of the group, or not yet; it is set before the group is
    joined. `generation` is the group's when the assignment that is in force here was made."""

    lost: Callable[[], bool]

    def metadata(self, topics: Any) -> Any:
        """What this member tells the leader when it joins."""
        if self.lost():
            self.member_assignment = None
        return super().metadata(topics)
