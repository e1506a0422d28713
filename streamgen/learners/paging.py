"""Learners that are not in memory: a file of fixed-size slots, one a learner.

The file is a cache and no state: it has no name (it is unlinked as soon as it is open), so that nothing is
left behind, whatever ends the process. What is read is bit by bit what was written.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir, mkstemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgen.errors import StopError
from streamgen.models.slab import Field
from streamgen.state.checkpoint import Fields


class PageFile:
    """Holds learners by key. `directory`: where the file is; None: where temporary files are.

    Raises `StopError` where the disk refuses; what was kept is kept then, and nothing else.
    """

    def __init__(self, fields: Mapping[str, Field], directory: Path | None = None) -> None:
        self._fields = fields
        self._directory = directory
        self._slot_bytes = sum(
            int(np.prod(field.shape)) * np.dtype(field.dtype).itemsize for field in fields.values()
        )
        self._file: int | None = None  # opened with the first learner
        self._slots: dict[str | None, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: str | None) -> bool:
        return key in self._slots

    def write(self, key: str | None, learner: Fields) -> None:
        """Keep a learner that is not kept yet."""
        data = b"".join(np.ascontiguousarray(learner[name]).tobytes() for name in self._fields)
        slot = self._free[-1] if self._free else len(self._slots)
        with self._refusals():
            file, written = self._open(), 0
            while written < len(data):
                written += os.pwrite(file, data[written:], slot * self._slot_bytes + written)
        if self._free:
            self._free.pop()
        self._slots[key] = slot

    def read(self, key: str | None) -> dict[str, NDArray[Any]]:
        """A copy of a learner."""
        data = bytearray(self._slot_bytes)
        with self._refusals():
            if os.preadv(self._open(), [data], self._slots[key] * self._slot_bytes) != len(data):
                raise OSError("the file is short")
        learner, start = {}, 0
        for name, field in self._fields.items():
            array = np.frombuffer(data, field.dtype, int(np.prod(field.shape)), start)
            learner[name] = array.reshape(field.shape)
            start += array.nbytes
        return learner

    def discard(self, key: str | None) -> None:
        """Keep a learner no more; the disk's space is given back when none is left."""
        self._free.append(self._slots.pop(key))
        if not self._slots:
            with self._refusals():
                os.truncate(self._open(), 0)
            self._free.clear()

    def _open(self) -> int:
        if self._file is None:
            self._file, path = mkstemp(prefix="streamgen-", suffix=".pages", dir=self._directory)
            os.unlink(path)
            weakref.finalize(self, os.close, self._file)
        return self._file

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StopError(
                f"The learners beyond max_resident cannot be kept under {self._directory or gettempdir()} "
                f"({error}): make room there, choose another directory, or raise max_resident."
            ) from error
