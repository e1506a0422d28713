"""detect, fit and generate over files: one pass, each row scored before it is learned."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamgen.config import InputConfig
from streamgen.csvfile import CsvRows
from streamgen.detect import SOURCE, Choice, detect_file, fit_file
from streamgen.errors import ConfigError, InputError, StateError
from streamgen.generation import generate, quantiles, write_sequences
from streamgen.learners.task import Task
from streamgen.records import Columns, TopicPartition
from streamgen.state.checkpoint import LearnerState, Manifest
from streamgen.state.files import FileStore
from streamgen.testing import MemoryStore

CONFIG = InputConfig(topic="any")
Rows = list[dict[str, str]]


def write(path: Path, lines: list[str], header: str = "timestamp,k,a,b") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def line(n: int, a: object = None, b: object = None, time: str | None = None) -> str:
    time = time or f"2024-01-01 {n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}"
    return f"{time},k{n % 2},{n % 7 if a is None else a},{n % 5 if b is None else b}"


@pytest.fixture
def detected(tmp_path: Path) -> Callable[..., Rows]:
    """The rows that detect writes for these lines."""

    def run(lines: list[str], rows: int = 1000, header: str = "timestamp,k,a,b", name: str = "in.csv",
            key: str | None = "k", seed: int = 0, config: InputConfig = CONFIG) -> Rows:  # fmt: skip
        out = tmp_path / "out.csv"
        path = write(tmp_path / name, lines, header)
        detect_file(path, out, config, Choice(key=key), seed=seed, rows=rows)
        with out.open(newline="") as file:
            return list(csv.DictReader(file))

    return run


def test_one_row_for_each_row_with_the_documented_columns(detected: Callable[..., Rows]) -> None:
    lines = [line(n) for n in range(100)]
    rows = detected(lines)
    assert list(rows[0]) == [
        "timestamp", "key", "score", "p_value", "is_anomaly", "expected_a", "expected_b",
        "contribution_a", "contribution_b",
    ]  # fmt: skip
    assert [(row["timestamp"], row["key"]) for row in rows] == [tuple(text.split(",")[:2]) for text in lines]
    assert all(0 <= float(row["score"]) < 1 and 0 < float(row["p_value"]) <= 1 for row in rows)
    assert {row["is_anomaly"] for row in rows} <= {"true", "false"}
    first = 2 * CONFIG.min_records  # of two keys: a learner begins with the last of them
    assert not any(row["expected_a"] for row in rows[:first])
    assert all(row["expected_a"] for row in rows[first:])
    written = rows[-1]["expected_a"]
    assert repr(float(written)) == written  # not rounded


def test_batches_change_no_bit(detected: Callable[..., Rows]) -> None:
    lines = [line(n, a="" if n % 11 == 0 else None) for n in range(120)]
    lines[60], lines[70] = "no time,k1,1,2", line(70, "", "")
    lines[90] = line(90, time="2023-01-01")
    whole = detected(lines, rows=1000)
    assert whole == detected(lines, rows=7)
    assert whole == detected(lines, rows=1)


def test_a_renamed_file_has_the_same_scores_and_another_seed_has_not(detected: Callable[..., Rows]) -> None:
    lines = [line(n) for n in range(100)]
    rows = detected(lines)
    assert rows == detected(lines, name="other.csv")
    assert rows == detected(lines, config=InputConfig(topic="another"))
    assert rows != detected(lines, seed=1)


def test_a_row_is_scored_before_it_is_learned(detected: Callable[..., Rows]) -> None:
    lines = [line(n) for n in range(160)]
    changed = [*lines[:100], line(100, a=50), *lines[101:]]
    rows, others = detected(lines), detected(changed)
    assert rows[:100] == others[:100]
    assert rows[100]["contribution_a"] != others[100]["contribution_a"]
    assert float(others[100]["score"]) > float(rows[100]["score"])
    assert rows[100]["expected_a"] == others[100]["expected_a"]  # nothing of the row is in it
    odd, even = others[101::2], others[102::2]
    assert odd == rows[101::2], "another key learned from it"
    assert even != rows[102::2], "its own key did not learn from it"


def test_keys_learn_apart(detected: Callable[..., Rows]) -> None:
    lines = [line(n) for n in range(100)]
    alone = [text for n, text in enumerate(lines) if n % 2]
    assert detected(alone) == detected(lines)[1::2]
    together = detected(lines, key=None)
    assert "key" not in together[0]
    assert [row["score"] for row in together] != [row["score"] for row in detected(lines)]


def test_a_missing_value_is_imputed(detected: Callable[..., Rows]) -> None:
    row = detected([line(n, a="" if n == 60 else None) for n in range(61)])[60]
    assert row["expected_a"]
    assert float(row["contribution_a"]) == 0.0
    assert float(row["contribution_b"]) != 0.0


@pytest.mark.parametrize(
    "useless", ["soon,k0,1,2", "2024-01-01 00:01:00,k0,,", "2024-01-01 00:01:00,k0,x,inf"]
)
def test_an_unusable_row_has_a_row_and_teaches_nothing(detected: Callable[..., Rows], useless: str) -> None:
    lines = [line(n) for n in range(2000)]
    # The kind of the column is found in the first 1000 rows.
    with_it = detected([*lines[:1500], useless, *lines[1500:]])
    cells = dict(with_it.pop(1500))
    assert cells.pop("timestamp") == useless.split(",")[0]
    assert cells.pop("key") == "k0"
    assert cells == {
        "score": "0.0", "p_value": "1.0", "is_anomaly": "false", "expected_a": "", "expected_b": "",
        "contribution_a": "", "contribution_b": "",
    }  # fmt: skip
    assert with_it == detected(lines)


def test_a_late_row_is_scored_and_changes_nothing(detected: Callable[..., Rows], tmp_path: Path) -> None:
    lines = [line(n) for n in range(80)]
    late = line(60, time="2023-06-01")
    rows = detected([*lines[:60], late, *lines[60:]])
    assert float(rows[60]["p_value"]) < 1
    assert rows[:60] + rows[61:] == detected(lines)
    path = write(tmp_path / "late.csv", [*lines[:60], late])
    assert detect_file(path, tmp_path / "o.csv", CONFIG, Choice(key="k")).late == 1


def test_a_file_without_times(detected: Callable[..., Rows]) -> None:
    rows = detected([f"{n % 7}" for n in range(50)], header="a", key=None)
    assert list(rows[0]) == ["score", "p_value", "is_anomaly", "expected_a", "contribution_a"]
    assert len(rows) == 50


def test_a_failed_run_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = write(tmp_path / "in.csv", [line(n) for n in range(50)]), tmp_path / "out.csv"
    out.write_text("before")
    real = Task.process

    def fail(task: Task, columns: Columns) -> object:
        if columns.offset_N[0] >= 20:
            raise InputError("the middle of the file")
        return real(task, columns)

    monkeypatch.setattr(Task, "process", fail)
    with pytest.raises(InputError, match="middle"):
        detect_file(path, out, CONFIG, Choice(key="k"), rows=10)
    assert out.read_text() == "before"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_progress_goes_from_start_to_end(tmp_path: Path) -> None:
    told: list[float] = []
    path = write(tmp_path / "in.csv", [line(n) for n in range(2000)])
    detect_file(path, tmp_path / "out.csv", CONFIG, Choice(values=("a",)), report=told.append, rows=500)
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= 1


def test_fit_then_generate_goes_on_as_a_task_in_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", [line(n) for n in range(200)])
    fit_file(path, tmp_path / "state", CONFIG, Choice(key="k"), seed=3)
    x_SLD, columns = generate(tmp_path / "state", length=20, count=3, seed=5, key="k1")
    assert columns == ("a", "b")
    assert x_SLD.shape == (3, 20, 2)
    assert np.isfinite(x_SLD).all()

    task = Task(SOURCE, InputConfig(topic="file"), ("a", "b"), 3, "cpu")
    for batch in CsvRows(path, key_column="k").batches(13):
        offset_N = np.arange(len(batch))
        task.process(Columns(offset_N, batch.time_ms_N, batch.key, batch.value_ND, offset_N))
    assert np.array_equal(x_SLD, task.generate("k1", 20, 3, 5))
    assert FileStore(tmp_path / "state").sources() == [SOURCE]
    stored = FileStore(tmp_path / "state").peek(SOURCE)
    assert stored is not None
    assert stored.manifest.fingerprint == InputConfig(topic="file").fingerprint(3, ("a", "b"))


def test_what_is_fitted_again_replaces_what_was_there(tmp_path: Path) -> None:
    """The state of another file is no fallback, and one that this version cannot read is no obstacle."""
    state = tmp_path / "state"
    old = state / str(SOURCE) / f"{900:020d}.safetensors"
    old.parent.mkdir(parents=True)
    for count in (80, 40):
        old.write_text("of another version")
        fit_file(write(tmp_path / "in.csv", [line(n) for n in range(count)]), state, CONFIG, Choice(key="k"))
        assert len(list(old.parent.iterdir())) == 1
    found = FileStore(state).peek(SOURCE)
    assert found is not None
    assert found.manifest.offset == 40


def test_a_state_from_kafka_is_generated_from(tmp_path: Path) -> None:
    """As exported: of any topic and partition, the learners in any order."""
    store, task = MemoryStore(), Task(TopicPartition("in.x-1", 3), CONFIG, ("a", "b"), 5, "cpu")
    rows = np.arange(100)
    values_ND = np.stack([rows % 7, rows % 5], axis=1) / 1.0
    task.process(Columns(rows, rows * 1000, ["b", "é"] * 50, values_ND, rows))
    snapshot = task.snapshot(100, whole=True)
    manifest = Manifest(
        task.source, 100, task.features, 5, task.config.model_dump(mode="json"), "f", facts=snapshot.facts
    )
    kept = store.claim(task.source)
    kept.read(0)
    kept.write(manifest, snapshot.take(2), ())

    exported = store.peek(task.source)
    assert exported is not None
    learners = [LearnerState(key, fields) for key, fields in exported.learners.items()]
    url = (tmp_path / "state").as_uri()
    FileStore(url).claim(task.source).write(exported.manifest, learners, ())
    for where in (tmp_path / "state", url):
        x_SLD, columns = generate(where, 20, 2, 1, key="é")
        assert columns == ("a", "b")
        assert np.array_equal(x_SLD, task.generate("é", 20, 2, 1))


@pytest.mark.parametrize("name", ["x.npz", "x.csv", "x.jsonl"])
def test_the_same_seed_writes_the_same_bytes(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "in.csv", [line(n) for n in range(60)])
    fit_file(path, tmp_path / "state", CONFIG, Choice(values=("a", "b")))

    def written(seed: int) -> bytes:
        x_SLD, columns = generate(tmp_path / "state", 5, 2, seed)
        write_sequences(tmp_path / name, x_SLD, columns)
        return (tmp_path / name).read_bytes()

    first = written(1)
    assert first == written(1)
    assert first != written(2)


def test_each_form_holds_the_same_numbers(tmp_path: Path) -> None:
    x_SLD = np.arange(12.0).reshape(2, 3, 2) / 7
    for name in ("x.npz", "x.csv", "x.jsonl"):
        write_sequences(tmp_path / name, x_SLD, ["a", "b"])
    with np.load(tmp_path / "x.npz", allow_pickle=False) as held:
        assert np.array_equal(held["x"], x_SLD)
        assert held["columns"].tolist() == ["a", "b"]
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(text) for text in (tmp_path / "x.jsonl").read_text().splitlines()]
    for found in (rows, lines):
        assert [(int(one["sequence"]), int(one["step"])) for one in found] == [
            (s, step) for s in range(2) for step in range(3)
        ]
        assert [[float(one["a"]), float(one["b"])] for one in found] == x_SLD.reshape(6, 2).tolist()


def test_quantiles_of_many_sequences(tmp_path: Path) -> None:
    """Against a normal distribution's own, and the same numbers in each form."""
    x_SLD = np.random.default_rng(0).normal(size=(20_000, 3, 2)) * [1.0, 5.0]
    share_Q = [0.1, 0.5, 0.9]
    found_QLD = quantiles(x_SLD, share_Q)
    expected_Q = np.array([-1.2816, 0.0, 1.2816])
    np.testing.assert_allclose(
        found_QLD / [1.0, 5.0], np.tile(expected_Q[:, None, None], (1, 3, 2)), atol=0.04
    )
    for name in ("x.npz", "x.csv", "x.jsonl"):
        write_sequences(tmp_path / name, found_QLD, ["a", "b"], share_Q)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as held:
        assert np.array_equal(held["x"], found_QLD)
        assert held["quantiles"].tolist() == share_Q
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(text) for text in (tmp_path / "x.jsonl").read_text().splitlines()]
    for lines_or_rows in (rows, lines):
        told = [(float(one["quantile"]), int(one["step"])) for one in lines_or_rows]
        assert told == [(share, step) for share in share_Q for step in range(3)]
        assert [[float(one["a"]), float(one["b"])] for one in lines_or_rows] == found_QLD.reshape(
            9, 2
        ).tolist()
    with pytest.raises(InputError, match="between 0 and 1"):
        quantiles(x_SLD, [0.5, 1.0])
    with pytest.raises(InputError, match="ask for 20 at least"):
        quantiles(x_SLD[:19], [0.05, 0.5])
    with pytest.raises(InputError, match="ask for 4 at least"):
        quantiles(x_SLD[:3], [0.3])
    with pytest.raises(InputError, match="between 0 and 1"):
        quantiles(x_SLD, [1e-320])
    with pytest.raises(InputError, match="its own 'quantile' beside the column"):
        write_sequences(tmp_path / "x.csv", found_QLD, ["a", "quantile"], share_Q)


