"""A training's whole state in one safetensors file, with a manifest as JSON in its header.

    <folder>/checkpoint-<step>.safetensors       a training; of a topic learned in rounds, the round

The newest two are kept: one is written beside, synced and renamed (`state.folder`), and only then the oldest
is removed, so whatever happens meanwhile the last good one is whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import safetensors.numpy
import structlog
import torch
from safetensors import SafetensorError
from torch import Tensor

from streamgen.errors import InputError, StateError
from streamgen.state.checkpoint import made_with
from streamgen.state.folder import Folder

VERSION = 1
KEPT = 2
_DIGITS = 32  # of the manifest's digest, which stands before it
_NAME = re.compile(r"checkpoint-(?P<step>[0-9]{9})\.safetensors")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a topic that a batch of images is: first offset and end of each partition."""

    topic: str
    topic_id: str  # which topic of that name
    between: dict[int, tuple[int, int]]

    def __str__(self) -> str:
        parts = ", ".join(f"{number}: {first} to {end}" for number, (first, end) in self.between.items())
        return f"{self.topic} ({parts})"


@dataclass(frozen=True, slots=True)
class Round:
    """One batch of a topic that is learned batch after batch (`images.rounds`), and what came of it.

    `taken`: the model is what the round made of it; else it is the one from before. The distances are those
    of the new model and of the one before from images that neither learned from."""

    number: int  # from 1
    taken: bool
    distance: float
    distance_before: float | None
    skipped: Mapping[str, str]  # what was no image: its place, `partition@offset`, and the reason


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the state is of. A point of the history is a step with the mean losses since the point before,
    but for those that were never finite."""

    model: Mapping[str, Any]  # its settings
    look: Mapping[str, Any]  # how images were brought to one form
    shape: tuple[int, int, int]  # C, H, W
    seed: int
    step: int
    images: int
    digest: str  # of the training images
    device: str
    cut: Cut | None = None  # None: they are of files
    round: Round | None = None  # None: it is one training
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    watched: Mapping[str, float] = field(default_factory=dict)  # see `Watch`
    checksum: str = ""
    made_with: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION


def write(folder: Folder, manifest: Manifest, state: Mapping[str, Tensor]) -> None:
    """Store a checkpoint, and remove all but the newest two.

    Raises `StateError` when the place is full or may not be written; the one before is then whole.
    """
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    sealed = replace(manifest, checksum=_checksum(state), made_with=made_with())
    text = msgspec.json.encode(sealed).decode()
    # One entry: safetensors writes several in any order, and equal states shall be equal bytes.
    data = safetensors.numpy.save(arrays, metadata={"manifest": _digest(text) + text})
    number = manifest.step if manifest.round is None else manifest.round.number
    folder.write(f"checkpoint-{number:09d}.safetensors", [data])
    for name in _newest_first(folder)[KEPT:]:
        folder.remove(name)


def newest(folder: Folder) -> tuple[Manifest, dict[str, Tensor]] | None:
    """The newest whole checkpoint; None when there is none.

    A damaged one is passed over with a warning. Raises `StateError` when all are, or for another version.
    """
    damaged: StateError | None = None
    for name in _newest_first(folder):
        where = f"{folder}/{name}"
        try:
            return _decode(folder.read(name), where)
        except FileNotFoundError:
            pass  # a training that goes on has written newer ones and removed it
        except _Damaged as error:
            log.warning("a checkpoint is passed over for the one before it", reason=str(error))
            damaged = damaged or error
    if damaged is not None:
        raise StateError(f"{damaged} There is no whole one before it: train again.") from damaged
    return None


def newest_name(folder: Folder) -> str | None:
    """The file of the newest checkpoint, whole or not: another name says that there is a newer one."""
    names = _newest_first(folder)
    return names[0] if names else None


def existing(folder: Folder) -> tuple[Manifest, dict[str, Tensor]]:
    """As `newest`. Raises `InputError` when there is none."""
    found = newest(folder)
    if found is None:
        raise InputError(f"There is no trained model in {folder}: make one with streamgen images fit.")
    return found


class _Damaged(StateError):
    """Torn, short, or with a wrong checksum."""


def _decode(data: bytes, where: str) -> tuple[Manifest, dict[str, Tensor]]:
    try:
        arrays = safetensors.numpy.load(data)
        header = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")])
        sealed = header["__metadata__"]["manifest"]
        digest, text = sealed[:_DIGITS], sealed[_DIGITS:]
        if digest != _digest(text):
            raise _Damaged(f"The checkpoint {where} is damaged (wrong checksum of its manifest).")
        version = msgspec.json.decode(text)["version"]
        if version != VERSION:
            raise StateError(
                f"The checkpoint {where} has format version {version}, this streamgen reads {VERSION}: use "
                "the version that wrote it, or train again."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"The checkpoint {where} is damaged ({error}).") from error
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    if _checksum(state) != manifest.checksum:
        raise _Damaged(f"The checkpoint {where} is damaged (wrong checksum).")
    return manifest, state


def _newest_first(folder: Folder) -> list[str]:
    return sorted((name for name in folder.names() if _NAME.fullmatch(name)), reverse=True)


def _checksum(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        array = state[name].numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
