"""Decoding: each case is one record and what becomes of it."""

from __future__ import annotations

import json
import math
import struct
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgen.config import InputConfig
from streamgen.errors import ConfigError
from streamgen.formats import MAX_DEPTH
from streamgen.formats.decode import Decoded, Decoder, discover, unusable_before_discovery
from streamgen.records import RawBatch, Reason, TopicPartition

KAFKA_MS = 1_404_172_800_000  # 2014-07-01 00:00:00 UTC
NAN = math.nan


def batch(
    values: list[bytes | None], keys: list[bytes | None] | None = None, times: list[int] | None = None
) -> RawBatch:
    n = len(values)
    return RawBatch(
        source=TopicPartition("t", 0),
        offset_N=np.arange(100, 100 + n),
        timestamp_N=np.array([KAFKA_MS] * n if times is None else times, dtype=np.int64),
        key=[None] * n if keys is None else keys,
        value=values,
        headers=[[] for _ in range(n)],
    )


def config(**settings: Any) -> InputConfig:
    return InputConfig.model_validate({"topic": "t", **settings})


def one(decoded: Decoded) -> Reason | list[float]:
    """The reason that one record is dead, or its values."""
    if decoded.dead:
        assert len(decoded.columns) == 0
        assert decoded.dead[0].detail
        return decoded.dead[0].reason
    return list(decoded.columns.value_ND[0])


DEEP = b'{"a": 1, "x": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}"
NEARLY_DEEP = b'{"a": 1, "x": ' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
BRACKETS_IN_TEXT = b'{"a": 1, "x": "' + b'\\"[' * (MAX_DEPTH + 1) + b'"}'

VALUES: list[tuple[bytes | None, Reason | list[float]]] = [
    (b'{"a": 1, "b": 2.5}', [1.0, 2.5]),
    (b'{"b": 2.5, "a": -1e-3}', [-1e-3, 2.5]),
    (b'{"a": true, "b": false}', [1.0, 0.0]),
    (b'{"a": 9007199254740993, "b": 0.1}', [9007199254740992.0, 0.1]),
    (b' \r\n{"a": 1,\t"b": 2}\n', [1.0, 2.0]),
    # missing
    (b'{"a": 1, "b": null}', [1.0, NAN]),
    (b'{"a": 1, "b": NaN}', [1.0, NAN]),
    (b'{"a": 1}', [1.0, NAN]),
    (b'{"a": 1, "b": "2"}', [1.0, NAN]),
    (b'{"a": 1, "b": "NaN"}', [1.0, NAN]),
    (b'{"a": 1, "b": [2]}', [1.0, NAN]),
    (b'{"a": 1, "b": {"c": 2}}', [1.0, NAN]),
    (b'{"a": NaN, "b": NaN}', Reason.NO_USABLE_VALUE),
    (b'{"a": null, "b": "x"}', Reason.NO_USABLE_VALUE),
    (b"{}", Reason.NO_USABLE_VALUE),
    # infinite
    (b'{"a": Infinity, "b": 1}', Reason.NOT_FINITE),
    (b'{"a": 1, "b": -Infinity}', Reason.NOT_FINITE),
    (b'{"a": 1, "b": 1e999}', Reason.NOT_FINITE),
    (b'{"a": 1, "b": ' + b"9" * 400 + b"}", Reason.NOT_FINITE),
    (b'{"a": 1, "b": ' + b"9" * 9000 + b"}", Reason.NOT_FINITE),
    (b'{"a": 1e308, "b": 1e308}', [1e308, 1e308]),  # finite, though their sum is not
    (b'{"a": 1' + b"0" * 308 + b', "b": 1' + b"0" * 308 + b"}", [1e308, 1e308]),
    (b'{"a": 1, "b": 2, "other": 1e999}', [1.0, 2.0]),
    # malformed
    (None, Reason.EMPTY),
    (b"", Reason.EMPTY),
    (b" ", Reason.MALFORMED),
    (b"null", Reason.MALFORMED),
    (b"[1, 2]", Reason.MALFORMED),
    (b"1", Reason.MALFORMED),
    (b'{"a": 1', Reason.MALFORMED),
    (b'{"a": 1} {"a": 2}', Reason.MALFORMED),
    (b"{'a': 1}", Reason.MALFORMED),
    (b'{"a": 01}', Reason.MALFORMED),
    (b'{"a": 1, "x": "\xff"}', Reason.MALFORMED),
    (b'{"a": NaN, "b": 1, "x": "\xff"}', Reason.MALFORMED),
    ('{"a": 1}'.encode("utf-16"), Reason.MALFORMED),
    (b'{"a": 1, "x": "\\ud800"}', Reason.MALFORMED),
    (b'{"a": 1, "\\uDFFF": 2}', Reason.MALFORMED),
    (b"\x00\x01\x02", Reason.MALFORMED),
    (DEEP, Reason.MALFORMED),
    (b"[" * 200_000, Reason.MALFORMED),
    (b'{"a":' * 50_000, Reason.MALFORMED),
    # odd, and well formed
    (NEARLY_DEEP, [1.0, NAN]),
    (BRACKETS_IN_TEXT, [1.0, NAN]),
    (b'\xef\xbb\xbf{"a": 1, "b": 2}', [1.0, 2.0]),
    (b'{"a": 1, "a": 3, "b": 2}', [3.0, 2.0]),
    (b'{"a": 1, "b": NaN, "a": 3}', [3.0, NAN]),
    (b'{"a": 1, "b": NaN, "x": "\\ud83d\\ude00"}', [1.0, NAN]),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[repr(v)[:40] for v, _ in VALUES])
