"""A copy of a task's state that is made while the task goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from streamgen.state.checkpoint import LearnerState


class Snapshot:
    """A task's state at one offset, copied little by little while the task goes on.

    A learner is copied when its turn comes, or before a record changes it: copy on write. So the stream
    never waits for a whole copy, and the copies are the state at `offset`, bit by bit.
    """

    def __init__(
        self,
        offset: int,
        facts: Mapping[str, Any],
        keys: Iterable[str | None],
        removed: Iterable[str | None],
        copy: Callable[[str | None], LearnerState],
    ) -> None:
        self.offset, self.facts, self.removed = offset, facts, frozenset(removed)
        self.keys = tuple(keys)  # whose learners are part of it
        self._left = dict.fromkeys(self.keys)
        self._copy = copy
        self._early: list[LearnerState] = []  # copied because they were about to change

    @property
    def done(self) -> bool:
        """Whether every learner was taken."""
        return not self._left and not self._early

    def before(self, keys: Iterable[str | None]) -> None:
        """These learners are about to change."""
        for key in keys:
            if key in self._left:
                del self._left[key]
                self._early.append(self._copy(key))

    def take(self, count: int) -> list[LearnerState]:
        """Up to `count` more learners."""
        taken, self._early = self._early[:count], self._early[count:]
        while self._left and len(taken) < count:
            taken.append(self._copy(self._left.popitem()[0]))
        return taken
