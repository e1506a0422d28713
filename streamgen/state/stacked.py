"""A whole checkpoint as one safetensors file: the learners stacked field by field.

    manifest         metadata: the manifest as JSON, without the facts
    manifest_digest  metadata: its hash, as the learners' checksum does not cover it
    field.<name>     [M, ...] of M learners
    json.keys        the M keys as JSON, in bytes
    json.facts       the task's own state as JSON, in bytes

Keys and facts are tensors because safetensors limits the length of its header, and they have no limit.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from streamgen.errors import StateError
from streamgen.state.checkpoint import (
    Checkpoint,
    LearnerState,
    Manifest,
    Tally,
    decode_manifest,
    encode_manifest,
    learner_hash,
    made_with,
)

_KEYS, _FACTS, _FIELD = "json.keys", "json.facts", "field."
_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip


class Damaged(StateError):
    """The file is torn, short, or has a wrong checksum: the one before it may be whole."""


class Stack:
    """Learners on their way into a file. Memory: all of them once, as the number must be known first."""

    def __init__(self, learners: Iterable[LearnerState]) -> None:
        self._keys: list[str | None] = []
        self._kinds: dict[str, tuple[str, tuple[int, ...]]] = {}  # type and shape of each field
        self._rows: dict[str, bytearray] = {}
        self._tally = Tally()
        for learner in learners:
            self._add(learner)

    def encode(self, manifest: Manifest) -> tuple[Manifest, list[bytes | bytearray]]:
        """The sealed manifest, and the file in pieces."""
        sealed = replace(
            self._tally.seal(manifest),
            made_with=manifest.made_with or made_with(),  # of one that is moved: where it was learned
            written=manifest.written or time.time(),
        )
        slim = encode_manifest(replace(sealed, facts={}))
        tensors: dict[str, tuple[str, list[int], bytes | bytearray]] = {
            _FIELD + name: (_DTYPES[dtype], [len(self._keys), *shape], self._rows[name])
            for name, (dtype, shape) in self._kinds.items()
        }
        for name, value in ((_KEYS, self._keys), (_FACTS, sealed.facts)):
            text = msgspec.json.encode(value)
            tensors[name] = "U8", [len(text)], text
        header: dict[str, Any] = {
            "__metadata__": {"manifest": slim.decode(), "manifest_digest": _digest(slim)}
        }
        end = 0
        for name, (dtype, shape_M, data) in tensors.items():
            header[name] = {"dtype": dtype, "shape": shape_M, "data_offsets": [end, end + len(data)]}
            end += len(data)
        encoded = msgspec.json.encode(header)
        encoded += b" " * (-len(encoded) % 8)
        return sealed, [len(encoded).to_bytes(8, "little"), encoded, *(data for *_, data in tensors.values())]

    def _add(self, learner: LearnerState) -> None:
        kinds = {name: (array.dtype.name, array.shape) for name, array in learner.fields.items()}
        if not self._keys:
            self._kinds, self._rows = kinds, {name: bytearray() for name in kinds}
        if kinds != self._kinds:
            raise StateError(f"The learner of {learner.key!r} has other fields than the task's first.")
        for name, array in learner.fields.items():
            self._rows[name] += array.tobytes()
        self._keys.append(learner.key)
        self._tally.update({learner.key: learner_hash(learner.key, learner.fields)}, ())


def decode(data: bytes, where: str) -> Checkpoint:
    """Undo `Stack.encode`.

    Raises `Damaged` for a torn or short file or a wrong checksum, and `StateError` for another version of the
    format or what is no checkpoint.
    """
    try:
        tensors: dict[str, NDArray[Any]] = safetensors.numpy.load(data)
        header = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        raise Damaged(f"The checkpoint {where} is damaged ({error}).") from error
    slim = metadata.get("manifest", "").encode()
    if metadata.get("manifest_digest", _digest(slim)) != _digest(slim):
        raise Damaged(f"The checkpoint {where} is damaged (wrong checksum of its manifest).")
    manifest = decode_manifest(slim, where)
    try:
        keys = msgspec.json.decode(tensors.pop(_KEYS).tobytes(), type=list[str | None])
        facts = msgspec.json.decode(tensors.pop(_FACTS).tobytes(), type=dict[str, Any])
        fields = {name.removeprefix(_FIELD): array for name, array in tensors.items()}
        learners = {
            key: {name: array[m, ...] for name, array in fields.items()} for m, key in enumerate(keys)
        }
        checkpoint = Checkpoint(replace(manifest, facts=facts), learners)
        Tally.of(learners).check(checkpoint.manifest, where)
    except (KeyError, IndexError, msgspec.DecodeError) as error:
        raise Damaged(f"The checkpoint {where} is damaged ({error}).") from error
    except StateError as error:
        raise Damaged(str(error)) from error
    return checkpoint


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