def test_values(value: bytes | None, expected: Reason | list[float]) -> None:
    got = one(Decoder(config(), ("a", "b")).decode(batch([value])))
    if isinstance(expected, Reason):
        assert got is expected
    else:
        np.testing.assert_array_equal(got, expected)


def test_a_batch_of_all_cases_keeps_rows_and_offsets() -> None:
    raw = batch([value for value, _ in VALUES])
    decoded = Decoder(config(), ("a", "b")).decode(raw)
    dead = [n for n, (_, expected) in enumerate(VALUES) if isinstance(expected, Reason)]
    alive = [n for n, (_, expected) in enumerate(VALUES) if not isinstance(expected, Reason)]
    assert [letter.n for letter in decoded.dead] == dead
    assert decoded.columns.raw_N.tolist() == alive
    assert decoded.columns.offset_N.tolist() == [100 + n for n in alive]
    assert decoded.columns.value_ND.dtype == np.float64
    expected_ND = [expected for _, expected in VALUES if not isinstance(expected, Reason)]
    np.testing.assert_array_equal(decoded.columns.value_ND, expected_ND)


def test_too_large_is_judged_before_parsing() -> None:
    decoder = Decoder(config(max_bytes=10), ("a",))
    assert one(decoder.decode(batch([b'{"a": 1}' + b" " * 3]))) is Reason.TOO_LARGE
    assert one(decoder.decode(batch([b"x" * 11]))) is Reason.TOO_LARGE
    assert one(decoder.decode(batch([b'{"a": 1}' + b" " * 2]))) == [1.0]


def test_an_empty_batch() -> None:
    decoded = Decoder(config(), ("a", "b")).decode(batch([]))
    assert decoded.columns.value_ND.shape == (0, 2)
    assert not decoded.dead


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"disk": {"read": 1, "deep": {"er": 2}}, "x.y": 3}', [1.0, 2.0, 3.0]),
        (b'{"disk": {"read": 1}}', [1.0, NAN, NAN]),
        (b'{"disk.read": 1, "disk": {"deep.er": 2}, "x": {"y": 3}}', [1.0, 2.0, 3.0]),
        (b'{"disk.read": 1, "disk": {"read": 9}}', [9.0, NAN, NAN]),
        (b'{"disk": "read", "x.y": 3}', [NAN, NAN, 3.0]),
        (b'{"disk": ["read"], "x.y": 3}', [NAN, NAN, 3.0]),
        (b'{"disk": null, "x.y": 3}', [NAN, NAN, 3.0]),
    ],
)
def test_nested_fields(value: bytes, expected: list[float]) -> None:
    decoder = Decoder(config(), ("disk.read", "disk.deep.er", "x.y"))
    np.testing.assert_array_equal(one(decoder.decode(batch([value]))), expected)


