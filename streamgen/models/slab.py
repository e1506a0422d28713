"""The state of many learners, stacked: one array a field, one row a learner; or one for all of them.

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
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from streamgen.errors import StateError

ALIGN = 16  # float32 values in 64 bytes
SMALL = 64  # rows; fewer are not worth moving


def padded(size: int) -> int:
    """`size` rounded up to whole 64-byte lines of float32."""
    return -(-size // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a learner's state. `on_device`: a float32 tensor that lives where the model computes.
    `shared`: there is one for all learners, and every row is a view of it."""

    shape: tuple[int, ...] = ()
    dtype: str = "float64"
    fill: float = 0.0
    on_device: bool = False
    shared: bool = False


class Slab:
    """All fields of M learners. A row is a learner's whole state and nothing else, but for what they share.

    A removed learner's row is the next one's to come. `most` is the largest number of learners there will
    ever be at once, if there is one: no memory is taken beyond it.
    """

    def __init__(self, fields: Mapping[str, Field], device: str = "cpu", most: int | None = None) -> None:
        self.fields = dict(fields)
        self.own = {name: field for name, field in fields.items() if not field.shared}
        self.common = {name: field for name, field in fields.items() if field.shared}
        self.device = torch.device(device)
        self.generation = 0  # counts reallocations: a view taken before is stale after
        self.capacity = 0  # rows that there is memory for
        self._most = most
        self._host: dict[str, NDArray[Any]] = {}
        self._device: dict[str, torch.Tensor] = {}
        self._end = 0  # rows from here on have their fill values
        self._free: list[int] = []  # rows before `_end` that are nobody's
        self._allocate(1, slice(0), 0)

    @property
    def size(self) -> int:
        """M."""
        return self._end - len(self._free)

    def host(self, name: str) -> NDArray[Any]:
        """The [M_capacity, ...] array of a host field; take it anew after `add` and `compact`."""
        return self._host[name]

    def tensor(self, name: str) -> torch.Tensor:
        """The [M_capacity, ...] float32 tensor of a device field; take it anew after `add` and `compact`."""
        return self._device[name]

    def add(self) -> int:
        """A learner more, whose fields have their fill values; return its row."""
        if self._free:
            row = self._free.pop()
            for name, field in self.own.items():
                (self._device if field.on_device else self._host)[name][row] = field.fill
            return row
        if self._end == self.capacity:
            doubled = 2 * self.capacity
            most = doubled if self._most is None else min(doubled, self._most)
            self._allocate(most, slice(self._end), self._end)
        self._end += 1
        return self._end - 1

    def reserve(self, count: int) -> None:
        """Memory for `count` learners at once, for they are about to come."""
        count = count if self._most is None else min(count, self._most)
        if count > self.capacity:
            self._allocate(count, slice(self._end), self._end)

    def remove(self, row: int) -> None:
        """The row is nobody's from here on."""
        self._free.append(row)

    @property
    def sparse(self) -> bool:
        """Whether `compact` would give back most of the memory."""
        return 4 * self.size <= self.capacity and self.capacity >= SMALL

    def compact(self) -> dict[int, int]:
        """Give back the memory of removed learners; returns the new row of each learner's old one."""
        kept = sorted(set(range(self._end)).difference(self._free))
        self._allocate(max(2 * len(kept), 1), kept, len(kept))
        self._end, self._free = len(kept), []
        return {old: new for new, old in enumerate(kept)}

    def row(self, row: int) -> dict[str, NDArray[Any]]:
        """Copies of all fields of one learner that are its own."""
        return self._copy(self.own, row)

    def shared(self) -> dict[str, NDArray[Any]]:
        """Copies of the fields that all learners share."""
        return self._copy(self.common, 0)

    def load(self, row: int, learner: Mapping[str, NDArray[Any]]) -> None:
        """Replace one learner by another that `row` gave. Raises `StateError`, and changes nothing, when the
        fields are not these."""
        self._replace(self.own, row, learner)

    def load_shared(self, fields: Mapping[str, NDArray[Any]]) -> None:
        """Replace what all learners share by what `shared` gave. Raises as `load` does."""
        self._replace(self.common, 0, fields)

    @property
    def bytes_per_learner(self) -> int:
        """Bytes that one more learner takes."""
        host = sum(self._host[name][0].nbytes for name in self.own if name in self._host)
        return int(host + sum(4 * self._device[name][0].numel() for name in self.own if name in self._device))

    def _copy(self, fields: Mapping[str, Field], row: int) -> dict[str, NDArray[Any]]:
        return {
            name: np.array(
                self._device[name][row].cpu().numpy() if field.on_device else self._host[name][row]
            )
            for name, field in fields.items()
        }

    def _replace(self, fields: Mapping[str, Field], row: int, learner: Mapping[str, NDArray[Any]]) -> None:
        mine = {name: (field.shape, np.dtype(field.dtype)) for name, field in fields.items()}
        theirs = {name: (array.shape, array.dtype) for name, array in learner.items()}
        if mine != theirs:
            wrong = sorted(name for name in mine.keys() | theirs if mine.get(name) != theirs.get(name))
            raise StateError(
                f"The state is of another version of streamgen ({', '.join(wrong)} differ): run the version "
                "that wrote it, or learn again from the topic (streamgen state rebuild)."
            )
        for name, field in fields.items():
            if field.on_device:
                self._device[name][row] = torch.from_numpy(np.array(learner[name], dtype=np.float32))
            else:
                self._host[name][row] = learner[name]

    def _allocate(self, capacity: int, kept: slice | list[int], count: int) -> None:
        """Memory for `capacity` learners, of which the first are the `count` rows `kept`."""
        for name, field in self.fields.items():
            shape = (capacity, *field.shape)
            if field.shared and self.capacity:  # a step of 0 from row to row
                if field.on_device:
                    self._device[name] = self._device[name][:1].expand(shape)
                else:
                    one = self._host[name][:1]
                    self._host[name] = as_strided(one, shape, (0, *one.strides[1:]))
            elif field.on_device:
                length = math.prod(field.shape)
                lines = torch.full((capacity, padded(length)), field.fill, device=self.device)
                tensor = lines[:, :length].view(shape)
                if count:
                    tensor[:count] = self._device[name][kept]
                self._device[name] = tensor
            else:
                array = np.full(shape, field.fill, dtype=field.dtype)
                if count:
                    array[:count] = self._host[name][kept]
                self._host[name] = array
        self.capacity = capacity
        self.generation += 1
