"""A checkpoint: a task's whole state at one offset, and what it was made with. Every store holds these.

A learner is a map of named arrays; in bytes it is a safetensors file. There is no pickle, and nothing in a
checkpoint can be run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from streamgen import __version__
from streamgen.errors import StateError
from streamgen.records import TopicPartition

VERSION = 2

Fields = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class LearnerState:
    """One learner's whole state: arrays by name, those of `Task.slab.fields`."""

    key: str | None
    fields: Fields


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint is of. The state includes every record before `offset` and none from it on."""

    source: TopicPartition
    offset: int
    features: tuple[str, ...]
    seed: int
    input: Mapping[str, Any]  # the input's configuration, as JSON
    fingerprint: str  # of what changes learning
    topic_id: str = ""  # which topic of that name, see `Transport.topic_id`
    facts: Mapping[str, Any] = field(default_factory=dict)  # the task's own state beside its learners, JSON
    learners: int = 0
    checksum: str = ""  # of all learners and the facts, see `Tally`
    made_with: Mapping[str, str] = field(default_factory=dict)
    written: float = 0.0  # seconds since 1970
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A manifest with its learners by key."""

    manifest: Manifest
    learners: Mapping[str | None, Fields]


def usable(manifest: Manifest, at_most: int, topic_id: str) -> bool:
    """Whether a task whose committed offset is `at_most` may go on from this checkpoint."""
    return manifest.offset <= at_most and manifest.topic_id == topic_id


class Tally:
    """The checksum of a set of learners, kept while some of them change.

    The sum of the learners' hashes modulo 2¹²⁸: it does not depend on their order, and a learner that is
    replaced or removed takes its old hash out again. Equal states have equal checksums, in every store.
    """

    def __init__(self) -> None:
        self._hashes: dict[str | None, int] = {}
        self._sum = 0

    @classmethod
    def of(cls, learners: Mapping[str | None, Fields]) -> Tally:
        tally = cls()
        tally.update({key: learner_hash(key, fields) for key, fields in learners.items()}, ())
        return tally

    def update(self, changed: Mapping[str | None, int], removed: Iterable[str | None]) -> None:
        """Take the hashes of changed learners in and removed learners out."""
        for key in removed:
            self._sum -= self._hashes.pop(key, 0)
        for key, value in changed.items():
            self._sum += value - self._hashes.get(key, 0)
            self._hashes[key] = value

    def copy(self) -> Tally:
        copy = Tally()
        copy._hashes, copy._sum = dict(self._hashes), self._sum
        return copy

    def __len__(self) -> int:
        return len(self._hashes)

    def seal(self, manifest: Manifest) -> Manifest:
        """The manifest with the learners' number and checksum."""
        return replace(manifest, learners=len(self), checksum=self._checksum(manifest.facts))

    def check(self, manifest: Manifest, where: str) -> None:
        """Raises `StateError` when the learners are not those that the manifest was sealed with."""
        if len(self) != manifest.learners or self._checksum(manifest.facts) != manifest.checksum:
            raise StateError(
                f"The checkpoint of {manifest.source} at offset {manifest.offset} {where} is damaged: it has "
                f"{len(self)} learners of {manifest.learners}, or a wrong checksum."
            )

    def _checksum(self, facts: Mapping[str, Any]) -> str:
        return f"{(self._sum + _hash(msgspec.json.encode(facts, order='sorted'))) % 2**128:032x}"


def learner_hash(key: str | None, fields: Fields) -> int:
    """A 128-bit hash of a learner's key and arrays (names, types, shapes, bytes)."""
    digest = hashlib.blake2b(msgspec.json.encode(key), digest_size=16)
    for name in sorted(fields):
        array = np.asarray(fields[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return int.from_bytes(digest.digest())


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest())


def encode_fields(fields: Fields) -> bytes:
    """A learner as a safetensors file."""
    data: bytes = safetensors.numpy.save(
        {name: np.asarray(array, order="C") for name, array in fields.items()}
    )
    return data


def decode_fields(data: bytes, where: str) -> Fields:
    """Undo `encode_fields`. Raises `StateError` when it is no whole safetensors file."""
    try:
        fields: Fields = safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise StateError(f"The state of a learner {where} is damaged ({error}).") from error
    return fields


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest as JSON."""
    return msgspec.json.encode(manifest)


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Undo `encode_manifest`. Raises `StateError` for another version, or what is no manifest."""
    try:
        version = msgspec.json.decode(data)["version"]
    except (msgspec.DecodeError, TypeError, KeyError) as error:
        raise StateError(f"What is stored {where} is no checkpoint of streamgen.") from error
    if version != VERSION:
        raise StateError(
            f"The checkpoint {where} has format version {version}, this streamgen reads {VERSION}: run the "
            "version that wrote it, or learn again from the topic (streamgen state rebuild)."
        )
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise StateError(f"The manifest of the checkpoint {where} is damaged ({error}).") from error


def made_with() -> dict[str, str]:
    """What bitwise equality of later results depends on (docs/guarantees.md)."""
    return {
        "streamgen": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
