"""Checkpoints in a directory: whole or not there, and every damage has a name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from streamgen.errors import StateError
from streamgen.learners.task import TaskState
from streamgen.records import TopicPartition
from streamgen.state.files import Checkpoint, FileStore

SOURCE = TopicPartition("my-topic", 3)


def checkpoint(offset: int) -> Checkpoint:
    fields = {
        "weights": np.random.default_rng(offset).normal(size=(2, 5)).astype(np.float32),
        "count": np.array([1, 2**62], dtype=np.int64),
        "last": np.array([np.nan, -0.0]),
    }
    return Checkpoint(TaskState(offset, ["é", None], fields), ("a", "b.c"), "f00", {"seed": 1})


def test_what_is_stored_comes_back_bitwise(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    stored = checkpoint(7)
    store.save(SOURCE, stored)
    loaded = store.latest(SOURCE)
    assert loaded is not None
    assert (loaded.state.offset, loaded.state.keys) == (7, ["é", None])
    assert (loaded.features, loaded.fingerprint, loaded.about) == (("a", "b.c"), "f00", {"seed": 1})
    for name, field in stored.state.fields.items():
        assert loaded.state.fields[name].tobytes() == field.tobytes()
        assert loaded.state.fields[name].dtype == field.dtype
    assert store.sources() == [SOURCE]
    assert store.latest(TopicPartition("my-topic", 4)) is None


def test_the_newest_two_are_kept_and_the_newest_that_fits_is_found(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for offset in (5, 90, 100, 1000):
        store.save(SOURCE, checkpoint(offset))
    found = [store.latest(SOURCE, at_most) for at_most in (None, 999, 100, 99)]
    assert [one and one.state.offset for one in found] == [1000, 100, 100, None]


def test_what_is_written_after_a_step_back_is_the_newest(tmp_path: Path) -> None:
    """The log is read again from an earlier offset, or a shorter file is learned."""
    store = FileStore(tmp_path)
    for offset in (900, 1000, 30):
        store.save(SOURCE, checkpoint(offset))
    found = [store.latest(SOURCE, at_most) for at_most in (None, 1500, 29)]
    assert [one and one.state.offset for one in found] == [30, 30, None]
    store.save(SOURCE, checkpoint(40))
    found = [store.latest(SOURCE, at_most) for at_most in (None, 39)]
    assert [one and one.state.offset for one in found] == [40, 30]


def test_a_damaged_checkpoint_falls_back_on_the_one_before(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save(SOURCE, checkpoint(1))
    newest = store.save(SOURCE, checkpoint(2))
    newest.write_bytes(newest.read_bytes()[:-3])
    found = store.latest(SOURCE)
    assert found is not None
    assert found.state.offset == 1


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_torn_file_is_a_named_error(tmp_path: Path, keep: int) -> None:
    store = FileStore(tmp_path)
    path = store.save(SOURCE, checkpoint(1))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StateError, match="damaged"):
        store.latest(SOURCE)


def test_a_flipped_bit_is_a_wrong_checksum(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    path = store.save(SOURCE, checkpoint(1))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StateError, match="checksum"):
        store.load(path)


def test_a_newer_version_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    path = store.save(SOURCE, checkpoint(1))
    with safe_open(path, framework="numpy") as file:
        manifest = json.loads(file.metadata()["manifest"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"manifest": json.dumps(manifest | {"version": 99})})
    with pytest.raises(StateError, match="version 99"):
        store.load(path)
    save_file(tensors, path)
    with pytest.raises(StateError, match="no checkpoint of streamgen"):
        store.load(path)


def test_what_cannot_be_written_leaves_the_old_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)
    store.save(SOURCE, checkpoint(1))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StateError, match="No space left"):
            store.save(SOURCE, checkpoint(2))
    found = store.latest(SOURCE)
    assert found is not None
    assert found.state.offset == 1
    assert not list(tmp_path.rglob("*.tmp"))
