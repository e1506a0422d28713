"""The faults: each is a little story that acts on a scene and waits in between (it yields seconds).

So two of them can happen at once: whoever runs them takes turns.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator

import points as at
from proxy import ADD_OFFSETS, END_TXN, JOIN_GROUP, PRODUCE, SYNC_GROUP, TXN_OFFSET_COMMIT
from scene import Scene
from stage import SESSION_MS

Fault = Callable[[Scene], Iterator[float]]

AT_WORK = (
    at.NOTHING_SENT, at.HALF_SENT, at.OFFSETS_NOT_SENT, at.OFFSETS_SENT, at.COMMIT_SENT, at.COMMIT_UNKNOWN,
    at.BEFORE_CHECKPOINT, at.IN_CHECKPOINT, at.CHECKPOINT_WRITTEN, at.CHECKPOINT_UNKNOWN,
)  # fmt: skip
AT_START = (at.ASSIGNED, at.RESTORING, at.RESTORED, at.REPLAYING)
PATIENCE_S = 8.0  # for a place that is not passed
REQUESTS = {
    END_TXN: "EndTxn", TXN_OFFSET_COMMIT: "TxnOffsetCommit", ADD_OFFSETS: "AddOffsetsToTxn",
    PRODUCE: "Produce", JOIN_GROUP: "JoinGroup", SYNC_GROUP: "SyncGroup",
}  # fmt: skip


def kill_at_a_point(scene: Scene) -> Iterator[float]:
    """kill -9 of a worker at a named place of its work."""
    slot = yield from _a_worker(scene)
    point, passage = scene.rng.choice(AT_WORK), scene.rng.randint(1, 3)
    scene.worker(slot).tell(f"at {passage} kill @ {point}")
    yield from _until_dead(scene, slot, point)
    yield scene.rng.choice((0.0, 0.0, 1.0))
    scene.start(slot)
    scene.give(slot)


def kill_as_it_starts(scene: Scene) -> Iterator[float]:
    """kill -9 of a worker, and of its successor at a named place of its start."""
    slot = yield from _a_worker(scene)
    scene.say(f"kill -9 worker-{slot}")
    scene.kill(slot)
    point = scene.rng.choice(AT_START)
    scene.start(slot, f"at {scene.rng.randint(1, 2)} kill @ {point}")
    yield from _until_dead(scene, slot, point)
    scene.start(slot)
    scene.give(slot)


def kill_at_any_moment(scene: Scene) -> Iterator[float]:
    """kill -9 of a worker at any moment."""
    slot = yield from _a_worker(scene)
    scene.say(f"kill -9 worker-{slot}")
    scene.kill(slot)
    yield scene.rng.choice((0.0, 0.5, 3.0))
    scene.start(slot)
    scene.give(slot)


def kill_as_it_ends(scene: Scene) -> Iterator[float]:
    """SIGTERM of a worker, and kill -9 while it ends in order."""
    slot = yield from _a_worker(scene)
    scene.worker(slot).tell(f"at 1 kill @ {at.ENDING}")
    yield 0.1
    scene.worker(slot).signal(signal.SIGTERM)
    yield from _until_dead(scene, slot, at.ENDING)
    scene.start(slot)
    scene.give(slot)


def kill_in_a_rebalance_in_a_restore(scene: Scene) -> Iterator[float]:
    """kill -9 of a worker that restores, while the group rebalances."""
    slot = yield from _a_worker(scene)
    scene.say(f"kill -9 worker-{slot}; its successor restores slowly while another worker comes or goes")
    scene.kill(slot)
    worker = scene.start(slot, *(f"at {n} hold 20 @ {at.RESTORING}" for n in range(1, 5)))
    for _ in range(int(PATIENCE_S / 0.2)):
        if worker.said("fault: hold"):
            break
        yield 0.2
    other = 2 if slot != 2 else 1
    if other not in scene.held:
        _toggle(scene, other)
    yield 1.5
    what = "as it restores" if worker.said("fault: hold") else "which found nothing to restore"
    scene.say(f"kill -9 worker-{slot}, {what}")
    scene.kill(slot)
    scene.start(slot)
    scene.give(slot)


def freeze(scene: Scene) -> Iterator[float]:
    """SIGSTOP of a worker past the session timeout, then SIGCONT."""
    slot = yield from _a_worker(scene)
    point = scene.rng.choice((None, at.NOTHING_SENT, at.OFFSETS_SENT, at.COMMIT_SENT, at.CHECKPOINT_WRITTEN))
    if point is None:
        scene.worker(slot).signal(signal.SIGSTOP)
        scene.say(f"SIGSTOP worker-{slot}")
    else:
        scene.worker(slot).tell(f"at 1 freeze @ {point}")
        for _ in range(int(PATIENCE_S / 0.2)):
            if scene.worker(slot).said(f"fault: freeze at {point!r}") or not scene.lives(slot):
                break
            yield 0.2
        scene.say(f'SIGSTOP worker-{slot} at "{point}"')
    yield SESSION_MS / 1000 + scene.rng.uniform(0.2, 3)
    scene.say(f"SIGCONT worker-{slot}")
    scene.worker(slot).signal(signal.SIGCONT)
    scene.give(slot)


def kill_the_broker(scene: Scene) -> Iterator[float]:
    """kill -9 of the broker, restarted on its data."""
    while scene.broker_held:
        yield 0.2
    scene.broker_held = True
    scene.say("kill -9 the broker")
    scene.stage.broker.kill()
    yield scene.rng.choice((0.0, 0.5, 2.0))
    scene.stage.broker.start()
    scene.say("the broker answers again")
    scene.broker_held = False


def come_or_go(scene: Scene) -> Iterator[float]:
    """A worker is added, or removed in order."""
    slot = 2
    while slot in scene.held:
        yield 0.2
    _toggle(scene, slot)


def cut(scene: Scene) -> Iterator[float]:
    """The network before a worker is cut: connections are closed, or nothing comes through."""
    slot = yield from _a_worker(scene)
    how, seconds = scene.rng.choice(("cut", "swallow")), scene.rng.choice((0.3, 1.5, SESSION_MS / 1000 + 1.5))
    scene.say(f"the network of worker-{slot}: {how} for {seconds} s")
    scene.stage.proxy(slot).tell(how)
    yield seconds
    scene.stage.proxy(slot).tell("heal")
    scene.give(slot)


def slow(scene: Scene) -> Iterator[float]:
    """The network before a worker is slow."""
    slot = yield from _a_worker(scene)
    delay = scene.rng.choice((0.02, 0.1, 0.3))
    scene.say(f"the network of worker-{slot} takes {delay} s longer each way")
    scene.stage.proxy(slot).tell(f"slow {delay}")
    yield scene.rng.uniform(1, 3)
    scene.stage.proxy(slot).tell("heal")
    scene.give(slot)


def cut_a_request(scene: Scene) -> Iterator[float]:
    """The network is cut at one request: before it, half-way through it, or before its answer."""
    slot = yield from _a_worker(scene)
    # Mostly the commit, which is the one that matters.
    kind = scene.rng.choice((END_TXN, END_TXN, END_TXN, *REQUESTS))
    where, proxy = scene.rng.choice(("request", "half", "answer")), scene.stage.proxy(slot)
    hits = proxy.said("proxy: hit")
    proxy.tell(f"aim {where} {kind} {scene.rng.randint(1, 3)}")
    for turn in range(int(PATIENCE_S / 0.2)):
        if proxy.said("proxy: hit") > hits:
            break
        if kind in (JOIN_GROUP, SYNC_GROUP) and turn % 10 == 0 and 2 not in scene.held and slot != 2:
            _toggle(scene, 2)  # nobody joins a group that rests
        yield 0.2
    hit = proxy.said("proxy: hit") > hits
    scene.say(
        f"the network of worker-{slot} cut at the {where} of {REQUESTS[kind]}"
        + ("" if hit else ": none came")
    )
    proxy.tell("heal")
    scene.give(slot)


def step_the_clock(scene: Scene) -> Iterator[float]:
    """A worker's clocks step, and step back."""
    slot = yield from _a_worker(scene)
    wall = scene.rng.choice((-86_400, -3600, -5, 5, 1800, 86_400))
    monotonic = scene.rng.choice((0, 0, 5, 60))
    scene.say(f"the clocks of worker-{slot} step by {wall} s (wall) and {monotonic} s (monotonic)")
    scene.worker(slot).tell(f"clock {wall} {monotonic}")
    yield scene.rng.uniform(0.5, 2)
    scene.say(f"the clocks of worker-{slot} step back")
    scene.worker(slot).tell(f"clock {-wall} {-min(monotonic, 1)}")
    scene.give(slot)


