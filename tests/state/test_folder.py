"""Where checkpoints in files are: a disk that is full, a writer that dies, a store that does not answer."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from stored import SOURCE, files, learners, read, store

from streamgen.errors import ConfigError, Fenced, MissingDependency, RetryError, StateError
from streamgen.state.checkpoint import LearnerState, Manifest
from streamgen.state.files import FileStore, FileTaskStore


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_leaves_the_one_before(
    tmp_path: Path, owner: FileTaskStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = store(owner, 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if step == "fsync":
            patched.setattr(os, "fsync", full)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size - 10, limits[1]))
        try:
            with pytest.raises(StateError, match=r"(No space left|File too large).*Free space.*is whole"):
                store(owner, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == [path.name]
    assert read(tmp_path) == 1
    store(owner, 3)
    assert read(tmp_path) == 3


def test_what_is_stored_is_synced_and_so_are_its_folders(
    tmp_path: Path, owner: FileTaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the write returns loses neither the content nor the names."""
    synced, real = [], os.fsync

    def noting(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", noting)
    path = store(owner, 1)
    assert synced == [one.stat().st_ino for one in (path, path.parent, tmp_path)]


def test_a_place_that_may_not_be_written(tmp_path: Path) -> None:
    """A parent that is a file: root may write everywhere else."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"Cannot write the state in .*Not a directory"):
        store(FileStore(tmp_path / "file" / "state").claim(SOURCE), 1)
    assert read(tmp_path / "file") is None


def test_a_writer_that_dies_leaves_nothing_that_is_read_and_its_successor_cleans_up(
    tmp_path: Path, owner: FileTaskStore
) -> None:
    store(owner, 1)
    code = """
import os, sys
from pathlib import Path
from streamgen.state.files import FileStore
sys.path.insert(0, "tests/state")
import stored
real = os.fsync
os.fsync = lambda handle: os._exit(9)  # before the rename
stored.store(FileStore(sys.argv[1]).claim(stored.SOURCE), 2)
"""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, env=environment, timeout=60, check=False
    )
    assert done.returncode == 9
    left = [name for name in files(tmp_path) if name.endswith(".tmp")]
    assert len(left) == 1
    assert FileStore(tmp_path).peek(SOURCE) is not None
    assert left[0] in files(tmp_path)  # who only looks touches nothing
    assert read(tmp_path) == 1
    assert len(files(tmp_path)) == 1


def test_who_was_replaced_while_it_wrote_is_fenced(tmp_path: Path, owner: FileTaskStore) -> None:
    store(owner, 1)

    def replaced() -> Iterator[LearnerState]:
        yield from learners(2)

    real, os.fsync = os.fsync, lambda handle: FileStore(tmp_path).claim(SOURCE)  # type: ignore[assignment]
    try:
        with pytest.raises(Fenced, match="Another owner"):
            owner.write(Manifest(SOURCE, 2, ("a",), 1, {}, "f"), replaced(), ())
    finally:
        os.fsync = real
    assert read(tmp_path) == 1


def test_a_url_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"nowhere://x is no place for state.*s3://"):
        FileStore("nowhere://x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    # As if nothing had opened s3:// before. (The name of the module in the package is its contents.)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingDependency, match=r"pip install 'streamgen-kafka\[s3\]'"):
        FileStore("s3://bucket/state")


@pytest.mark.parametrize(
    ("failure", "expected", "message"),
    [
        (PermissionError("403"), StateError, r"Not allowed to read the state in memory://.* give the right"),
        (TimeoutError("slow"), RetryError, r"Cannot read .*my-topic-3 \(slow"),
        (RuntimeError("of a client"), RetryError, r"Cannot read .* \(of a client"),
        (None, RetryError, r"not stored whole: .* bytes of"),
    ],
)
def test_what_a_remote_store_fails_with(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None, expected: type[Exception], message: str
) -> None:
    url = f"memory://{uuid.uuid4()}"
    owner = FileStore(url).claim(SOURCE)
    owner.read(10)
    manifest = Manifest(SOURCE, 2, ("a",), 1, {}, "f")
    owner.write(manifest, learners(1), ())

    def failing(*arguments: object, **options: object) -> None:
        assert failure is not None
        raise failure

    real = MemoryFileSystem.pipe_file
    with monkeypatch.context() as patched:
        if failure is None:
            patched.setattr(
                MemoryFileSystem, "pipe_file", lambda self, path, data: real(self, path, data[:-3])
            )
        else:
            patched.setattr(MemoryFileSystem, "ls", failing)
        with pytest.raises(expected, match=message):
            owner.write(manifest, learners(2), ())
    found = FileStore(url).claim(SOURCE).read(10)
    assert found is not None
    assert found.learners[None]["n"] == 1