NUMBERS: list[tuple[bytes, Reason | list[float]]] = [
    (b"12.5", [12.5]),
    (b" -3\n", [-3.0]),
    (b"+.5e1", [5.0]),
    (b"5.", [5.0]),
    (b"true", [1.0]),
    (b"NaN", Reason.NO_USABLE_VALUE),
    (b"null", Reason.NO_USABLE_VALUE),
    (b"-Infinity", Reason.NOT_FINITE),
    (b"inf", Reason.NOT_FINITE),
    (b"1e999", Reason.NOT_FINITE),
    (b"1_000", Reason.MALFORMED),
    (b"1,5", Reason.MALFORMED),
    (b'"1"', Reason.MALFORMED),
    (b"0x10", Reason.MALFORMED),
    ("１".encode(), Reason.MALFORMED),
    (b" ", Reason.MALFORMED),
    (b"", Reason.EMPTY),
    (struct.pack(">d", 1.5), Reason.MALFORMED),
]


@pytest.mark.parametrize(("value", "expected"), NUMBERS)
def test_bare_numbers(value: bytes, expected: Reason | list[float]) -> None:
    assert one(Decoder(config(format="number"), ("value",)).decode(batch([value]))) == expected


TIMES: list[tuple[str, int | Reason]] = [
    ("1404172800", KAFKA_MS),
    ("1404172800.25", KAFKA_MS + 250),
    ("1404172800001", KAFKA_MS + 1),
    ("1404172800001999", KAFKA_MS + 1),
    ("1404172800001999999", KAFKA_MS + 1),
    ('"2014-07-01 00:00:00"', KAFKA_MS),
    ('"2014-07-01T00:00:00.123456789Z"', KAFKA_MS + 123),
    ('"2014-07-01T02:00:00+02:00"', KAFKA_MS),
    ('" 2014-07-01 "', KAFKA_MS),
    ("0", 0),
    ('"2199-12-31T23:59:59.999Z"', 7_258_118_399_999),
    ('"2200-01-01T00:00:00Z"', Reason.TIMESTAMP_OUT_OF_BOUNDS),
    ('"1969-12-31T23:59:59.999Z"', Reason.TIMESTAMP_OUT_OF_BOUNDS),
    ('"0001-01-01T00:00:00+14:00"', Reason.TIMESTAMP_OUT_OF_BOUNDS),
    ("-1", Reason.TIMESTAMP_OUT_OF_BOUNDS),
    ("1e300", Reason.TIMESTAMP_OUT_OF_BOUNDS),
    ("9" * 4000, Reason.TIMESTAMP_OUT_OF_BOUNDS),
    ("NaN", Reason.BAD_TIMESTAMP),
    ("Infinity", Reason.BAD_TIMESTAMP),
    ("null", Reason.BAD_TIMESTAMP),
    ("true", Reason.BAD_TIMESTAMP),
    ('"yesterday"', Reason.BAD_TIMESTAMP),
    ('"1404172800"', Reason.BAD_TIMESTAMP),
    ('""', Reason.BAD_TIMESTAMP),
    ("[1404172800]", Reason.BAD_TIMESTAMP),
    ("{}", Reason.BAD_TIMESTAMP),
]


@pytest.mark.parametrize(("text", "expected"), TIMES)
def test_times_from_a_field(text: str, expected: int | Reason) -> None:
    decoder = Decoder(config(timestamp={"field": "at", "max_ahead": None}), ("a",))
    decoded = decoder.decode(batch([f'{{"a": 1, "at": {text}}}'.encode()]))
    if isinstance(expected, Reason):
        assert one(decoded) is expected
    else:
        assert decoded.columns.timestamp_N.tolist() == [expected]


def test_an_absent_time_is_bad() -> None:
    decoder = Decoder(config(timestamp={"field": "at"}), ("a",))
    assert one(decoder.decode(batch([b'{"a": 1}']))) is Reason.BAD_TIMESTAMP


