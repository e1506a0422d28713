"""Generated records are written as the stream's own, and read back as what they were meant to be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from streamgen.config import InputConfig
from streamgen.formats.decode import Decoder
from streamgen.publishing.notation import LOOKBACK, Notation
from streamgen.records import RawBatch, TopicPartition

SOURCE = TopicPartition("in", 0)
T0 = 1_404_172_800_000  # 2014-07-01 00:00 UTC


def batch(values: list[bytes], keys: list[bytes | None] | None = None, first: int = 0) -> RawBatch:
    N = len(values)
    return RawBatch(
        SOURCE, np.arange(first, first + N), np.full(N, T0 + 777), keys or [b"k"] * N, list(values),
        [[] for _ in values],
    )  # fmt: skip


def notation(config: InputConfig, features: tuple[str, ...], raw: RawBatch) -> Notation:
    made = Notation(config, features)
    decoded = Decoder(config, features).decode(raw)
    assert decoded.dead == []
    made.note(raw, decoded.columns, int(raw.offset_N[-1]) + 1)
    return made


def config(**settings: Any) -> InputConfig:
    return InputConfig.model_validate(
        {"topic": "in", "timestamp": {"field": "at", "max_ahead": None}, **settings}
    )


@pytest.mark.parametrize(
    ("given", "later", "timestamp"),
    [
        (1404172800, 1404174600, {}),
        (1404172800.5, 1404174600.5, {}),
        (1404172800000, 1404174600000, {}),
        (1404172800000000, 1404174600000000, {}),
        (14041728, 14043528, {"unit": "s"}),
        ("2014-07-01 00:00:00", "2014-07-01 00:30:00", {}),
        ("2014-07-01T00:00:00Z", "2014-07-01T00:30:00Z", {}),
        ("2014-07-01T00:00:00.250Z", "2014-07-01T00:30:00.250Z", {}),
        ("2014-07-01T00:00:00.250000", "2014-07-01T00:30:00.250000", {}),
        ("2014-07-01T02:00:00+02:00", "2014-07-01T02:30:00+02:00", {}),
        ("2014-10-26 00:00:00", "2014-10-26 00:30:00", {"timezone": "Europe/Berlin"}),
    ],
)
def test_a_time_is_written_as_the_newest_one(given: object, later: object, timestamp: dict[str, Any]) -> None:
    source = config(timestamp={"field": "at", "max_ahead": None} | timestamp)
    raw = batch([json.dumps({"at": given, "x": 1.5}).encode()])
    made = notation(source, ("x",), raw)
    newest = int(Decoder(source, ("x",)).decode(raw).columns.timestamp_N[0])
    written = json.loads(made.write("k", newest + 1_800_000, np.array([2.5]), np.array([False])))
    assert written == {"at": later, "x": 2.5}
    assert type(written["at"]) is type(given)


def test_local_times_are_those_of_the_zone_over_a_change_of_the_clock() -> None:
    """Half past one in Berlin is followed two hours later by half past two: the clock was put back."""
    source = config(timestamp={"field": "at", "timezone": "Europe/Berlin", "max_ahead": None})
    made = notation(source, ("x",), batch([b'{"at": "2014-10-26 01:30:00", "x": 1.5}']))
    newest = 1_414_279_800_000
    for hours, text in ((1, "2014-10-26 02:30:00"), (3, "2014-10-26 03:30:00"), (4, "2014-10-26 04:30:00")):
        value = made.write("k", newest + hours * 3_600_000, np.array([2.5]), np.array([False]))
        assert json.loads(value)["at"] == text


def test_without_any_record_a_time_is_in_the_configured_unit() -> None:
    for unit, expected in (("auto", T0), ("s", T0 // 1000), ("ns", T0 * 1_000_000)):
        made = Notation(config(timestamp={"field": "at", "unit": unit}), ("x",))
        assert json.loads(made.write(None, T0, np.array([1.0]), np.array([True]))) == {"at": expected, "x": 1}


@pytest.mark.parametrize(
    ("newest", "value", "whole", "expected"),
    [
        (b"1", 2.0, True, b"2"),
        (b"1.0", 2.0, True, b"2.0"),
        (b"true", 0.0, True, b"false"),
        (b"true", 2.0, True, b"2"),  # once was a number
        (b"1", 2.0, False, b"2.0"),
        (b"1.5", 2.25, False, b"2.25"),
        (b"null", 2.0, True, b"2"),  # the one before was 7
    ],
)
def test_a_value_is_written_as_the_newest_one_that_there_is(
    newest: bytes, value: float, whole: bool, expected: bytes
) -> None:
    records = [b'{"at": 1404172800, "x": 7, "y": 1}', b'{"at": 1404172801, "x": %s, "y": 1}' % newest]
    made = notation(config(), ("x", "y"), batch(records))
    written = made.write("k", T0, np.array([value, 1.0]), np.array([whole, True]))
    assert b'"x":' + expected + b"," in written


@pytest.mark.parametrize(
    "record",
    [
        b'{"at": 1404172800, "a": {"b": {"c": 1.5}, "d": 2.5}}',
        b'{"at": 1404172800, "a.b.c": 1.5, "a.d": 2.5}',
    ],
)
def test_names_are_nested_as_in_the_input(record: bytes) -> None:
    made = notation(config(), ("a.b.c", "a.d"), batch([record]))
    written = made.write(None, T0, np.array([1.5, 2.5]), np.array([False, False]))
    assert json.loads(written) == json.loads(record)


@pytest.mark.parametrize(
    ("field", "key"), [("berlin", "berlin"), ("7", "7"), (7, "7"), (7.5, "7.5"), (True, "true"), (7, "seven")]
)
def test_a_key_field_is_written_as_the_newest_one(field: object, key: str) -> None:
    source = config(key={"field": "shop"})
    made = notation(source, ("x",), batch([json.dumps({"at": 1404172800, "shop": field, "x": 1.5}).encode()]))
    written = made.write(key, T0, np.array([1.5]), np.array([False]))
    if key == "seven":
        assert json.loads(written)["shop"] == "seven"
    else:
        assert json.loads(written)["shop"] == field
        assert type(json.loads(written)["shop"]) is type(field)
    again = Decoder(source, ("x",)).decode(batch([written]))
    assert again.columns.key == [key]


def test_the_kafka_key_is_that_of_the_keys_records() -> None:
    def of(source: InputConfig, shops: str, keys: list[bytes | None], key: str | None) -> bytes | None:
        values = [json.dumps({"at": 1404172800, "shop": s, "x": 1.5}).encode() for s in shops]
        return notation(source, ("x",), batch(values, keys)).kafka_key(key)

    by_field, by_record = config(key={"field": "shop"}), config()
    assert of(by_record, "ab", [b"a", b"b"], "a") == b"a"
    assert of(by_record, "ab", [None, None], None) is None
    assert of(by_field, "ab", [b"a", b"b"], "c") == b"c"
    assert of(by_field, "ab", [b"1", b"2"], "a") == b"1"
    assert of(by_field, "ab", [None, None], "a") is None


def test_bare_numbers() -> None:
    source = InputConfig(topic="in", format="number")
    for newest, value, whole, expected in (
        (b"5", 6.0, True, b"6"), (b"5.5", 6.25, False, b"6.25"), (b"true", 0.0, True, b"false"),
        (b"5", 1e300, False, b"1e+300"),
    ):  # fmt: skip
        made = notation(source, ("value",), batch([newest]))
        assert made.write("k", T0, np.array([value]), np.array([whole])) == expected


def test_times_keep_the_streams_marks_and_rhythm() -> None:
    def times(seconds: list[float], gap_ms: float) -> list[int]:
        values = [b'{"at": %f, "x": 1.5}' % (1404172800 + s) for s in seconds]
        made = notation(config(), ("x",), batch(values))
        newest = T0 + int(1000 * seconds[-1])
        return [time - newest for time in made.times(newest, gap_ms, 1, 3)]

    assert times([0, 60, 180], 61_500.0) == [60_000, 120_000, 180_000]
    assert times([0, 61, 122], 61_400.0) == [61_000, 123_000, 184_000]
    assert times([0, 0.5, 1.1], 333.4) == [333, 667, 1000]
    assert times([0, 60], 0.0) == [60_000, 120_000, 180_000]
    assert times([0], 0.0) == [1, 2, 3]


def test_the_notation_is_that_of_the_last_offsets_however_they_came() -> None:
    old = [b'{"at": 1404172800.5, "x": true}'] + [b'{"at": 1404172801, "x": null, "y": 1}'] * (LOOKBACK - 1)
    made = notation(config(), ("x", "y"), batch(old[:LOOKBACK]))
    assert b'"x":true' in made.write("k", T0, np.array([1.0, 1.0]), np.array([True, True]))
    raw = batch([b'{"at": 1404172801, "x": null, "y": 1}'], first=LOOKBACK)
    made.note(raw, Decoder(config(), ("x", "y")).decode(raw).columns, LOOKBACK + 1)
    assert b'"x":1' in made.write("k", T0, np.array([1.0, 1.0]), np.array([True, True]))
    assert made.kafka_time(T0 + 5000) == T0 + 5000 + 777 - 1000
