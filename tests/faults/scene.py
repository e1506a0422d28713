"""What a fault acts on: the application's workers, which are tended as an orchestrator would, and the stage.

A worker that ends by itself is started again. One that a fault holds down is not.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

from application import Application, Store
from stage import Stage, Worker

RESTART_S = 0.5  # an orchestrator's patience


class Scene:
    """One application in the hands of faults."""

    def __init__(self, stage: Stage, application: Application, store: Store, rng: random.Random) -> None:
        self.stage, self.application, self.store, self.rng = stage, application, store, rng
        self.wanted = {0, 1}
        self.held: set[int] = set()  # slots that a fault uses
        self.broker_held = False
        self.ended: Counter[str] = Counter()  # why workers ended by themselves
        self._down_since: dict[int, float] = {}

    def say(self, text: str) -> None:
        """A line of the story."""
        self.stage.say(text)

    def worker(self, slot: int) -> Worker:
        """The newest worker of a slot."""
        return self.application.workers[slot]

    def lives(self, slot: int) -> bool:
        """Whether a slot's worker runs."""
        worker = self.application.workers.get(slot)
        return worker is not None and worker.code is None

    def take(self) -> int | None:
        """A slot whose worker is at work and in no other fault's hands; it is held until `give`."""
        free = [slot for slot in sorted(self.wanted - self.held) if self.lives(slot)]
        if not free:
            return None
        slot = self.rng.choice(free)
        self.held.add(slot)
        return slot

    def give(self, slot: int) -> None:
        """The fault is done with a slot: it is tended again."""
        self.held.discard(slot)
        self._down_since.pop(slot, None)

    def start(self, slot: int, *commands: str) -> Worker:
        """Start a slot's worker."""
        return self.application.start(slot, *commands)

    def kill(self, slot: int) -> None:
        """kill -9, and wait for the end."""
        self.worker(slot).signal(signal.SIGKILL)
        self.worker(slot).wait(20)

    def tend(self) -> None:
        """Start what ended by itself."""
        for slot in sorted(self.wanted - self.held):
            if self.lives(slot):
                self._down_since.pop(slot, None)
                continue
            since = self._down_since.get(slot)
            if since is None:
                self._down_since[slot] = time.monotonic()
                self._note(slot)
            elif time.monotonic() - since > RESTART_S:
                self._down_since.pop(slot)
                self.start(slot)

    def _note(self, slot: int) -> None:
        worker = self.application.workers.get(slot)
        if worker is None:
            return
        last = [line for line in worker.log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        why = last[0][:300] if last else "it said nothing"
        self.say(f"worker-{slot} ended by itself with {worker.code}: {why} ({worker.log.name})")
        self.ended[why.partition("itself: ")[2].partition(":")[0] or f"code {worker.code}"] += 1
