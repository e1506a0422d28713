"""Named places in a worker where it can be killed, frozen or held up.

They are wrapped around the seams of the product, which knows nothing of them.

A seam that is missing is left out: the places of a store are wrapped where that store is there.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

ASSIGNED = "partitions assigned, not opened"
NOTHING_SENT = "results computed, nothing sent"
HALF_SENT = "some of the results sent"
OFFSETS_NOT_SENT = "results sent, offsets not"
OFFSETS_SENT = "offsets sent, not committed"
COMMIT_SENT = "commit sent, not answered"
COMMIT_UNKNOWN = "after the commit, before it is known"
BEFORE_CHECKPOINT = "after the commit, before the checkpoint"
IN_CHECKPOINT = "in the middle of a checkpoint"
CHECKPOINT_WRITTEN = "checkpoint written, not committed"
CHECKPOINT_UNKNOWN = "checkpoint committed, before it is known"
RESTORING = "while restoring"
RESTORED = "restored, nothing replayed"
REPLAYING = "while replaying"
REVOKED = "partitions revoked, not given up"
PINNING = "first offsets pinned, not committed"
ENDING = "while ending in order"

POINTS = (
    PINNING, ASSIGNED, RESTORING, RESTORED, REPLAYING, NOTHING_SENT, HALF_SENT, OFFSETS_NOT_SENT,
    OFFSETS_SENT, COMMIT_SENT, COMMIT_UNKNOWN, BEFORE_CHECKPOINT, IN_CHECKPOINT, CHECKPOINT_WRITTEN,
    CHECKPOINT_UNKNOWN, REVOKED, ENDING,
)  # fmt: skip

Place = Callable[..., str | None]  # which point a call is at, if any
# Transactions of the three kinds of producers, told by the transactional id.
_AFTER_APPEND = {"results": HALF_SENT, "state": IN_CHECKPOINT}
_BEFORE_COMMIT = {"results": OFFSETS_SENT, "state": CHECKPOINT_WRITTEN, "pins": PINNING}
_COMMIT_SENT = {"results": COMMIT_SENT}
_AFTER_COMMIT = {"results": COMMIT_UNKNOWN, "state": CHECKPOINT_UNKNOWN}


def say(text: str) -> None:
    """A line in the worker's log that is there even when the process ends now."""
    os.write(sys.stderr.fileno(), f"{text}\n".encode())


