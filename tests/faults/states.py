"""The final states of an application, read by nobody's code but this, to be compared bit for bit.

`final_states` finds them where they are: in the application's state topic, or in files.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from checker import State, read_topics
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

# What says when and by whom a state was written, and not what it is.
_NOT_STATE = {"written", "written_by", "about", "made_with"}


def final_states(bootstrap: str, application: str, directory: Path) -> dict[int, State]:
    """By partition of the one input topic. Call it after the workers ended in order."""
    return from_topic(bootstrap, application) or from_files(directory)


def from_topic(bootstrap: str, application: str) -> dict[int, State]:
    """What the newest records of the compacted state topic hold; empty where only pins are in it."""
    topic = f"{application}-state"
    newest: dict[bytes, bytes | None] = {}
    for _, record in read_topics(bootstrap, topic)[topic]:
        if record.key is not None:
            newest[record.key] = record.value
    found: dict[int, dict[str, bytes]] = {}
    parts: dict[tuple[int, str], dict[int, bytes]] = {}
    for key, value in newest.items():
        kind, _, partition, *rest = json.loads(key)
        if value is None or kind == "pin":
            continue
        if kind == "learner":
            parts.setdefault((partition, json.dumps(rest[0])), {})[rest[-1]] = value
        elif kind == "facts":
            parts.setdefault((partition, "facts"), {})[rest[-1]] = value
        else:
            nameless = value.replace(application.encode(), b"<application>")
            found.setdefault(partition, {})[kind] = _manifest(json.loads(nameless))
    for (partition, name), values in parts.items():
        whole = b"".join(values[n] for n in sorted(values))
        state = found.setdefault(partition, {})
        if name == "facts":
            state[name] = whole
        else:
            state |= {f"{name} {field}": _bits(array) for field, array in load(whole).items()}
    return dict(found)


def from_files(directory: Path) -> dict[int, State]:
    """What the checkpoint file of each task that reaches furthest holds, learner by learner. (Not the newest:
    who was frozen as it wrote one may have finished that later.)"""
    found: dict[int, State] = {}
    for folder in directory.glob("*-*"):
        files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stem.rpartition("-")[2])
        if not files:
            continue
        with safe_open(files[-1], framework="numpy") as file:
            manifest = json.loads(file.metadata()["manifest"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        del manifest["input"]  # with the names of the outputs
        facts = arrays.pop("json.facts").tobytes()
        state = {"task": _manifest(manifest), "facts": facts}
        for row, key in enumerate(json.loads(arrays.pop("json.keys").tobytes())):
            state |= {f"{json.dumps(key)} {name}": _bits(array[row]) for name, array in arrays.items()}
        found[int(folder.name.rpartition("-")[2])] = state
    return found


def is_whole(path: Path) -> bool:
    """Whether a checkpoint file can be read to its end."""
    try:
        with safe_open(path, framework="numpy") as file:
            return all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118
    except SafetensorError:
        return False


def _bits(array: NDArray[np.generic]) -> bytes:
    return f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()


def _manifest(manifest: dict[str, object]) -> bytes:
    return json.dumps({k: v for k, v in manifest.items() if k not in _NOT_STATE}, sort_keys=True).encode()
