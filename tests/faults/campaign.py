"""The fault campaign: episodes of seeded faults on a live stream, each checked against an uninterrupted run.

    campaign.py --faults N --seed SEED --folder FOLDER --report FILE

An episode is a stream that flows while one fault (or two at once) happens after another; at its end nothing
may be lost, doubled or different. What is done is kept in FOLDER: running it again goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from application import (
    Application,
    Store,
    ends_of,
    input_producer,
    judge,
    make_input,
    places,
    send,
    uninterrupted,
)
from kafka.errors import KafkaError
from menu import ANYWHERE, WITH_FILES, Fault
from report import write_report
from scene import Scene
from stage import Stage
from stream import rows

EPISODE = 20  # faults
RATE = 40  # records a second
TWO_AT_ONCE = 0.25
RECOVERY_S = 120.0
TOPIC = "stream"


class Feeder:
    """Feeds the stream at a steady rate until it is stopped."""

    def __init__(self, stage: Stage, seed: str) -> None:
        self._producer, self._rows = input_producer(stage), rows(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        while not self._stop.wait(1 / RATE):
            with contextlib.suppress(KafkaError):  # the broker is away: this record is never written
                send(self._producer, TOPIC, next(self._rows))

    def stop(self) -> None:
        """Stop, and have everything written."""
        self._stop.set()
        self._thread.join(90)
        self._producer.flush(60)
        self._producer.close()


def play(scene: Scene, faults: list[Fault]) -> None:
    """Let faults happen at once, each going on when it has waited."""
    stories: list[tuple[float, Iterator[float]]] = [
        (time.monotonic() + n * scene.rng.uniform(0, 0.3), fault(scene)) for n, fault in enumerate(faults)
    ]
    deadline = time.monotonic() + RECOVERY_S
    while stories:
        assert time.monotonic() < deadline, "the faults did not end"
        if not scene.broker_held:
            scene.tend()
        waiting = []
        for due, story in stories:
            if time.monotonic() < due:
                waiting.append((due, story))
                continue
            with contextlib.suppress(StopIteration):
                waiting.append((time.monotonic() + next(story), story))
        stories = waiting
        time.sleep(0.02)


def recover(scene: Scene, ends: dict[int, int] | None = None) -> None:
    """Wait for progress: some results more, or all up to `ends`."""
    before = scene.application.committed()
    deadline = time.monotonic() + RECOVERY_S
    while time.monotonic() < deadline:
        scene.tend()
        if ends is not None and scene.application.drained(ends):
            return
        now = scene.application.committed()
        before = before or now
        if ends is None and any(now.get(n, 0) > offset for n, offset in before.items()):
            return
        time.sleep(0.1)
    raise AssertionError(f"no progress in {RECOVERY_S:.0f} s: {scene.application.committed()}, to {ends}")


def episode(number: int, count: int, seed: int, folder: Path, story: list[str]) -> dict[str, Any]:
    """One episode of `count` faults; what came of it."""
    rng = random.Random(f"{seed}/{number}")
    store: Store = "files" if number % 3 == 2 else "kafka"
    menu = WITH_FILES if store == "files" else ANYWHERE
    done: Counter[str] = Counter()
    numbered = number * EPISODE
    began = time.monotonic()

    def tell(line: str) -> None:
        story.append(f"#{numbered + done.total()} {line}")
        print(story[-1], flush=True)

    with Stage(folder, tell) as stage:
        make_input(stage, TOPIC)
        scene = Scene(stage, Application(stage, "faulted", TOPIC, store), store, rng)
        feeder = Feeder(stage, f"{seed}/{number}")
        try:
            for slot in sorted(scene.wanted):
                scene.start(slot)
            recover(scene)
            while (left := count - done.total()) > 0:
                several = 2 if left > 1 and rng.random() < TWO_AT_ONCE else 1
                chosen = _choose(rng, menu, several)
                done.update(str(fault.__doc__).strip() for fault in chosen)
                if several > 1:
                    done["(of them two at once)"] = 0
                play(scene, chosen)
                recover(scene)
                time.sleep(rng.uniform(0, 1))
        finally:
            feeder.stop()
        inputs = places(stage, TOPIC)
        stage.say("the stream ends; waiting for every result")
        recover(scene, ends_of(inputs))
        scene.application.stop()
        faulted = scene.application.outputs()
        whole = uninterrupted(stage, "uninterrupted", TOPIC, ends_of(inputs), store)
        verdict = judge(inputs, faulted, whole)
        stage.say(f"checked: {verdict.findings or 'nothing lost, doubled or different'}"[:2000])
    return {
        "records": verdict.records,
        "scores": len(faulted.scores),
        "dead": len(faulted.dead),
        "episodes": len(faulted.episodes),
        "learners": sum(len(state) for state in faulted.states.values()),
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "different": verdict.different,
        "reordered": verdict.reordered,
        "states": verdict.states,
        "store": store,
        "faults": {name: many for name, many in done.items() if many},
        "ended": dict(scene.ended),
        "seconds": time.monotonic() - began,
    }


def _choose(rng: random.Random, menu: dict[Fault, int], several: int) -> list[Fault]:
    chosen: list[Fault] = []
    while len(chosen) < several:
        (fault,) = rng.choices(list(menu), list(menu.values()))
        if fault not in chosen:
            chosen.append(fault)
    return chosen


def main() -> int:
    """Play what is not played yet, and write the report; 1 when anything was found."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--faults", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--report", type=Path, required=True)
    chosen = arguments.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    progress = chosen.folder / f"seed-{chosen.seed}-of-{chosen.faults}.jsonl"
    played = [json.loads(line) for line in progress.read_text().splitlines()] if progress.exists() else []
    known = {one["episode"] for one in played}
    for number in range(-(-chosen.faults // EPISODE)):
        if number in known:
            continue
        count = min(EPISODE, chosen.faults - number * EPISODE)
        folder = chosen.folder / f"seed-{chosen.seed}-episode-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        story: list[str] = []
        print(f"--- episode {number}: {count} faults, seed {chosen.seed}", flush=True)
        try:
            result = episode(number, count, chosen.seed, folder, story)
        except Exception as error:  # noqa: BLE001 (whatever went wrong belongs into the report)
            traceback.print_exc()
            result = {"failed": f"{type(error).__name__}: {error}"[:1000], "faults": {}, "seconds": 0.0}
        result |= {"episode": number, "story": story}
        clean = not any(
            result.get(kind) for kind in ("failed", "lost", "doubled", "different", "reordered", "states")
        )
        if clean:
            shutil.rmtree(folder, ignore_errors=True)
        played.append(result)
        with progress.open("a") as file:
            file.write(json.dumps(result) + "\n")
        write_report(chosen.report, chosen.seed, chosen.faults, played)
    clean = write_report(chosen.report, chosen.seed, chosen.faults, played)
    print(f"the report is in {chosen.report}")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
