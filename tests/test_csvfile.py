"""Reading CSV: what is a column, what is missing, what is bad, and what each error says."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from streamgen.config import TimestampConfig
from streamgen.csvfile import BadCell, CsvBatch, CsvRows
from streamgen.errors import InputError

NAN = math.nan
START_MS = 1_404_172_800_000  # 2014-07-01 00:00:00 UTC


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "file.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def only(rows: CsvRows) -> CsvBatch:
    (batch,) = rows
    return batch


def test_no_option_is_needed(tmp_path: Path) -> None:
    rows = CsvRows(write(tmp_path, "timestamp,value\n2014-07-01 00:00:00,10\n2014-07-01 00:30:00,8.5\n"))
    assert rows.columns == ("value",)
    assert rows.timestamp_column == "timestamp"
    batch = only(rows)
    assert batch.timestamp == ["2014-07-01 00:00:00", "2014-07-01 00:30:00"]
    assert batch.key == [None, None]
    assert batch.time_ms_N.tolist() == [START_MS, START_MS + 1_800_000]
    np.testing.assert_array_equal(batch.value_ND, [[10.0], [8.5]])
    assert batch.bad == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_files_look_like(tmp_path: Path, delimiter: str, start: str, line_end: str) -> None:
    cells = [
        ["Date", "host", '"a,;b"', "text", "c"],
        ["1404172800", '"x""y"', "1", "no, never", "2"],
        [],
        ["1404172801", "", '" -2e1 "', "3", ""],
    ]
    quoted = [[f'"{c}"' if delimiter in c and '"' not in c else c for c in line] for line in cells]
    content = start + line_end.join(delimiter.join(line) for line in quoted)  # no line end at the end
    rows = CsvRows(write(tmp_path, content), key_column="host")
    assert (rows.timestamp_column, rows.columns) == ("Date", ("a,;b", "c"))
    batch = only(rows)
    assert batch.key == ['x"y', None]
    assert batch.time_ms_N.tolist() == [START_MS, START_MS + 1000]
    np.testing.assert_array_equal(batch.value_ND, [[1.0, 2.0], [-20.0, NAN]])
    assert batch.bad == []


def test_missing_and_bad_cells(tmp_path: Path) -> None:
    words = ["1", "", "NA", "n/a", "NaN", "null", "None", " ", "True", "oops", "inf", "1e999", "1_0", "2"]
    content = "a,b\n" + "".join(f"{word},1\n" for word in words)
    batch = only(CsvRows(write(tmp_path, content), value_columns=["a"]))
    np.testing.assert_array_equal(batch.value_ND[:, 0], [1] + [NAN] * 7 + [1] + [NAN] * 4 + [2])
    assert batch.bad == [
        BadCell(11, "a", "oops"),
        BadCell(12, "a", "inf"),
        BadCell(13, "a", "1e999"),
        BadCell(14, "a", "1_0"),
    ]


@pytest.mark.parametrize("word", ["inf", "1_0"])
def test_a_bad_cell_that_python_takes_for_a_number(tmp_path: Path, word: str) -> None:
    batch = only(CsvRows(write(tmp_path, f"a\n1\n{word}\n"), value_columns=["a"]))
    np.testing.assert_array_equal(batch.value_ND, [[1], [NAN]])
    assert batch.bad == [BadCell(3, "a", word)]


def test_a_column_may_be_named_none(tmp_path: Path) -> None:
    assert CsvRows(write(tmp_path, "none,NA\n1,2\n")).columns == ("none", "NA")
    assert CsvRows(write(tmp_path, "1,b\n1,2\n")).columns == ("1", "b")


def test_rows_of_the_wrong_length(tmp_path: Path) -> None:
    batch = only(CsvRows(write(tmp_path, "a,b\n1\n2,3,4\n5,6\n")))
    np.testing.assert_array_equal(batch.value_ND, [[1, NAN], [2, 3], [5, 6]])
    assert batch.bad == [BadCell(2, "", "1 cells for 2 columns"), BadCell(3, "", "3 cells for 2 columns")]


def test_default_values_leave_out_text_unnamed_key_and_time(tmp_path: Path) -> None:
    content = ",ts,id,text,empty,v,flag\n0,1404172800,7,x,,1,true\n1,1404172801,7,3,,,false\n"
    rows = CsvRows(write(tmp_path, content), key_column="id")
    assert rows.columns == ("v", "flag")
    assert only(rows).key == ["7", "7"]
    chosen = CsvRows(tmp_path / "file.csv", value_columns=["flag", "empty", "v", "flag"])
    assert chosen.columns == ("flag", "empty", "v")


def test_a_name_like_time_without_times_is_a_value(tmp_path: Path) -> None:
    rows = CsvRows(write(tmp_path, "time,value\n-1,5\n-2,6\n"))
    assert rows.timestamp_column is None
    assert rows.columns == ("time", "value")
    batch = only(rows)
    assert batch.timestamp is None
    assert batch.time_ms_N.tolist() == [0, 1000]


def test_times_that_cannot_be_read_take_the_time_before(tmp_path: Path) -> None:
    content = "t,v\nsoon,1\n2014-07-01,2\n,3\n2014-07-02,4\n2300-01-01,5\n"
    batch = only(CsvRows(write(tmp_path, content), timestamp_column="t"))
    day = 86_400_000
    assert batch.time_ms_N.tolist() == [START_MS, START_MS, START_MS, START_MS + day, START_MS + day]
    assert batch.timestamp == ["soon", "2014-07-01", "", "2014-07-02", "2300-01-01"]
    assert [cell.line for cell in batch.bad] == [2, 4, 6]
    rows = CsvRows(tmp_path / "file.csv", timestamp_column="t")
    assert [int(one.time_ms_N[0]) for one in rows.batches(1)] == batch.time_ms_N.tolist()


def test_naive_times_are_read_in_the_zone(tmp_path: Path) -> None:
    path = write(tmp_path, "t,v\n2014-07-01 02:00:00,1\n")
    batch = only(CsvRows(path, timestamp_column="t", times=TimestampConfig(timezone="Europe/Berlin")))
    assert batch.time_ms_N.tolist() == [START_MS]


def test_batches_cut_the_same_rows(tmp_path: Path) -> None:
    rng = random.Random(1)
    cells = [
        [str(1404172800 + 60 * n), rng.choice("ab"), rng.choice(["", "x", "1.5", "2"])] for n in range(1200)
    ]
    path = write(tmp_path, "ts,k,v\n" + "".join(",".join(line) + "\n" for line in cells))
    rows = CsvRows(path, key_column="k", value_columns=["v"])
    (whole,) = rows.batches(5000)
    seen, read = 0, [0]
    for batch in rows.batches(7):
        cut = slice(seen, seen + len(batch))
        assert whole.timestamp is not None
        assert batch.timestamp == whole.timestamp[cut]
        assert batch.key == whole.key[cut]
        np.testing.assert_array_equal(batch.value_ND, whole.value_ND[cut])
        np.testing.assert_array_equal(batch.time_ms_N, whole.time_ms_N[cut])
        seen += len(batch)
        read.append(rows.bytes_read)
    assert seen == 1200
    assert len(whole.bad) == sum(line[2] == "x" for line in cells)
    assert read == sorted(read)
    assert 0 < read[1] < read[-1]
    assert rows.bytes_read == rows.total_bytes == path.stat().st_size


def test_row_numbers_run_on_over_batches(tmp_path: Path) -> None:
    rows = CsvRows(write(tmp_path, "v\n" + "1\n" * 10))
    times = np.concatenate([batch.time_ms_N for batch in rows.batches(3)])
    assert times.tolist() == [1000 * n for n in range(10)]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", {}, "is empty"),
        (b"\n\n", {}, "is empty"),
        (b"a,b\n", {}, "no rows"),
        (b"1,2\n3,4\n", {}, "only numbers"),
        (b"a,b,a\n1,2,3\n", {}, "two columns named 'a'"),
        (b"a,b\nx,y\n", {}, "no column of numbers"),
        (b"a,value\n1,2\n", {"value_columns": ["valu"]}, "no column 'valu'. Did you mean 'value'"),
        (b"a,value\n1,2\n", {"key_column": "host"}, "no column 'host'. Its columns are: a, value"),
        (b"a,b\n1,x\n", {"value_columns": ["b"]}, "'b' .* holds no number in the first 1 rows"),
        (b"a,b\n1,x\n", {"timestamp_column": "b"}, "holds no time, but for example 'x'"),
        (b"a,b\n1,\xff\n", {}, "not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), {}, "not UTF-8"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", {}, "Line 2 .* not CSV"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, content: bytes, options: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CsvRows(write(tmp_path, content), **options)  # type: ignore[arg-type]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read .*No such file"):
        CsvRows(tmp_path / "file.csv")
    with pytest.raises(InputError, match=r"Cannot read .*directory"):
        CsvRows(tmp_path)