def test_few_sequences_tell_quantiles_as_honestly() -> None:
    """80 % of what comes lies between those of 0.1 and 0.9, of ten sequences as of many."""
    noise = np.random.default_rng(0)
    low, high = quantiles(noise.normal(size=(10, 4000, 1)), [0.1, 0.9])[:, :, 0]
    came = noise.normal(size=4000)
    assert ((low <= came) & (came <= high)).mean() == pytest.approx(0.8, abs=0.02)


def test_what_cannot_be_generated(tmp_path: Path) -> None:
    path, state = write(tmp_path / "in.csv", [line(n) for n in range(40)]), tmp_path / "state"
    with pytest.raises(StateError, match="no state under"):
        generate(state, 1, 1, 0)
    fit_file(path, state, CONFIG, Choice(key="k"))
    with pytest.raises(InputError, match=r"2 keys.*--key \(k0, k1\)"):
        generate(state, 1, 1, 0)
    with pytest.raises(InputError, match=r"no key 'k11'.*Did you mean 'k1'"):
        generate(state, 1, 1, 0, key="k11")
    with pytest.raises(InputError, match="end its name"):
        write_sequences(tmp_path / "x.txt", np.zeros((1, 1, 1)), ["a"])
    river = CONFIG.model_copy(update={"model": {"name": "river"}})
    fit_file(path, tmp_path / "river", river, Choice(values=("a",)))
    with pytest.raises(InputError, match="river only detects"):
        generate(tmp_path / "river", 1, 1, 0)


def test_too_few_rows_to_learn(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", [line(n) for n in range(2 * CONFIG.min_records - 2)])
    with pytest.raises(InputError, match=r"No key of .* has the 4 usable rows"):
        fit_file(path, tmp_path / "state", CONFIG, Choice(key="k"))
    write(path, [line(0, "", "")])
    with pytest.raises(InputError, match=r"No row of .* has a time and a value"):
        fit_file(path, tmp_path / "state", CONFIG, Choice(values=("a", "b")))
    assert not (tmp_path / "state").exists()


def test_unknown_models_and_devices_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", [line(0)])
    with pytest.raises(ConfigError, match="did you mean stream_ae"):
        detect_file(path, tmp_path / "o.csv", CONFIG.model_copy(update={"model": {"name": "stream-ae"}}))
    with pytest.raises(InputError, match="replace their input"):
        detect_file(path, path, CONFIG)