def fill_the_disk(scene: Scene) -> Iterator[float]:
    """The disk before a worker is full: half of a checkpoint fits."""
    slot = yield from _a_worker(scene)
    scene.say(f"the disk of worker-{slot} is full")
    scene.worker(slot).tell("disk full")
    yield scene.rng.uniform(1, 2.5)
    scene.say(f"the disk of worker-{slot} has space again")
    scene.worker(slot).tell("disk free")
    scene.give(slot)


def tear_a_file(scene: Scene) -> Iterator[float]:
    """kill -9 of all workers, and the newest checkpoint file of a task is cut short."""
    taken = []
    while (slot := scene.take()) is not None:
        taken.append(slot)
        scene.kill(slot)
    torn = scene.application.tear()
    scene.say(
        f"kill -9 of all workers; torn: {torn.parent.name + '/' + torn.name if torn else 'nothing yet'}"
    )
    for slot in taken:
        scene.start(slot)
        scene.give(slot)
    yield 0.1


# How often each is chosen.
ANYWHERE: dict[Fault, int] = {
    kill_at_a_point: 10,
    kill_as_it_starts: 4,
    kill_at_any_moment: 3,
    kill_as_it_ends: 1,
    kill_in_a_rebalance_in_a_restore: 2,
    freeze: 3,
    kill_the_broker: 2,
    come_or_go: 3,
    cut: 3,
    slow: 1,
    cut_a_request: 5,
    step_the_clock: 2,
}
WITH_FILES: dict[Fault, int] = {**ANYWHERE, fill_the_disk: 3, tear_a_file: 3}


def _a_worker(scene: Scene) -> Generator[float, None, int]:
    """Wait for a worker at work."""
    while (slot := scene.take()) is None:
        yield 0.2
    return slot


def _until_dead(scene: Scene, slot: int, point: str) -> Iterator[float]:
    for _ in range(int(PATIENCE_S / 0.1)):
        if not scene.lives(slot):
            break
        yield 0.1
    if scene.worker(slot).said(f"fault: kill at {point!r}"):
        scene.say(f'kill -9 worker-{slot} at "{point}"')
    elif scene.lives(slot):
        scene.say(f'kill -9 worker-{slot}, which did not come to "{point}"')
        scene.kill(slot)
    else:
        scene.say(f'worker-{slot} ended before it came to "{point}"')


def _toggle(scene: Scene, slot: int) -> None:
    """Start a slot's worker, or end it in order."""
    if slot in scene.wanted:
        scene.say(f"worker-{slot} is removed in order")
        scene.wanted.discard(slot)
        if scene.lives(slot):
            scene.worker(slot).signal(signal.SIGTERM)
    elif scene.lives(slot):
        return  # it still ends
    else:
        scene.say(f"worker-{slot} is added")
        scene.wanted.add(slot)
        scene.start(slot)
