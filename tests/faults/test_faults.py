"""What happens to a network, a broker, a disk, a clock and a group: nothing lost, doubled or different.

The stories that kill a worker at a named place are in test_kill_points.py.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import points as at
import pytest
from proxy import END_TXN, PRODUCE, TXN_OFFSET_COMMIT
from stage import SESSION_MS, Stage

if TYPE_CHECKING:
    from application import Application

Play = Callable[..., "Application"]
pytestmark = pytest.mark.timeout(120)


def test_a_frozen_worker_is_replaced_by_one_that_freezes_and_both_come_back_as_zombies(
    play: Play, stage: Stage
) -> None:
    application = play()
    first = application.start(0, f"at 2 freeze @ {at.NOTHING_SENT}")
    stage.wait(lambda: first.said("fault: freeze"), 60, f"worker at {at.NOTHING_SENT!r}")
    second = application.start(1, f"at 2 freeze @ {at.OFFSETS_SENT}")
    stage.wait(lambda: second.said("fault: freeze"), 60, f"worker at {at.OFFSETS_SENT!r}")
    first.signal(signal.SIGCONT)
    time.sleep(SESSION_MS / 1000 + 1)
    second.signal(signal.SIGCONT)


def test_the_network_is_cut_in_the_middle_of_commits_and_is_slow_afterwards(play: Play, stage: Stage) -> None:
    application = play()
    aims = [("answer", END_TXN), ("half", END_TXN), ("request", END_TXN), ("answer", TXN_OFFSET_COMMIT)]
    for aim, kind in [*aims, ("answer", PRODUCE)]:
        stage.proxy(0).tell(f"aim {aim} {kind} 2")
        if not application.workers:
            application.start(0)
        hit = f"hit the {aim} of kind {kind}"
        stage.wait(partial(stage.proxy(0).said, hit), 60, f"cut: {hit}")
    stage.proxy(0).tell("slow 0.05")
    time.sleep(1)
    stage.proxy(0).tell("heal")


def test_one_of_two_workers_is_cut_off_and_comes_back(play: Play, stage: Stage) -> None:
    application = play()
    cut_off, other = application.start(0, f"at 2 hold 1 @ {at.OFFSETS_SENT}"), application.start(1)
    stage.wait(lambda: cut_off.said("fault: hold"), 60, "worker that is about to commit")
    stage.proxy(0).tell("swallow")
    time.sleep(SESSION_MS / 1000 + 2)
    stage.proxy(0).tell("heal")
    assert other.code is None


def test_the_broker_is_killed_while_a_commit_is_on_its_way(play: Play, stage: Stage) -> None:
    application = play()
    worker = application.start(0, f"at 2 hold 2 @ {at.COMMIT_SENT}")
    stage.wait(lambda: worker.said("fault: hold"), 60, "commit on its way")
    stage.broker.kill()
    stage.broker.start()


def test_a_worker_is_added_during_a_restore_and_the_restoring_one_is_killed(play: Play, stage: Stage) -> None:
    application = play()
    first = application.start(0, f"at 2 kill @ {at.CHECKPOINT_UNKNOWN}")
    assert first.wait(60) == -signal.SIGKILL
    restoring = application.start(0, *(f"at {n} hold 20 @ {at.RESTORING}" for n in range(1, 5)))
    stage.wait(lambda: restoring.said("fault: hold"), 60, "worker that restores")
    added = application.start(1)
    stage.wait(lambda: added.said("worker started"), 60, "second worker")
    time.sleep(1)  # for the group to rebalance
    restoring.signal(signal.SIGKILL)


def test_a_worker_is_killed_while_it_ends_in_order_beside_another(play: Play, stage: Stage) -> None:
    application = play()
    leaving = application.start(0, f"at 2 hold 1 @ {at.NOTHING_SENT}", f"at 1 kill @ {at.ENDING}")
    stage.wait(lambda: leaving.said("fault: hold"), 60, "worker at work")
    application.start(1)
    leaving.signal(signal.SIGTERM)
    assert leaving.wait(60) == -signal.SIGKILL


def test_the_clocks_step_while_it_works(play: Play, stage: Stage) -> None:
    application = play()
    worker = application.start(0, f"at 2 hold 0.2 @ {at.NOTHING_SENT}")
    stage.wait(lambda: worker.said("fault: hold"), 60, "worker at work")
    for wall, monotonic in ((-7200, 0), (90_000, 20), (-90_000, -1)):
        worker.tell(f"clock {wall} {monotonic}")
        time.sleep(0.4)


def test_the_disk_is_full_and_a_checkpoint_is_torn(play: Play, stage: Stage) -> None:
    application = play("files")
    worker = application.start(0, f"at 2 kill @ {at.CHECKPOINT_WRITTEN}", "disk full")
    stage.wait(lambda: worker.said("no space left"), 60, "checkpoint that does not fit")
    worker.tell("disk free")
    stage.wait(lambda: worker.code is not None, 60, "end of the worker")
    worker = application.start(0, f"at 8 kill @ {at.BEFORE_CHECKPOINT}")
    stage.wait(lambda: worker.code is not None, 60, "end of the worker")
    assert application.tear()
    application.start(0)
