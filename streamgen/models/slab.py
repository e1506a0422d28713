"""The state of many learners, stacked: one array a field, one row a learner.

M is the number of learners. Weights and optimiser moments are flat float32 vectors, so that a kernel can
walk all learners of one buffer. Every row of a tensor starts on a 64-byte line: libraries may round
differently when a vector starts elsewhere, and a learner's result must not depend on its row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamgen.errors import StateError

ALIGN = 16  # float32 values in 64 bytes


def padded(size: int) -> int:
    """`size` rounded up to whole 64-byte lines of float32."""
    return -(-size // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a learner's state. `on_device`: a float32 tensor that lives where the model computes."""

    shape: tuple[int, ...] = ()
    dtype: str = "float64"
    fill: float = 0.0
    on_device: bool = False


class Slab:
    """All fields of M learners. A row is a learner's whole state and nothing else."""

    def __init__(self, fields: Mapping[str, Field], device: str = "cpu") -> None:
        self.fields = dict(fields)
        self.device = torch.device(device)
        self.size = 0
        self.generation = 0  # counts reallocations: a view taken before is stale after
        self._host: dict[str, NDArray[Any]] = {}
        self._device: dict[str, torch.Tensor] = {}
        self._capacity = 0
        self._reserve(1)

    def host(self, name: str) -> NDArray[Any]:
        """The [M_capacity, ...] array of a host field; take it anew after `add`."""
        return self._host[name]

    def tensor(self, name: str) -> torch.Tensor:
        """The [M_capacity, ...] float32 tensor of a device field; take it anew after `add`."""
        return self._device[name]

    def add(self) -> int:
        """Append a learner whose fields have their fill values; return its row."""
        if self.size == self._capacity:
            self._reserve(2 * self._capacity)
        self.size += 1
        return self.size - 1

    def row(self, row: int) -> dict[str, NDArray[Any]]:
        """Copies of all fields of one learner."""
        return {
            name: np.array(
                self._device[name][row].cpu().numpy() if field.on_device else self._host[name][row]
            )
            for name, field in self.fields.items()
        }

    def load(self, row: int, learner: Mapping[str, NDArray[Any]]) -> None:
        """Replace one learner by another that `row` gave. Raises `StateError`, and changes nothing, when the
        fields are not these."""
        mine = {name: (field.shape, field.dtype) for name, field in self.fields.items()}
        theirs = {name: (array.shape, array.dtype.name) for name, array in learner.items()}
        if mine != theirs:
            wrong = sorted(name for name in mine.keys() | theirs if mine.get(name) != theirs.get(name))
            raise StateError(
                f"The state is of another version of streamgen ({', '.join(wrong)} differ): run the version "
                "that wrote it, or learn again from the topic (streamgen state rebuild)."
            )
        for name, field in self.fields.items():
            if field.on_device:
                self._device[name][row] = torch.from_numpy(np.array(learner[name], dtype=np.float32))
            else:
                self._host[name][row] = learner[name]

    @property
    def bytes_per_learner(self) -> int:
        """Bytes that one more learner takes."""
        host = sum(array[0].nbytes for array in self._host.values())
        return int(host + sum(4 * tensor[0].numel() for tensor in self._device.values()))

    def _reserve(self, capacity: int) -> None:
        if capacity <= self._capacity:
            return
        for name, field in self.fields.items():
            shape = (capacity, *field.shape)
            if field.on_device:
                length = math.prod(field.shape)
                lines = torch.full((capacity, padded(length)), field.fill, device=self.device)
                tensor = lines[:, :length].view(shape)
                if self.size:
                    tensor[: self.size] = self._device[name][: self.size]
                self._device[name] = tensor
            else:
                array = np.full(shape, field.fill, dtype=field.dtype)
                if self.size:
                    array[: self.size] = self._host[name][: self.size]
                self._host[name] = array
        self._capacity = capacity
        self.generation += 1