@pytest.mark.parametrize(
    ("unit", "number", "expected"),
    [("s", "12", 12_000), ("ms", "12", 12), ("us", "12000", 12), ("ns", "12999999", 12), ("us", "1500.0", 2)],
)
def test_the_configured_unit_counts(unit: str, number: str, expected: int) -> None:
    decoder = Decoder(config(timestamp={"field": "at", "unit": unit}), ("a",))
    decoded = decoder.decode(batch([f'{{"a": 1, "at": {number}}}'.encode()]))
    assert decoded.columns.timestamp_N.tolist() == [expected]


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("2014-07-01 02:00:00", 0.0),  # summer
        ("2014-07-01 00:00:00Z", 0.0),  # an offset of its own counts
        ("2014-10-26 02:30:00", 2808.5),  # twice that night: the first is meant
    ],
)
def test_naive_times_are_read_in_the_zone(text: str, hours: float) -> None:
    decoder = Decoder(
        config(timestamp={"field": "at", "timezone": "Europe/Berlin", "max_ahead": None}), ("a",)
    )
    decoded = decoder.decode(batch([f'{{"a": 1, "at": "{text}"}}'.encode()]))
    assert decoded.columns.timestamp_N.tolist() == [KAFKA_MS + int(hours * 3_600_000)]


@pytest.mark.parametrize(
    ("kafka_ms", "alive"), [(KAFKA_MS, True), (0, True), (-1, False), (7_258_118_400_000, False)]
)
def test_the_kafka_timestamp_is_bounded_too(kafka_ms: int, alive: bool) -> None:
    decoded = Decoder(config(), ("a",)).decode(batch([b'{"a": 1}'], times=[kafka_ms]))
    assert one(decoded) == ([1.0] if alive else Reason.TIMESTAMP_OUT_OF_BOUNDS)


@pytest.mark.parametrize(
    ("ahead_ms", "kafka_ms", "alive"),
    [
        (3_600_000, KAFKA_MS, True),
        (3_600_001, KAFKA_MS, False),
        (-60_000, KAFKA_MS, True),
        (-60_001, KAFKA_MS, False),
        (10_000_000, None, True),  # the record has no Kafka timestamp to compare with
    ],
)
def test_skew_against_the_kafka_timestamp(ahead_ms: int, kafka_ms: int | None, alive: bool) -> None:
    limits = {"field": "at", "max_ahead": timedelta(hours=1), "max_behind": timedelta(minutes=1)}
    raw = batch(
        [f'{{"a": 1, "at": {KAFKA_MS + ahead_ms}}}'.encode()], times=[-1 if kafka_ms is None else kafka_ms]
    )
    decoded = Decoder(config(timestamp=limits), ("a",)).decode(raw)
    assert one(decoded) == ([1.0] if alive else Reason.TIMESTAMP_SKEW)


@pytest.mark.parametrize(
    ("key", "expected"),
    [(None, None), (b"", ""), ("schlüssel".encode(), "schlüssel"), (b"\xff", Reason.BAD_KEY)],
)
def test_the_records_own_key(key: bytes | None, expected: str | Reason | None) -> None:
    decoded = Decoder(config(), ("a",)).decode(batch([b'{"a": 1}'], keys=[key]))
    if isinstance(expected, Reason):
        assert one(decoded) is expected
    else:
        assert decoded.columns.key == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"k"', "k"),
        ("7", "7"),
        ("7.5", "7.5"),
        ("true", "true"),
        ("false", "false"),
        ("null", None),
        ("NaN", Reason.BAD_KEY),
        ("1e999", Reason.BAD_KEY),
        ("9" * 400, Reason.BAD_KEY),
        ("[]", Reason.BAD_KEY),
        ("{}", Reason.BAD_KEY),
    ],
)
def test_a_key_field(text: str, expected: str | Reason | None) -> None:
    raw = batch([f'{{"a": 1, "id": {{"name": {text}}}}}'.encode()], keys=[b"\xff"])
    decoded = Decoder(config(key={"field": "id.name"}), ("a",)).decode(raw)
    if isinstance(expected, Reason):
        assert one(decoded) is expected
    else:
        assert decoded.columns.key == [expected]


def test_an_absent_key_field_is_the_partitions_own_learner() -> None:
    decoded = Decoder(config(key={"field": "id"}), ("a",)).decode(batch([b'{"a": 1}'], keys=[b"k"]))
    assert decoded.columns.key == [None]


