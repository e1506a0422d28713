"""Workers are killed at named places, one after the other: nothing lost, nothing doubled, nothing different.

Each is killed at the first place of its story that it comes to; its successor goes on to the next.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import points as at
import pytest

if TYPE_CHECKING:
    from application import Application

Play = Callable[..., "Application"]

STORIES = [
    [(at.PINNING, 2), (at.ASSIGNED, 1), (at.NOTHING_SENT, 2)],
    [(at.HALF_SENT, 2), (at.OFFSETS_NOT_SENT, 2), (at.OFFSETS_SENT, 2)],
    [(at.COMMIT_SENT, 2), (at.COMMIT_UNKNOWN, 2), (at.REPLAYING, 2)],
    [(at.BEFORE_CHECKPOINT, 2), (at.IN_CHECKPOINT, 2), (at.RESTORING, 1)],
    [(at.CHECKPOINT_WRITTEN, 2), (at.RESTORED, 2), (at.CHECKPOINT_UNKNOWN, 2)],
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("story", STORIES, ids=[" / ".join(point for point, _ in story) for story in STORIES])
def test_workers_are_killed(play: Play, story: list[tuple[str, int]]) -> None:
    # Without a checkpoint there is certainly something to replay.
    application = play(checkpoints=(at.REPLAYING, 2) not in story)
    for point, passage in story:
        worker = application.start(0, f"at {passage} kill @ {point}")
        assert worker.wait(60) == -signal.SIGKILL
        assert worker.said(f"fault: kill at {point!r}")
    application.start(0)
