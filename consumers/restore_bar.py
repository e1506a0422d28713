"""A progress bar while partitions are restored, for who started the worker in a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from streamgen.health import Health

LOOK_S = 0.2


@contextmanager
def restore_bar(health: Health) -> Iterator[None]:
    """Show it inside the block, whenever there is something to restore; without a terminal show nothing."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(health, ended), name="streamgen-restore-bar", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show(health: Health, ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    while not ended.wait(LOOK_S):
        if not health.partitions_restoring:
            continue
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        # Log lines go above it: while it shows, `sys.stderr` is its own.
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar, most = progress.add_task("", total=None), 0
            while (partitions := health.partitions_restoring) and not ended.wait(LOOK_S):
                left = health.replay_left
                most = max(most, left)
                progress.update(
                    bar,
                    description=f"restoring {partitions} partitions, {left:,} records left",
                    total=most or None,  # None while states are read
                    completed=most - left,
                )
