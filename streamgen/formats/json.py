"""JSON objects. A nested field is named by its dotted path: `{"disk": {"read": 1}}` has `disk.read`.

A name that itself holds a dot can be written as it is; where both readings exist, the nested one counts.
Of a name that appears twice the last value counts. Arrays are not fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

import msgspec

from streamgen.formats.format import ABSENT, MAX_DEPTH

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|[\[{\]}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST_INT = 400  # digits; every longer number is beyond float64


def _parse_int(text: str) -> int | float:
    return int(text) if len(text) <= _LONGEST_INT else float(text)


_decode = msgspec.json.Decoder().decode
# What many producers write and the standard forbids: NaN, Infinity, a byte order mark; and numbers
# beyond float64, which are not malformed but infinite.
_lenient = json.JSONDecoder(parse_int=_parse_int).decode


class JsonFormat:
    named = True

    def parse(self, value: bytes) -> Any:
        if len(value) > MAX_DEPTH and value.count(b"{") + value.count(b"[") > MAX_DEPTH:
            _check_depth(value)
        try:
            record = _decode(value)
        except ValueError:
            record = _lenient(value.decode("utf-8-sig"))
            if _SURROGATE.search(value):
                # Raises UnicodeEncodeError (a ValueError) where half a surrogate pair hides in a string.
                json.dumps(record, ensure_ascii=False).encode()
        if type(record) is not dict:
            raise ValueError("not a JSON object")
        return record

    def getter(self, paths: tuple[str, ...]) -> Callable[[Any], tuple[object, ...]]:
        find_each = tuple(_finder(path) for path in paths)

        def search(record: Any) -> tuple[object, ...]:
            return tuple([find(record) for find in find_each])

        if not paths or any("." in path for path in paths):
            return search
        pick = itemgetter(*paths)

        def flat(record: Any) -> tuple[object, ...]:
            try:
                return pick(record)  # type: ignore[no-any-return]
            except KeyError:
                return search(record)

        def single(record: Any) -> tuple[object, ...]:
            return (record.get(paths[0], ABSENT),)

        return flat if len(paths) > 1 else single

    def write(self, fields: Iterable[tuple[str, object]], like: Any = None) -> bytes:
        record: dict[str, Any] = {}
        for path, value in fields:
            # A name that holds a dot is written as it is where records have it so.
            *outer, name = [path] if type(like) is dict and path in like else path.split(".")
            place = record
            for one in outer:
                place = place.setdefault(one, {})
            place[name] = value
        return msgspec.json.encode(record)

    def fields(self, record: Any, known: frozenset[str] = frozenset()) -> Iterable[tuple[str, object]]:
        if record.keys() <= known:
            return ()
        found: list[tuple[str, object]] = []
        for name, value in record.items():
            if type(value) is dict:
                found += [leaf for leaf in _leaves(value, f"{name}.") if leaf[0] not in known]
            elif name not in known and type(value) is not list:
                found.append((name, value))
        return found


def _finder(path: str) -> Callable[[Any], object]:
    names = tuple(path.split("."))
    if len(names) == 1:
        return lambda record: record.get(path, ABSENT)
    if len(names) == 2:
        outer, inner = names

        def find_nested(record: Any) -> object:
            try:
                return record[outer][inner]
            except (KeyError, TypeError, IndexError):
                return _search(record, names)

        return find_nested
    return lambda record: _search(record, names)


def _search(record: object, names: tuple[str, ...]) -> object:
    """The field at this path, the shortest first name first, so that nested wins over dotted."""
    if not names:
        return record
    if type(record) is dict:
        for n in range(1, len(names) + 1):
            inner = record.get(".".join(names[:n]), ABSENT)
            if inner is not ABSENT:
                found = _search(inner, names[n:])
                if found is not ABSENT:
                    return found
    return ABSENT


def _leaves(record: dict[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in record.items():
        if type(value) is dict:
            yield from _leaves(value, f"{prefix}{name}.")
        elif type(value) is not list:
            yield prefix + name, value


def _check_depth(value: bytes) -> None:
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(value):
        first = value[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
        elif first in b"]}":
            depth -= 1
