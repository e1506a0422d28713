"""Files as records: what is sent for a row, and when it happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from producers.rows import Choice, open_rows
from streamgen.config import InputConfig, TimestampConfig
from streamgen.errors import InputError
from streamgen.formats.decode import Decoder, discover
from streamgen.records import RawBatch, TopicPartition

START_MS = 1_404_172_800_000  # 2014-07-01 00:00:00 UTC
DAY_MS = 86_400_000


def rows(
    folder: Path, name: str, content: str, shift_ms: int = 0, **choice: Any
) -> list[tuple[int, bytes | None, Any]]:
    path = folder / name
    path.write_text(content)
    found = open_rows(path, Choice(**choice)).records(shift_ms)
    return [(record.timestamp_ms, record.key, json.loads(record.value)) for record in found]


CSV = "time,host,value,other\n2014-07-01 00:00:00,a,1,2\n2014-07-01 00:00:01.5,,NA,oops\n"


def test_csv_rows_are_objects_with_the_time_as_given(tmp_path: Path) -> None:
    assert rows(tmp_path, "f.csv", CSV) == [
        (START_MS, None, {"time": "2014-07-01 00:00:00", "value": 1.0}),
        (START_MS + 1500, None, {"time": "2014-07-01 00:00:01.5", "value": None}),
    ]


def test_csv_columns_can_be_chosen(tmp_path: Path) -> None:
    assert rows(tmp_path, "f.csv", CSV, key_column="host", values=("other", "value")) == [
        (START_MS, b"a", {"time": "2014-07-01 00:00:00", "other": 2.0, "value": 1.0}),
        (START_MS + 1500, None, {"time": "2014-07-01 00:00:01.5", "other": None, "value": None}),
    ]
    assert [key for _, key, _ in rows(tmp_path, "f.csv", CSV, key="k")] == [b"k", b"k"]


def test_csv_without_times_counts_seconds(tmp_path: Path) -> None:
    content = "v\n" + "1\n" * 300
    found = rows(tmp_path, "f.csv", content, shift_ms=5000)
    assert [time for time, _, _ in found] == [5000 + 1000 * n for n in range(300)]
    assert found[-1][2] == {"v": 1.0}


@pytest.mark.parametrize(
    ("given", "sent", "shifted"),
    [
        ("2014-07-01 00:00:00", "2014-07-01 00:00:00", "2014-07-02 00:00:00"),
        ("2014-07-01T00:00:00Z", "2014-07-01T00:00:00Z", "2014-07-02T00:00:00+00:00"),
        ("20140701", "20140701", "2014-07-02 00:00:00"),
        ("1404172800", 1404172800, 1404259200),
        ("1404172800000000000", 1404172800000000000, 1404259200000000000),
        ("1404172800.0", 1404172800.0, 1404259200.0),
    ],
)
def test_a_shifted_time_keeps_its_notation(tmp_path: Path, given: str, sent: object, shifted: object) -> None:
    csv = f"ts,v\n{given},1\n"
    line = json.dumps({"at": {"ts": sent}, "v": 1}) + "\n"
    assert rows(tmp_path, "f.csv", csv) == [(START_MS, None, {"ts": sent, "v": 1.0})]
    expected = [(START_MS + DAY_MS, None, {"ts": shifted, "v": 1.0})]
    assert rows(tmp_path, "f.csv", csv, shift_ms=DAY_MS) == expected
    expected = [(START_MS + DAY_MS, None, {"at": {"ts": shifted}, "v": 1})]
    assert rows(tmp_path, "f.jsonl", line, shift_ms=DAY_MS, timestamp="at.ts") == expected


def test_what_is_sent_decodes_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("ts,a,b\n1404172800,1e-300,0.1\n1404172801,,-7\n")
    records = list(open_rows(path, Choice(key="k")).records(0))
    raw = RawBatch(
        source=TopicPartition("t", 0),
        offset_N=np.arange(2),
        timestamp_N=np.array([record.timestamp_ms for record in records]),
        key=[record.key for record in records],
        value=[record.value for record in records],
        headers=[[], []],
    )
    config = InputConfig(topic="t", timestamp=TimestampConfig(field="ts"))
    assert discover(config, raw) == ("a", "b")
    columns = Decoder(config, ("a", "b")).decode(raw).columns
    np.testing.assert_array_equal(columns.value_ND, [[1e-300, 0.1], [np.nan, -7.0]])
    assert columns.timestamp_N.tolist() == raw.timestamp_N.tolist()
    assert columns.key == ["k", "k"]


def test_json_lines_go_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    lines = [
        b'{"Time": "2014-07-01", "v":  1.50, "id": "a"}',
        b'{"Time": "later", "v": NaN, "id": 7}',
        b'{"v": 2}',
    ]
    path.write_bytes(b"\n".join([lines[0], b"", *lines[1:]]))
    file = open_rows(path, Choice(key_column="id"))
    found = list(file.records(0))
    assert [record.value for record in found] == lines
    assert [record.key for record in found] == [b"a", b"7", None]
    assert [record.timestamp_ms for record in found] == [START_MS] * 3
    assert file.bytes_read == file.total_bytes == path.stat().st_size
    shifted = [json.loads(record.value) for record in file.records(DAY_MS)]
    assert [row.get("Time") for row in shifted] == ["2014-07-02 00:00:00", "later", None]


def test_json_fields_can_be_chosen(tmp_path: Path) -> None:
    content = '{"ts": 1404172800, "m": {"x": 1, "y": 2}, "z": 3}\n{"ts": 1404172801, "z": 1e999}\n'
    assert rows(tmp_path, "f.ndjson", content, values=("m.y", "z")) == [
        (START_MS, None, {"ts": 1404172800, "m.y": 2, "z": 3}),
        (START_MS + 1000, None, {"ts": 1404172801, "z": float("inf")}),
    ]


def test_json_lines_without_times_count_seconds(tmp_path: Path) -> None:
    found = rows(tmp_path, "f.json", '{"v": 1}\n{"v": 2}\n', values=("v",))
    assert found == [(0, None, {"v": 1}), (1000, None, {"v": 2})]


@pytest.mark.parametrize(
    ("content", "choice", "words"),
    [
        ("", {}, "no rows"),
        ('{"v": 1}\n', {"values": ("w",)}, "no field 'w'.* Its fields are: v"),
        ('{"value": 1}\n', {"key_column": "valu"}, "Did you mean 'value'"),
        ('{"v": "x"}\n', {"timestamp": "v"}, "holds no time, but 'x'"),
        ("[1]\n", {}, "Line 1 .* not a JSON object"),
        ('{"v": 1}\n\n{"v": \n', {}, "Line 3 .* not a JSON object"),
    ],
)
def test_errors_of_json_lines(tmp_path: Path, content: str, choice: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        rows(tmp_path, "f.jsonl", content, **choice)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read"):
        open_rows(tmp_path / "f.jsonl", Choice())