def test_drift_is_counted_by_field() -> None:
    values: list[bytes | None] = [
        b'{"a": 1, "b": {"c": 2}, "id": "k"}',
        b'{"a": 1, "b": {"c": 2, "new": 1}, "id": "k", "too": true, "text": "x", "gone": null}',
        b'{"a": "1", "b": {}, "too": 3}',
        b'{"a": null, "b": {"c": 2}}',
    ]
    settings: dict[str, Any] = {"key": {"field": "id"}}
    decoded = Decoder(config(**settings), ("a", "b.c")).decode(batch(values))
    assert [letter.reason for letter in decoded.dead] == [Reason.NO_USABLE_VALUE]
    assert decoded.drift.new == {"b.new": 1, "too": 2}
    assert decoded.drift.vanished == {"b.c": 1}
    assert decoded.drift.retyped == {"a": 1}
    chosen = Decoder(config(features=["a", "b.c"], **settings), ("a", "b.c")).decode(batch(values))
    assert not chosen.drift.new
    assert chosen.drift.vanished == {"b.c": 1}


def test_discover_takes_the_first_usable_record() -> None:
    raw = batch(
        [
            None,
            b"not json",
            b'{"text": "x"}',
            b'{"z": Infinity}',
            b'{"z": NaN}',
            b'{"z": 1, "id": 7, "at": "never"}',
            b'{"z": 1, "id": 7, "at": 1404172800, "t": "x", "n": null, "b": {"q": true, "p": NaN}, "l": [1]}',
            b'{"other": 1, "at": 1404172800}',
        ]
    )
    settings = config(key={"field": "id"}, timestamp={"field": "at"})
    assert discover(settings, raw) == ("z", "b.q", "b.p")
    assert discover(config(features=["q"]), raw) == ("q",)
    assert discover(config(), batch([None, b"{}", b'{"a": "b"}'])) is None
    assert discover(config(format="number"), batch([b"x", b"1"])) == ("value",)


BEFORE: list[tuple[bytes | None, Reason]] = [
    (None, Reason.EMPTY),
    (b"x" * 200, Reason.TOO_LARGE),
    (b"not json", Reason.MALFORMED),
    (b"{}", Reason.NO_USABLE_VALUE),
    (b'{"value": 7, "at": 1404172800}', Reason.NO_USABLE_VALUE),  # it is the key
    (b'{"z": NaN}', Reason.NO_USABLE_VALUE),
    (b'{"q": Infinity, "w": 1}', Reason.NOT_FINITE),
    (b'{"q": 1}', Reason.BAD_TIMESTAMP),
    (b'{"q": 1, "at": 1404172800, "value": []}', Reason.BAD_KEY),
]


@pytest.mark.parametrize("size", [1, 4, 20])
def test_before_discovery_a_record_is_judged_by_itself(size: int) -> None:
    settings = config(key={"field": "value"}, timestamp={"field": "at"}, max_bytes=100)
    values: list[bytes | None] = [value for value, _ in BEFORE] + [b'{"z": 1, "at": 1404172800}', b"{}"]
    reasons: list[Reason] = []
    for first in range(0, len(values), size):
        raw = batch(values[first : first + size])
        dead = unusable_before_discovery(settings, raw)
        assert [letter.n for letter in dead] == list(range(len(dead)))
        reasons += [letter.reason for letter in dead]
        found = discover(settings, raw)
        assert (found is None) == (len(dead) == len(raw))
        if found is not None:
            assert found == ("z",)
            break
    assert reasons == [reason for _, reason in BEFORE]
    assert unusable_before_discovery(config(features=["a"]), batch([None])) == []
    number = config(format="number")
    assert [letter.reason for letter in unusable_before_discovery(number, batch([b"null", b"x"]))] == [
        Reason.NO_USABLE_VALUE,
        Reason.MALFORMED,
    ]


def test_discover_names_a_field_once() -> None:
    assert discover(config(), batch([b'{"a.b": 1, "a": {"b": 2}}'])) == ("a.b",)


