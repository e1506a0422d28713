"""Checkpoints for the tests of stores in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streamgen.records import TopicPartition
from streamgen.state.checkpoint import LearnerState, Manifest
from streamgen.state.files import FileStore, FileTaskStore

SOURCE = TopicPartition("my-topic", 3)
KEYS = ("é", None)


def learners(seed: int) -> Iterator[LearnerState]:
    rng = np.random.default_rng(seed)
    for key in KEYS:
        yield LearnerState(key, {"weights": rng.normal(size=(2, 5)).astype(np.float32), "n": np.array(seed)})


def store(owner: FileTaskStore, offset: int) -> Path:
    """Store a checkpoint at that offset, and say where it is."""
    facts = {"time": offset}
    owner.write(
        Manifest(SOURCE, offset, ("a", "b"), 1, {"topic": "x"}, "f", facts=facts), learners(offset), ()
    )
    return newest(owner)


def newest(owner: FileTaskStore) -> Path:
    return max(Path(str(owner._folder)).glob("*.safetensors"))


def read(root: Path, at_most: int = 10**12) -> int | None:
    """The offset of what a new owner finds."""
    found = FileStore(root).claim(SOURCE).read(at_most)
    return None if found is None else found.manifest.offset


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())
