"""The campaign's own way into a worker: `run_worker` on a configuration, with faults that come from inside.

Started with nothing, it imports what a worker needs and waits; the first line on standard input is JSON and
lets it run:

    {"config": PATH, "worker_id": NAME, "commands": [...]}

Every later line is a command:

    at N ACTION @ POINT     kill, freeze, or hold SECONDS when the point (points.py) is passed the N-th time
    clock WALL MONOTONIC    step the clocks by so many seconds
    disk full | disk free   for files that are made durable

The end of standard input is the end of the process: nothing is left behind by a campaign that was killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

# A transaction that a killed worker left open blocks the readers of its topics; not for long here.
TRANSACTION_TIMEOUT_MS = 5_000


class Clocks:
    """The machine's clocks, and how far they are off. Patched before anything takes a clock by its name."""

    wall = 0.0
    monotonic = 0.0

    @classmethod
    def patch(cls) -> None:
        """Put them in the place of the real ones."""
        for name in ("time", "monotonic"):
            cls._shift(name, 1)
            cls._shift(f"{name}_ns", 1_000_000_000)

    @classmethod
    def _shift(cls, name: str, unit: int) -> None:
        real, which = getattr(time, name), "wall" if name.startswith("time") else "monotonic"
        as_type = int if unit > 1 else float
        setattr(time, name, lambda: real() + as_type(getattr(cls, which) * unit))


def die_with_parent() -> None:
    """Also when this process is frozen, and cannot notice."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):  # another system than Linux
        return


def shorten_transactions() -> None:
    """The campaign has no time to wait for what takes 30 s and more."""
    import streamgen.kafka.producer

    module: Any = streamgen.kafka.producer
    made = module.KafkaProducer

    def make(**settings: Any) -> Any:
        settings["transaction_timeout_ms"] = TRANSACTION_TIMEOUT_MS
        return made(**settings)

    module.KafkaProducer = make


def commands() -> Iterator[str]:
    """The lines of standard input, past the buffer of `sys.stdin`, which a thread may not hold at the end."""
    rest = b""
    while data := os.read(0, 65536):
        *whole, rest = (rest + data).split(b"\n")
        yield from (line.decode() for line in whole)


def obey(line: str, points: Any, disk: Any) -> None:
    """Do what a command says."""
    command, _, rest = line.strip().partition(" ")
    if command == "at":
        head, _, point = rest.partition(" @ ")
        number, _, action = head.partition(" ")
        points.arm(point, int(number), action)
    elif command == "clock":
        wall, monotonic = map(float, rest.split())
        Clocks.wall += wall
        Clocks.monotonic += monotonic
    elif command == "disk":
        disk.full = rest == "full"
    else:
        raise ValueError(f"not a command: {line}")


def main() -> None:
    """Wait for the order to run, run, and obey."""
    Clocks.patch()
    from pathlib import Path

    import points as points_module

    from consumers.online import run_worker
    from streamgen.configfile import load_config
    from streamgen.errors import StreamgenError

    points = points_module.Points()
    there = points_module.install(points)
    lines = commands()
    order = json.loads(next(lines, "null"))
    if order is None:
        return
    absent = set(points_module.POINTS) - there
    if absent:
        points_module.say(f"fault: the product has no longer a place for {sorted(absent)}")
    shorten_transactions()
    for command in order["commands"]:
        obey(command, points, points_module.Disk)

    def listen() -> None:
        for line in lines:
            obey(line, points, points_module.Disk)
        os._exit(3)

    threading.Thread(target=listen, daemon=True).start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        run_worker(load_config(Path(order["config"]), {}), order["worker_id"], stop.is_set)
    except StreamgenError as error:
        points_module.say(f"fault: the worker ended itself: {type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    die_with_parent()
    main()
