"""One bare number a record, as text: `12.5`, `-3`, `1e-9`; also `true`, `false`, `null` and `NaN`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_LARGEST_WHOLE = 2**53
_WORDS: dict[bytes, object] = {
    b"null": None,
    b"true": True,
    b"false": False,
    b"nan": float("nan"),
    b"-nan": float("nan"),
    b"inf": float("inf"),
    b"-inf": float("-inf"),
    b"infinity": float("inf"),
    b"-infinity": float("-inf"),
}


class NumberFormat:
    """Its one field is called `value` unless the configuration gives another name."""

    named = False

    def parse(self, value: bytes) -> Any:
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        word = text.lower()
        if word in _WORDS:
            return _WORDS[word]
        raise ValueError("not a number")

    def getter(self, paths: tuple[str, ...]) -> Callable[[Any], tuple[object, ...]]:
        return lambda record: (record,) * len(paths)

    def write(self, fields: Iterable[tuple[str, object]], like: Any = None) -> bytes:
        ((_, value),) = fields
        # A whole number without a point is read as the same by whoever reads one with it, not the other way.
        whole = isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_WHOLE
        return json.dumps(int(value) if whole else value).encode()  # type: ignore[call-overload]

    def fields(self, record: Any, known: frozenset[str] = frozenset()) -> Iterable[tuple[str, object]]:
        return () if known else (("value", record),)
