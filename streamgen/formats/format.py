"""What a record format is. A new one is a file beside this and a line in `streamgen/formats/__init__.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Protocol


class Absent(Enum):
    """The value of a field that a record does not have (null is another thing)."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

# A record nested deeper is malformed. A limit of our own, because the interpreter's depends on how deep
# the caller's stack is, and then the same record could pass in one run and fail in the next.
MAX_DEPTH: Final = 100


class Format(Protocol):
    """Reads the bytes of one record's value. Holds no state.

    A scalar is None, a bool, an int, a float (also NaN and infinite) or a str.
    """

    named: bool  # whether its fields have names; if not, there is one value and no other field

    def parse(self, value: bytes) -> Any:
        """The record, to be given to the functions below. Raises ValueError, whatever the bytes."""

    def getter(self, paths: tuple[str, ...]) -> Callable[[Any], tuple[object, ...]]:
        """A function from a record to the values of these fields, `ABSENT` where it has none."""

    def write(self, fields: Iterable[tuple[str, object]], like: Any = None) -> bytes:
        """The bytes of a record with these scalar fields, its names nested as in `like`, a parsed one."""

    def fields(self, record: Any, known: frozenset[str] = frozenset()) -> Iterable[tuple[str, object]]:
        """Path and value of the scalar fields that are not in `known`, in order of appearance."""