@pytest.mark.parametrize(
    ("settings", "features", "words"),
    [
        ({"format": "jsn"}, ("a",), "did you mean 'json'"),
        ({}, ("a", "a"), "twice"),
        ({"format": "number"}, ("a", "b"), "one value"),
        ({"format": "number", "key": {"field": "k"}}, ("a",), "one value"),
    ],
)
def test_a_configuration_that_cannot_be(
    settings: dict[str, Any], features: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Decoder(config(**settings), features)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([KAFKA_MS, 10**400, "2014-07-01 00:00:00", "NaN"]),
)
names = st.sampled_from(["a", "b", "b.c", "at", "id", "x", "\ud800"])
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)
objects = st.dictionaries(names, documents, max_size=6).map(lambda d: json.dumps(d).encode())
almost = st.tuples(objects, st.integers(0, 200), st.binary(max_size=3)).map(
    lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :]
)
numbers = st.one_of(st.none(), st.booleans(), st.integers(-1000, 1000), st.floats(allow_infinity=False))
usable = st.fixed_dictionaries(
    {"a": numbers, "b": st.fixed_dictionaries({"c": numbers}), "x": numbers, "id": st.text(max_size=2)},
    optional={"at": st.sampled_from([KAFKA_MS, "2014-07-01 00:00:00"])},
).map(lambda d: json.dumps(d).encode())
raw_values = st.one_of(st.none(), st.binary(max_size=60), objects, almost, usable, usable)
raw_records = st.tuples(
    raw_values,
    st.one_of(st.none(), st.binary(max_size=4)),
    st.one_of(st.just(KAFKA_MS), st.integers(-(2**63), 2**63 - 1)),
)
configs = st.sampled_from(
    [
        (config(), ("a", "b.c")),
        (config(max_bytes=30), ("a",)),
        (config(key={"field": "id"}, timestamp={"field": "at"}), ("a", "b.c", "x")),
        (
            config(key={"field": "b.c"}, timestamp={"field": "at", "max_behind": timedelta(days=1)}),
            ("a", "b"),
        ),
        (config(format="number"), ("value",)),
    ]
)


@settings(max_examples=300, deadline=None)
@given(configs, st.lists(raw_records, max_size=8))
def test_any_bytes_end_in_columns_or_dead_once(
    chosen: tuple[InputConfig, tuple[str, ...]], records: list[tuple[bytes | None, bytes | None, int]]
) -> None:
    settings, features = chosen
    values, keys, times = ([record[i] for record in records] for i in range(3))
    raw = batch(values, keys, times)  # type: ignore[arg-type]
    decoder = Decoder(settings, features)
    whole = decoder.decode(raw)
    columns = whole.columns
    rows = sorted([*columns.raw_N.tolist(), *(letter.n for letter in whole.dead)])
    assert rows == list(range(len(records)))
    assert columns.value_ND.shape == (len(columns.key), len(features))
    assert not np.isinf(columns.value_ND).any()
    assert not np.isnan(columns.value_ND).all(axis=1).any()
    for letter in whole.dead:
        letter.detail.encode()
    for key in columns.key:
        assert key is None or key.encode() is not None

    # one by one gives the same
    alive = 0
    for n, (one_value, one_key, one_time) in enumerate(records):
        alone = decoder.decode(batch([one_value], [one_key], [one_time]))
        if alone.dead:
            expected = next(letter for letter in whole.dead if letter.n == n)
            assert alone.dead == [expected._replace(n=0)]
        else:
            assert columns.raw_N[alive] == n
            assert columns.key[alive] == alone.columns.key[0]
            assert columns.timestamp_N[alive] == alone.columns.timestamp_N[0]
            assert columns.value_ND[alive].tobytes() == alone.columns.value_ND[0].tobytes()
            alive += 1

    found = discover(settings, raw)
    before = unusable_before_discovery(settings, raw)
    assert [letter.n for letter in before] == list(range(len(before)))
    assert (found is None) == (len(before) == len(raw))
    if found is not None:  # the record that decided is usable with some of them, if not with all
        tried = [found, *((name,) for name in found if settings.features is None)]
        assert any(len(Decoder(settings, some).decode(raw).columns) for some in tried)


def test_a_record_of_which_one_number_is_finite_decides() -> None:
    raw = batch([b'{"a": {"a": false, "b": %d}}' % 10**400, b'{"a": {"b": 1}}'])
    assert unusable_before_discovery(config(), raw) == []
    found = discover(config(), raw)
    assert found == ("a.a", "a.b")
    decoded = Decoder(config(), found).decode(raw)
    assert [letter.n for letter in decoded.dead] == [0]
    assert decoded.columns.raw_N.tolist() == [1]


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_bit_for_bit(number: float) -> None:
    for chosen, features, value in [
        (config(), ("a",), b'{"a": %s}' % repr(number).encode()),
        (config(), ("a",), b'{"a": %s, "b": NaN}' % repr(number).encode()),
        (config(format="number"), ("value",), repr(number).encode()),
    ]:
        decoded = Decoder(chosen, features).decode(batch([value]))
        assert decoded.columns.value_ND[0, 0].tobytes() == np.float64(number).tobytes()
