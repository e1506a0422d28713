"""Facts resolved once and stored for the application: whoever decides first decides for all.

A pin is a record of the compacted topic `<application_id>-state`, written by one transactional producer
at a time: its key is the JSON array `["pin", topic, name]`, its value `{"version": 1, "value": ...}`.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from streamgen.errors import StateError

VERSION = 1


class Pins(Protocol):
    """The application's pinned facts."""

    def get(self, topic: str, name: str) -> Any:
        """The pinned JSON value, or None."""

    def put_if_absent(self, topic: str, name: str, value: Any) -> Any:
        """Pin a JSON value other than None, unless one stands already; returns the one that stands."""


def encode_key(topic: str, name: str) -> bytes:
    return msgspec.json.encode(["pin", topic, name])


def encode_value(value: Any) -> bytes:
    return msgspec.json.encode({"version": VERSION, "value": value})


def decode_value(key: bytes, encoded: bytes) -> Any:
    """The pinned value. Raises `StateError` for a record of another version or none of ours."""
    try:
        record = msgspec.json.decode(encoded)
    except msgspec.DecodeError as error:
        raise StateError(f"The pin {key.decode(errors='replace')} is not JSON: {error}.") from error
    version = record.get("version") if isinstance(record, dict) else None
    if version != VERSION or "value" not in record:
        raise StateError(
            f"The pin {key.decode(errors='replace')} has version {version}, this streamgen reads version "
            f"{VERSION}: run the version that wrote it, or choose another application_id."
        )
    return record["value"]