def act(action: str) -> None:
    """`kill`, `freeze` (until SIGCONT), or `hold SECONDS`."""
    match action.split():
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["freeze"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        case ["hold", seconds]:
            time.sleep(float(seconds))
        case _:
            raise ValueError(f"not an action: {action}")


class Points:
    """Which places are armed, and how often they are still to be passed before something happens there."""

    def __init__(self) -> None:
        self._armed: dict[str, list[tuple[int, str]]] = {}
        self._lock = threading.Lock()

    def arm(self, point: str, passage: int, action: str) -> None:
        """Do `action` at the `passage`-th time that `point` is passed from now on."""
        if point not in POINTS:
            raise ValueError(f"not a point: {point}")
        with self._lock:
            self._armed.setdefault(point, []).append((passage, action))

    def due(self, point: str | None) -> str | None:
        """Count one passage; the action when it is due."""
        if point is None or point not in self._armed:
            return None
        with self._lock:
            counted = [(left - 1, action) for left, action in self._armed.pop(point, [])]
            waiting = [(left, action) for left, action in counted if left > 0]
            if waiting:
                self._armed[point] = waiting
            return next((action for left, action in counted if left == 0), None)

    def passed(self, point: str | None) -> None:
        """The worker is at this place."""
        action = self.due(point)
        if action is not None:
            say(f"fault: {action} at {point!r}")
            act(action)


def install(points: Points) -> set[str]:
    """Wrap the seams. Returns the places that a worker can pass."""
    from streamgen.kafka import fastpath
    from streamgen.kafka.kafka_transport import KafkaTransport
    from streamgen.loop import Loop
    from streamgen.pipeline import Pipeline

    there = {PINNING, COMMIT_SENT, OFFSETS_NOT_SENT, HALF_SENT, OFFSETS_SENT, COMMIT_UNKNOWN}
    _wrap_transactions(fastpath, points)

    def around(
        owner: Any,
        name: str,
        before: Callable[..., str | None] | None,
        after: Callable[..., str | None] | None,
    ) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before is not None:
                points.passed(before(*args))
            result = original(*args, **kwargs)
            if after is not None:
                points.passed(after(result, *args))
            return result

        setattr(owner, name, wrapped)

    def polled(result: Any, *_: Any) -> str | None:
        if result.revoked or result.lost:
            points.passed(REVOKED)
        return ASSIGNED if result.assigned else None

    def stepping(pipeline: Any, *_: Any) -> str | None:
        return REPLAYING if pipeline.queued and pipeline.replaying else None

    around(
        KafkaTransport, "publish", lambda _self, outputs, offsets, *_: NOTHING_SENT if offsets else None, None
    )
    around(KafkaTransport, "poll", None, polled)
    around(KafkaTransport, "seek", None, lambda *_: RESTORED)
    around(Pipeline, "step", stepping, None)
    around(Loop, "finish", lambda *_: ENDING, None)
    there |= {NOTHING_SENT, REVOKED, ASSIGNED, RESTORED, REPLAYING, ENDING}

    for module, name in (
        ("streamgen.state.files", "FileStore"),
        ("streamgen.state.files", "FileTaskStore"),
        ("streamgen.state.on_kafka", "KafkaTaskStore"),
    ):
        try:
            store = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
        for method in ("save", "write"):
            if method in vars(store):
                around(store, method, lambda *_: BEFORE_CHECKPOINT, None)
                there |= {BEFORE_CHECKPOINT}
        for method in ("latest", "read"):
            if method in vars(store):
                around(store, method, None, lambda found, *_: None if found is None else RESTORING)
                there |= {RESTORING}
    _wrap_files(points)
    return there | {IN_CHECKPOINT, CHECKPOINT_WRITTEN, CHECKPOINT_UNKNOWN}


def _kind(producer: Any) -> str:
    """Whose transaction it is."""
    name = str(producer.config["transactional_id"])
    if name.endswith("-pins"):
        return "pins"
    return "state" if "-state-" in name else "results"


def _wrap_transactions(fastpath: Any, points: Points) -> None:
    append, send_offsets, commit = fastpath.append, fastpath.send_offsets, fastpath.commit

    def append_and_tell(producer: Any, *args: Any) -> Any:
        made = append(producer, *args)
        action = points.due(_AFTER_APPEND.get(_kind(producer)))
        if action is not None:
            time.sleep(0.01)  # so that some of it is on its way
            say(f"fault: {action} at {_AFTER_APPEND[_kind(producer)]!r}")
            act(action)
        return made

    def send_offsets_and_tell(*args: Any) -> Any:
        points.passed(OFFSETS_NOT_SENT)
        return send_offsets(*args)

    def commit_and_tell(producer: Any, timeout_s: float) -> Any:
        kind = _kind(producer)
        points.passed(_BEFORE_COMMIT[kind])
        action = points.due(_COMMIT_SENT.get(kind))
        if action is not None:
            answered = commit(producer, 0.002)
            say(f"fault: {action} at {_COMMIT_SENT[kind]!r}")
            act(action)
            return answered
        done = commit(producer, timeout_s)
        points.passed(_AFTER_COMMIT.get(kind))
        return done

    fastpath.append, fastpath.send_offsets, fastpath.commit = (
        append_and_tell,
        send_offsets_and_tell,
        commit_and_tell,
    )


class Disk:
    """The disk as the worker sees it; `full` fails what is to be made durable, with half of it written."""

    full = False


def _wrap_files(points: Points) -> None:
    """A store on files makes a file durable, and then puts it in its place."""
    fsync = os.fsync

    def fsync_and_tell(handle: Any) -> None:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            return fsync(handle)
        action = points.due(IN_CHECKPOINT)
        if action is not None or Disk.full:
            os.ftruncate(handle, about.st_size // 2)
        if action is not None:
            say(f"fault: {action} at {IN_CHECKPOINT!r}")
            act(action)
        if Disk.full:
            say("fault: no space left for a file")
            raise OSError(28, "No space left on device")
        return fsync(handle)

    os.fsync = fsync_and_tell  # type: ignore[assignment]

    def in_place(original: Any) -> Any:
        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            points.passed(CHECKPOINT_WRITTEN)
            result = original(*args, **kwargs)
            points.passed(CHECKPOINT_UNKNOWN)
            return result

        return wrapped

    for name in ("replace", "rename"):
        setattr(os, name, in_place(getattr(os, name)))
