"""What is special to checkpoints in files: every damage has a name, and the one before it stands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from stored import KEYS, SOURCE, files, read, store
from structlog.testing import capture_logs

from streamgen.errors import StateError
from streamgen.records import TopicPartition
from streamgen.state import checkpoint as format_
from streamgen.state.checkpoint import Checkpoint, Fields, LearnerState, Manifest
from streamgen.state.files import FileStore, FileTaskStore


def damage_flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_file_is_named_and_laid_out_as_documented(tmp_path: Path, owner: FileTaskStore) -> None:
    path = store(owner, 41)
    assert path == tmp_path / "my-topic-3" / f"{1:012d}-{41:020d}.safetensors"
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0  # what follows is aligned
    with safe_open(path, framework="numpy") as file:
        manifest = msgspec.json.decode(file.metadata()["manifest"])
        assert (manifest["version"], manifest["offset"], manifest["facts"]) == (format_.VERSION, 41, {})
        assert manifest["made_with"] == format_.made_with()
        assert manifest["written"] > 1.7e9
        assert sorted(file.keys()) == ["field.n", "field.weights", "json.facts", "json.keys"]
        assert file.get_tensor("field.weights").shape == (2, 2, 5)
        assert msgspec.json.decode(file.get_tensor("json.keys").tobytes()) == list(KEYS)
        assert msgspec.json.decode(file.get_tensor("json.facts").tobytes()) == {"time": 41}


def test_the_newest_two_are_kept(tmp_path: Path, owner: FileTaskStore) -> None:
    for offset in (5, 90, 100, 1000):
        store(owner, offset)
    assert [read(tmp_path, at_most) for at_most in (10**12, 1000, 999, 100, 99)] == [
        1000, 1000, 100, 100, None
    ]  # fmt: skip
    assert len(files(tmp_path)) == 2


def test_newest_is_what_was_written_last_whatever_clock_and_offset_say(
    tmp_path: Path, owner: FileTaskStore
) -> None:
    store(owner, 900)
    later = store(owner, 30)
    os.utime(later, (0, 0))
    assert read(tmp_path) == 30
    again = FileStore(tmp_path).claim(SOURCE)  # the numbers go on from what is there
    again.read(10**12)
    os.utime(store(again, 20), (0, 0))
    assert read(tmp_path) == 20
    assert read(tmp_path, 19) is None


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_torn_newest_falls_back_with_a_warning(tmp_path: Path, owner: FileTaskStore, keep: int) -> None:
    store(owner, 1)
    path = store(owner, 2)
    path.write_bytes(path.read_bytes()[:keep])
    with capture_logs() as logs:
        assert read(tmp_path) == 1
    assert [(line["log_level"], str(path) in line["reason"]) for line in logs] == [("warning", True)]


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, owner: FileTaskStore) -> None:
    store(owner, 1)
    path = store(owner, 2)
    whole = path.read_bytes()
    before = FileStore(tmp_path).peek(SOURCE)
    assert before is not None
    for at in range(0, len(whole), 7):
        damage_flip(path, at)
        found = FileStore(tmp_path).peek(SOURCE)
        assert found is not None
        # A bit of the padding, or of the case of a name, may be harmless; then all is what it was.
        assert found.manifest.offset == 1 or same(found, before), at
        path.write_bytes(whole)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    def flat(fields: Fields) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in fields.items()}

    return one.manifest == other.manifest and {k: flat(f) for k, f in one.learners.items()} == {
        k: flat(f) for k, f in other.learners.items()
    }


def test_damage_past_the_committed_offset_is_nobodys_loss(tmp_path: Path, owner: FileTaskStore) -> None:
    store(owner, 1)
    damage_flip(store(owner, 2), -1)
    with capture_logs() as logs:
        assert read(tmp_path, 1) == 1
        assert read(tmp_path, 0) is None
    assert logs == []


def test_the_whole_one_is_kept_until_the_next_is_whole(tmp_path: Path, owner: FileTaskStore) -> None:
    """Not the damaged one beside it, which is the younger of the two."""
    store(owner, 1)
    damage_flip(store(owner, 2), -1)
    again = FileStore(tmp_path).claim(SOURCE)
    assert again.read(10**12) is not None
    third = store(again, 3)
    assert read(tmp_path) == 3
    damage_flip(third, -1)
    assert read(tmp_path) == 1


def test_damage_without_a_fallback_says_what_to_do(tmp_path: Path, owner: FileTaskStore) -> None:
    path = store(owner, 1)
    damage_flip(path, 8 + int.from_bytes(path.read_bytes()[:8], "little"))  # the first learner's
    with pytest.raises(StateError, match=r"wrong checksum.*delete it to learn again"):
        read(tmp_path)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(StateError, match=r"damaged.*delete it to learn again"):
        FileStore(tmp_path).peek(SOURCE)
    path.unlink()
    assert read(tmp_path) is None


def rewritten(path: Path, **changes: Any) -> None:
    """The same checkpoint with another manifest, of which the digest is right."""
    from streamgen.state.stacked import _digest

    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        manifest = msgspec.json.decode(file.metadata()["manifest"]) | changes
    text = msgspec.json.encode(manifest)
    save_file(tensors, path, {"manifest": text.decode(), "manifest_digest": _digest(text)})


def test_another_version_is_refused_by_name_and_not_passed_over(tmp_path: Path, owner: FileTaskStore) -> None:
    store(owner, 1)
    rewritten(store(owner, 2), version=99)
    with pytest.raises(StateError, match=r"version 99.*run the version that wrote it.*move .* away"):
        read(tmp_path)


def test_the_first_version_of_the_format_is_refused_by_name(tmp_path: Path) -> None:
    """Its names have no sequence number, and it would be sad to take it for nothing."""
    folder = tmp_path / str(SOURCE)
    folder.mkdir()
    manifest = {"version": 1, "topic": "my-topic", "partition": 3, "offset": 7, "keys": ["k"]}
    path = folder / f"{7:020d}.safetensors"
    save_file({"n": np.zeros(1)}, path, {"manifest": msgspec.json.encode(manifest).decode()})
    with pytest.raises(StateError, match=r"version 1, .*rebuild.*move .*0007\.safetensors away"):
        read(tmp_path)
    assert FileStore(tmp_path).sources() == [SOURCE]


def test_what_streamgen_did_not_write_is_refused(tmp_path: Path, owner: FileTaskStore) -> None:
    save_file({"n": np.zeros(1)}, store(owner, 1))
    with pytest.raises(StateError, match=r"no checkpoint of streamgen.*move .* away"):
        read(tmp_path)


def test_a_copy_of_another_tasks_state_is_refused(tmp_path: Path, owner: FileTaskStore) -> None:
    store(owner, 1).parent.rename(tmp_path / "my-topic-4")
    with pytest.raises(StateError, match=r"is of my-topic-3: move it away"):
        FileStore(tmp_path).peek(TopicPartition("my-topic", 4))


def test_other_files_are_nobodys_business(tmp_path: Path, owner: FileTaskStore) -> None:
    store(owner, 1)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "a-1").write_text("a file with the name of a task")
    (tmp_path / "b-1").mkdir()
    shutil.copytree(tmp_path / "my-topic-3", tmp_path / "my-topic-3.bak")
    (tmp_path / "my-topic-3" / "copy of 1-1.safetensors").write_text("mine")
    assert FileStore(tmp_path).sources() == [SOURCE]
    assert read(tmp_path) == 1
    assert FileStore(tmp_path / "notes.txt").sources() == []


def test_a_checkpoint_that_is_removed_while_it_is_found_is_no_error(
    tmp_path: Path, owner: FileTaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has gone on meanwhile."""
    first = store(owner, 1)
    real = Path.read_bytes

    def slow(path: Path) -> bytes:
        if path == first and path.exists():
            store(owner, 2)
            store(owner, 3)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", slow)
    assert read(tmp_path) == 3


def test_learners_of_different_fields_are_refused(tmp_path: Path, owner: FileTaskStore) -> None:
    odd = [LearnerState("a", {"w": np.zeros(2)}), LearnerState("b", {"w": np.zeros(2, dtype=np.float32)})]
    with pytest.raises(StateError, match="'b' has other fields"):
        owner.write(Manifest(SOURCE, 2, ("a",), 1, {}, "f"), odd, ())
    assert read(tmp_path) is None
