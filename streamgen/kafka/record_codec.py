"""The body of a record batch of format 2, between columns and bytes, one loop for all its records.

    record  = length attributes(1 byte) timestamp_delta offset_delta key value header_count header*
    key, value, header value = length (-1: null) bytes;  header = key_length key value

All numbers are zigzag variable-length integers. The format is public and fixed:
https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from typing import NamedTuple

from streamgen.records import Headers, OutputBatch


class Decoded(NamedTuple):
    """Columns of the records of one batch; `timestamp` in milliseconds since 1970-01-01 UTC."""

    offset: list[int]
    timestamp: list[int]
    key: list[bytes | None]
    value: list[bytes | None]
    headers: list[Headers]

    def rows(self, first: int, last: int | None) -> Decoded:
        cut = slice(first, last)
        return Decoded(
            self.offset[cut], self.timestamp[cut], self.key[cut], self.value[cut], self.headers[cut]
        )


def varint(number: int) -> bytes:
    """A signed number of up to 64 bits, zigzag, seven bits a byte, lowest first."""
    rest = number << 1 if number >= 0 else (~number << 1) | 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_SMALL = [varint(number) for number in range(4096)]  # lengths and deltas are nearly always below
_NULL = varint(-1)


def _length(number: int) -> bytes:
    return _SMALL[number] if number < 4096 else varint(number)


def encode_records(batch: OutputBatch, first: int, limit: int) -> tuple[bytes, int]:
    """Records of a batch from row `first` on, up to `limit` bytes but one at least; and the next row.

    Offsets are counted from 0 and timestamps from the first record's, as in a batch of their own.
    """
    out: list[bytes] = []
    add = out.append
    names: dict[str, bytes] = {}  # the few header names, with their length
    small, start = _SMALL, batch.timestamp[first]
    rows = slice(first, None) if first else slice(None)
    columns = zip(batch.timestamp[rows], batch.key[rows], batch.value[rows], batch.headers[rows], strict=True)
    size = count = 0
    for at, key, value, pairs in columns:
        delta = at - start
        parts = [b"\0", small[delta] if 0 <= delta < 4096 else varint(delta), _length(count)]
        parts += (_NULL,) if key is None else (_length(len(key)), key)
        parts += (_NULL,) if value is None else (_length(len(value)), value)
        parts.append(_length(len(pairs)))
        for name, content in pairs:
            encoded = names.get(name)
            if encoded is None:
                raw = name.encode()
                encoded = names[name] = _length(len(raw)) + raw
            if content is None:  # another producer's null, passed on
                parts += (encoded, _NULL)
            else:
                length = len(content)
                parts += (encoded, small[length] if length < 4096 else varint(length), content)
        body = b"".join(parts)
        size += len(body) + 5
        if size > limit and count:
            break
        add(_length(len(body)))
        add(body)
        count += 1
    return b"".join(out), first + count


def _read(buffer: bytes, at: int) -> tuple[int, int]:
    """A number and where the next one begins."""
    byte = buffer[at]
    rest, shift = byte & 0x7F, 7
    while byte & 0x80:
        at += 1
        byte = buffer[at]
        rest |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise ValueError("a number has more than 64 bits")
    return (rest >> 1) ^ -(rest & 1), at + 1


def decode_records(
    buffer: bytes, count: int, base_offset: int, first_timestamp: int, append_time: int | None
) -> Decoded:
    """`count` records that fill `buffer`. `append_time`, if given, is every record's timestamp.

    Raises `ValueError` or `IndexError` when the bytes are not that.
    """
    out = Decoded([], [], [], [], [])
    names: dict[bytes, str] = {}
    at = 0
    for _ in range(count):
        length, at = _read(buffer, at)
        end = at + length
        at += 1  # attributes, unused
        # One byte is by far the most frequent size of each number, so that case is written out.
        byte = buffer[at]
        if byte & 0x80:
            delta, at = _read(buffer, at)
        else:
            delta, at = (byte >> 1) ^ -(byte & 1), at + 1
        out.timestamp.append(first_timestamp + delta)
        delta, at = _read(buffer, at)
        out.offset.append(base_offset + delta)
        byte = buffer[at]
        if byte & 0x80:
            size, at = _read(buffer, at)
        else:
            size, at = (byte >> 1) ^ -(byte & 1), at + 1
        if size < 0:
            out.key.append(None)
        else:
            out.key.append(buffer[at : at + size])
            at += size
        size, at = _read(buffer, at)
        if size < 0:
            out.value.append(None)
        else:
            out.value.append(buffer[at : at + size])
            at += size
        pairs: Headers = []
        if buffer[at]:
            at = _decode_headers(buffer, at, names, pairs)
        else:
            at += 1
        out.headers.append(pairs)
        if at != end:
            raise ValueError(f"a record ends at byte {at} instead of {end}")
    if at != len(buffer):
        raise ValueError(f"{len(buffer) - at} bytes are left over after {count} records")
    return out if append_time is None else out._replace(timestamp=[append_time] * count)


def _decode_headers(buffer: bytes, at: int, names: dict[bytes, str], pairs: Headers) -> int:
    count, at = _read(buffer, at)
    if count < 0:
        raise ValueError(f"a record has {count} headers")
    for _ in range(count):
        size, at = _read(buffer, at)
        if size < 0:
            raise ValueError("a header has no name")
        raw = buffer[at : at + size]
        name = names.get(raw)
        if name is None:
            name = names[raw] = raw.decode()
        at += size
        size, at = _read(buffer, at)
        # A null is kept as it is, so that a record that is passed on keeps its headers to the byte.
        pairs.append((name, buffer[at : at + size] if size >= 0 else None))  # type: ignore[arg-type]
        at += max(size, 0)
    return at
