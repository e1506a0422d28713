"""Checkpoints in a local directory: one folder a task, in it the newest checkpoint and the one before.

A checkpoint is one safetensors file with its manifest (JSON) in the file's metadata, so that both are
written by one rename: format version, source, offset, fingerprint, keys, the versions that made it, and a
checksum of the tensors. It is written beside, synced, and renamed: a reader sees all of it or nothing.
There is no pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from streamgen import __version__
from streamgen.errors import StateError
from streamgen.learners.task import TaskState
from streamgen.records import TopicPartition

VERSION = 1
_NAME = re.compile(r"^(\d{20})\.safetensors$")
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was stored, and what it was made with."""

    state: TaskState
    features: tuple[str, ...]
    fingerprint: str
    about: Mapping[str, Any]  # what the writer wanted to remember: model settings, for example
    written: float = 0.0  # when it was stored, seconds since 1970


class FileStore:
    """Checkpoints under `directory`."""

    def __init__(self, directory: Path | str) -> None:
        self._directory = Path(directory)

    def save(self, source: TopicPartition, checkpoint: Checkpoint) -> Path:
        """Store a checkpoint and drop all but the newest two of the task. Raises `StateError` when the
        directory cannot be written; what was there before is then still whole.

        Newest is what was written last, not what reaches furthest: a topic may be read again from an earlier
        offset, or made anew.
        """
        folder = self._directory / str(source)
        path = folder / f"{checkpoint.state.offset:020d}.safetensors"
        tensors = {name: np.ascontiguousarray(field) for name, field in checkpoint.state.fields.items()}
        manifest = {
            "version": VERSION,
            "topic": source.topic,
            "partition": source.partition,
            "offset": checkpoint.state.offset,
            "fingerprint": checkpoint.fingerprint,
            "features": list(checkpoint.features),
            "keys": checkpoint.state.keys,
            "sha256": _checksum(tensors),
            "made_with": made_with(),
            "about": dict(checkpoint.about),
            "written": (now := time.time_ns()) / 1e9,
        }
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(save(tensors, metadata={"manifest": json.dumps(manifest)}))
                file.flush()
                os.fsync(file.fileno())
            os.utime(temporary, ns=(now, now))  # the file system's own clock may tick too slowly
            temporary.replace(path)
            _sync(folder)
            for old in [other for other in _newest_first(folder) if other != path][_KEPT - 1 :]:
                old.unlink(missing_ok=True)
        except OSError as error:
            with contextlib.suppress(OSError):  # a parent that is no folder
                temporary.unlink(missing_ok=True)
            raise StateError(
                f"Cannot write the checkpoint {path}: {error.strerror}. Free space or give rights, or set "
                "state.directory elsewhere; the checkpoint before it is whole."
            ) from error
        return path

    def latest(self, source: TopicPartition, at_most: int | None = None) -> Checkpoint | None:
        """The newest whole checkpoint whose offset is at most `at_most`; None when there is none.

        A damaged one is passed over for the one before it. Raises `StateError` when the only ones there
        are damaged or of another format version.
        """
        damaged: StateError | None = None
        for path in _newest_first(self._directory / str(source)):
            if at_most is not None and int(path.stem) > at_most:
                continue
            try:
                return self.load(path)
            except StateError as error:
                damaged = error
        if damaged is not None:
            raise damaged
        return None

    def sources(self) -> list[TopicPartition]:
        """The tasks that have a checkpoint."""
        found = []
        for folder in sorted(self._directory.glob("*-*")):
            topic, _, partition = folder.name.rpartition("-")
            if partition.isdigit() and any(_checkpoints(folder)):
                found.append(TopicPartition(topic, int(partition)))
        return found

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Read one checkpoint. Raises `StateError` for a short or damaged file, or an unknown version."""
        hint = f"delete {path} to fall back on the one before it or on learning again from the topic"
        try:
            with safe_open(path, framework="numpy") as file:
                manifest = json.loads((file.metadata() or {}).get("manifest", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, ValueError) as error:
            raise StateError(f"The checkpoint {path} is damaged ({error}): {hint}.") from error
        if not isinstance(manifest, dict) or "version" not in manifest:
            raise StateError(f"The file {path} is no checkpoint of streamgen: move it away.")
        if manifest["version"] != VERSION:
            raise StateError(
                f"The checkpoint {path} has format version {manifest['version']}, this streamgen reads "
                f"{VERSION}: run the version that wrote it, or {hint}."
            )
        if manifest["sha256"] != _checksum(tensors):
            raise StateError(f"The checkpoint {path} is damaged (wrong checksum): {hint}.")
        return Checkpoint(
            TaskState(manifest["offset"], manifest["keys"], tensors),
            tuple(manifest["features"]),
            manifest["fingerprint"],
            manifest["about"],
            manifest["written"],
        )


def made_with() -> dict[str, str]:
    """What bitwise equality of later results depends on (docs/guarantees.md)."""
    return {
        "streamgen": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


def _checkpoints(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.safetensors") if _NAME.match(path.name))


def _newest_first(folder: Path) -> list[Path]:
    def written(path: Path) -> tuple[int, str]:
        try:
            return path.stat().st_mtime_ns, path.name
        except FileNotFoundError:  # another worker dropped it just now
            return 0, path.name

    return sorted(_checkpoints(folder), key=written, reverse=True)


def _checksum(tensors: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
