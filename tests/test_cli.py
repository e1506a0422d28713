"""The command line: what it says, where it says it, and with which exit code."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

if TYPE_CHECKING:
    from tests.conftest import Said


@pytest.fixture
def series(tmp_path: Path) -> Path:
    path = tmp_path / "series.csv"
    rows = "".join(f"2024-01-01 00:{n // 60:02d}:{n % 60:02d},k{n % 2},{n % 7}\n" for n in range(120))
    path.write_text("timestamp,who,load\n" + rows)
    return path


@pytest.fixture
def nobody() -> str:
    """host:port where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_help_lists_the_commands(cli: Callable[..., Said]) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    for command in [
        "run",
        "detect",
        "fit",
        "generate",
        "replay",
        "host",
        "broker",
        "topics",
        "watch",
        "doctor",
        "version",
    ]:
        assert f"  {command} " in out


def test_a_configuration_is_no_topic(cli: Callable[..., Said], tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("inputs: [{topic: orders}]\n")
    code, _, err = cli("topics", file)
    assert code == 1
    assert f"--config {file}" in err.replace("\n", "")


def test_version(cli: Callable[..., Said]) -> None:
    code, out, _ = cli("version")
    assert code == 0
    assert out.startswith("streamgen 0.")
    assert "\ntorch " in out


def test_detect_needs_no_option_but_out(cli: Callable[..., Said], series: Path, tmp_path: Path) -> None:
    code, out, err = cli("detect", series, "--out", tmp_path / "scores.csv")
    assert (code, out) == (0, "")
    assert err == "120 rows: 0 anomalies\n"
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 121


def test_detect_to_standard_output(series: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamgen", "detect", str(series), "--out", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("timestamp,score,p_value,is_anomaly,expected_load,contribution_load\n")
    assert len(done.stdout.splitlines()) == 121


def test_detect_takes_the_settings_of_a_file(cli: Callable[..., Said], series: Path, tmp_path: Path) -> None:
    def scores(*options: object) -> str:
        assert cli("detect", series, "--out", tmp_path / "out.csv", *options)[0] == 0
        return (tmp_path / "out.csv").read_text()

    config = tmp_path / "config.yaml"
    config.write_text("inputs: [{topic: t, window: {length: 4}, key: {field: who}, features: [load]}]")
    plain, by_key, by_file = scores(), scores("--key-column", "who"), scores("--config", config)
    assert by_key != plain
    assert by_file.splitlines()[0] == by_key.splitlines()[0]
    assert by_file != by_key  # the window
    river = scores("--config", config, "--model", "river")
    assert river.splitlines()[0] == by_file.splitlines()[0]
    assert river != by_file


def test_fit_and_generate(cli: Callable[..., Said], series: Path, tmp_path: Path) -> None:
    assert cli("fit", series, "--state", tmp_path / "s", "--key-column", "who")[0] == 0
    made = []
    for _ in range(2):
        out = tmp_path / "x.jsonl"
        options = ("--length", 4, "--count", 2, "--seed", 1, "--key", "k1")
        assert cli("generate", "--state", tmp_path / "s", "--out", out, *options)[0] == 0
        made.append(out.read_text())
    assert made[0] == made[1]
    # The noise of `what the stream could be` is another.
    assert cli("generate", "--state", tmp_path / "s", "--out", out, *options, "--prior")[0] == 0
    assert out.read_text() != made[0]
    assert [list(json.loads(line)) for line in made[0].splitlines()] == [["sequence", "step", "load"]] * 8


def test_evaluate(cli: Callable[..., Said], tmp_path: Path) -> None:
    """Sequences of the file's own kind, and the same at twice the height; windows do not span two keys."""
    rng = np.random.default_rng(0)
    walks = {key: np.cumsum(rng.normal(size=(600, 2)) - 0.1 * rng.normal(size=2), axis=0) % 5 for key in "ab"}
    rows = [f"{n},{key},{walks[key][n, 0]},{walks[key][n, 1]}\n" for n in range(600) for key in "ab"]
    rows[100] = "50,a,,1\n"
    (tmp_path / "real.csv").write_text("time,who,x,y\n" + "".join(rows))
    alike = np.concatenate([walks[key].reshape(-1, 10, 2) for key in "ab"])
    for name, windows in (("alike", alike), ("higher", 2 * alike), ("thin", alike[:, :, :1])):
        np.savez(tmp_path / name, x=windows, columns=np.array(["x", "y"]))

    def judged(name: str) -> tuple[str, list[str]]:
        options = ("--quick", "--key-column", "who", "--timestamp-column", "time", "--page", tmp_path / "new")
        code, out, err = cli("evaluate", tmp_path / "real.csv", tmp_path / f"{name}.npz", *options)
        assert code == 0, err
        return out, [line.split("  ")[0] for line in out.splitlines() if line.endswith("worse than real")]

    out, worse = judged("alike")
    assert out.startswith("119 real and 120 generated windows of 10 records\n")
    assert worse == []
    assert out.splitlines()[-1] == str(tmp_path / "new" / "evaluation.html")
    assert "marginal difference" in judged("higher")[1]
    assert "worse than real" in (tmp_path / "new" / "evaluation.html").read_text()
    code, _, err = cli("evaluate", tmp_path / "real.csv", tmp_path / "thin.npz", "--quick")
    assert (code, "holds x of shape (120, 10, 1) and 2 columns" in err) == (1, True)
    code, _, err = cli("evaluate", tmp_path / "real.csv", tmp_path / "real.csv", "--quick")
    assert (code, "is no file of sequences" in err) == (1, True)


def test_evaluate_says_which_file_of_sequences_is_damaged(cli: Callable[..., Said], tmp_path: Path) -> None:
    whole, x = tmp_path / "whole.npz", np.random.default_rng(0).normal(size=(30, 4, 1))
    (tmp_path / "real.csv").write_text("x\n" + "".join(f"{value}\n" for value in range(400)))
    np.savez_compressed(whole, x=x, columns=np.array(["x"]))
    given, middle = whole.read_bytes(), len(whole.read_bytes()) // 2
    np.savez(tmp_path / "plain.npz", x=x, columns=np.array(["x"]))
    plain = (tmp_path / "plain.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(given[:middle])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "squeezed.npz").write_bytes(given[:60] + bytes(20) + given[80:])
    (tmp_path / "bits.npz").write_bytes(plain[:200] + bytes([plain[200] ^ 1]) + plain[201:])
    np.save(tmp_path / "array.npy", x)
    np.savez(tmp_path / "complex.npz", x=x * 1j, columns=np.array(["x"]))
    np.savez(tmp_path / "one.npz", x=x, columns=np.array("x"))
    for name, why in (
        ("half.npz", "not a zip file"),
        ("empty.npz", "No data left in file"),
        ("squeezed.npz", "decompressing data"),
        ("bits.npz", "Bad CRC-32"),
        ("array.npy", "one array without a name"),
        ("complex.npz", "its x are no numbers"),
        ("one.npz", "0-d array"),
    ):
        code, out, err = cli("evaluate", tmp_path / "real.csv", tmp_path / name, "--quick")
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert f"{name} is no file of sequences (" in err
        assert why in err


def test_evaluate_says_at_once_what_it_could_not_do_in_the_end(
    cli: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(*_: object) -> float:
        raise AssertionError("it began")

    monkeypatch.setattr("streamgen.evaluation.report.discriminative_score", judged)
    rng = np.random.default_rng(0)
    (tmp_path / "real.csv").write_text("x\n" + "".join(f"{value}\n" for value in rng.normal(size=400)))
    for length in (1, 4):
        np.savez(tmp_path / str(length), x=rng.normal(size=(30, length, 1)), columns=np.array(["x"]))
    for options, said in (
        (("1.npz",), "In windows of one record there is nothing to predict: give longer ones, or"),
        (("4.npz", "--page", tmp_path / "real.csv"), "real.csv is a file. Name a folder."),
        (("4.npz", "--page", tmp_path / "real.csv" / "new"), "real.csv is a file. Name a folder."),
    ):
        code, out, err = cli("evaluate", tmp_path / "real.csv", tmp_path / options[0], *options[1:])
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert said in err


def test_evaluate_finds_copies_of_what_was_learned(cli: Callable[..., Said], tmp_path: Path) -> None:
    """Sequences that begin anywhere among the learned rows, beside the stream's own as it goes on."""
    rng = np.random.default_rng(0)
    series = rng.normal(size=(6000, 2))
    for n in range(1, len(series)):
        series[n] += 0.8 * series[n - 1]
    learned, later, further = series[:2000], series[2000:4000], series[4000:]
    for name, rows in (("learned", learned), ("later", later)):
        (tmp_path / f"{name}.csv").write_text("x,y\n" + "".join(f"{x!r},{y!r}\n" for x, y in rows.tolist()))
    own = further.reshape(-1, 10, 2)
    copied = np.stack([learned[first : first + 10] for first in rng.integers(1990, size=100)])
    for name, windows in (
        ("own", own),
        ("copied", copied),
        ("some", np.concatenate([own[:60], copied[:40]])),
    ):
        np.savez(tmp_path / name, x=windows, columns=np.array(["x", "y"]))

    def judged(name: str, real: str = "later") -> tuple[str, dict[str, str]]:
        files = (tmp_path / f"{real}.csv", tmp_path / f"{name}.npz", "--train", tmp_path / "learned.csv")
        page = ("--page", tmp_path / "new") if name == "some" else ()
        code, out, err = cli("evaluate", *files, "--quick", *page)
        assert code == (0 if real == "later" else 1), err
        return out + err, {line.split("  ")[0]: line for line in out.splitlines()}

    out, lines = judged("own")
    assert out.startswith("200 real and 200 generated windows of 10 records; 1991 that were learned\n")
    assert not lines["copies"].endswith("worse than real")
    value, null = (float(word) for word in lines["copies"].split()[2:4])
    assert 0.0 <= value < 0.15
    assert 0.01 < null < 0.12
    line = judged("copied")[1]["copies"]
    assert line.split()[2] == "1.0000"
    assert line.endswith("worse than real")
    assert judged("some")[1]["copies"].endswith("worse than real")
    assert re.search(
        "<td>copies</td><td>lower</td>.*worse than real", (tmp_path / "new" / "evaluation.html").read_text()
    )
    assert "of 100 real windows are among those that were learned, so copies" in judged("own", "learned")[0]
    code, _, err = cli(
        "evaluate", tmp_path / "later.csv", "--train", tmp_path / "learned.csv", "--state", "s"
    )
    assert (code, "Copies are found among generated sequences" in err) == (1, True)


def test_evaluate_a_state(cli: Callable[..., Said], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{60 * n},{np.sin(n / 4) + rng.normal() / 9}\n" for n in range(200)]
    for name, part in (("old", rows[:150]), ("new", rows[100:])):
        (tmp_path / f"{name}.csv").write_text("time,x\n" + "".join(part))
    assert cli("fit", tmp_path / "old.csv", "--state", tmp_path / "s", "--model", "rvae")[0] == 0
    code, out, err = cli("evaluate", tmp_path / "new.csv", "--state", tmp_path / "s")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == (
        "50 rows that were not learned, 3 windows of 16; left out: 50 no later than what was learned"
    )
    assert [line[: line.index("  ")] for line in lines[1:]] == [
        "log likelihood, higher is better",
        "one step ahead",
        "one step ahead, last value",
        "windows, evidence lower bound",
        "windows, importance-weighted",
    ]
    lower, weighted = (float(line.split()[-1]) for line in lines[-2:])
    assert lower <= weighted
    code, _, err = cli("evaluate", tmp_path / "new.csv")
    assert (code, "name a file of sequences, or a state with --state" in err) == (1, True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("detect nowhere.csv --out o.csv", "Cannot read nowhere.csv: No such file or directory."),
        ("detect empty.csv --out o.csv", "empty.csv is empty: its first line must name the columns."),
        ("detect header.csv --out o.csv", "header.csv has no rows below the line of column names."),
        ("detect text.csv --out o.csv", "text.csv has no column of numbers"),
        ("detect series.csv --out o.csv --value-columns lod", "has no column 'lod'. Did you mean 'load'?"),
        ("detect series.csv --out o.csv --key-column whom", "has no column 'whom'. Did you mean 'who'?"),
        ("detect series.csv --out o.csv --timestamp-column t", "series.csv has no column 't'."),
        ("detect series.csv --out o.csv --timestamp-column who", "holds no time, but for example 'k0'"),
        ("detect series.csv --out no/o.csv", "Cannot write no/o.csv: there is no folder no; make it first."),
        ("detect series.csv --out .", "Cannot write .: it is a folder."),
        ("detect series.csv --out series.csv", "The scores would replace their input series.csv"),
        (
            "detect series.csv --out o.csv --model lstm",
            "there is no model 'lstm' Known: stream_ae, rvae, river.",
        ),
        ("detect series.csv --out o.csv --config no.yaml", "there is no configuration file no.yaml"),
        ("fit series.csv --state series.csv", "Cannot write the state"),
        ("generate --state none --out x.npz", "There is no state under none: learn one first"),
        ("generate --state none --out x.txt", "The form of x.txt is not known"),
        (
            "generate --state none --out x.csv --length 1000000000",
            "1 sequences of 1,000,000,000 steps are too many: at most 100,000 of at most 1,000,000, and",
        ),
        ("generate --state none --out x.csv --length 100001 --count 100", "steps are too many"),
        ("generate --state none --out x.csv --length 1 --count 100001", "steps are too many"),
        (
            "generate --state none --out x.csv --length 1000000 --count 10",
            "There is no state under none",
        ),
        ("run", "inputs is missing: name at least one topic"),
        ("run config.yaml --input t", "from a file or from --input, not from both"),
        ("run --input t --bootstrap localhost", "'localhost' is not host:port"),
        ("run --input t --model strem_ae", "did you mean stream_ae?"),
        ("run --input t --worker-id a/b", "The worker id 'a/b'"),
        ("replay series.csv --topic t --speed 0", "The speed of a replay must be greater than 0"),
        ("replay nowhere.csv --topic t", "Cannot read nowhere.csv"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    cli: Callable[..., Said], series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    command: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("a,b\n")
    (tmp_path / "text.csv").write_text("a,b\nx,y\n")
    before = sorted(tmp_path.iterdir())
    with listener() as port:  # producers look for the broker first
        monkeypatch.setenv("STREAMGEN_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{port}")
        code, out, err = cli(*command.split())
    assert (code, out) == (1, "")
    assert said in err
    assert err.startswith("streamgen: ")
    assert err.count("\n") == 1
    after = {path for path in tmp_path.iterdir() if path.name != "streamgen-state"}
    assert sorted(after) == before, "something was left behind"


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(1024)
        # Metadata, version 4: size, correlation id, no delay, brokers, cluster, controller or topics.
        self.request.sendall(struct.pack(">iiiihii", 22, 1, 0, 0, -1, -1, 0))


@contextmanager
def listener() -> Iterator[int]:
    """A port that answers whether Kafka is there, and nothing else."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    "command",
    [
        "run --input t",
        "watch t",
        "replay series.csv --topic t",
        "host --topic t",
        "topics t",
        "doctor --input t",
    ],
)
def test_a_missing_broker_is_told_within_seconds(
    cli: Callable[..., Said], series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: str,
    command: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    code, out, err = cli(*command.split(), "--bootstrap", nobody)
    assert time.monotonic() - began < 10
    assert code == 1
    sentence = f"No Kafka broker can be reached ({nobody}: Connection refused): start one (streamgen broker)"
    assert sentence in (out if command.startswith("doctor") else err)
    assert "Traceback" not in out + err


def test_wrong_usage_has_another_exit_code(cli: Callable[..., Said]) -> None:
    code, _, err = cli("detect")
    assert code == 2
    assert "Missing argument" in err


def test_print_config_masks_secrets_and_loads_again(
    cli: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGEN_KAFKA__SASL_PASSWORD", "hidden")
    options = ("--bootstrap", "kafka:1", "--state", "/s", "--metrics-port", 0, "--application-id", "shop")
    code, out, _ = cli("run", "--input", "a", "--input", "b", "--model", "river", *options, "--print-config")
    assert code == 0
    assert "hidden" not in out
    content = yaml.safe_load(out)
    assert [one["topic"] for one in content["inputs"]] == ["a", "b"]
    assert content["inputs"][1]["model"] == {"name": "river"}
    assert content["kafka"]["bootstrap_servers"] == "kafka:1"
    assert content["application_id"] == "shop"
    assert content["state"]["store"] == "/s"
    assert content["metrics"]["port"] == 0
    (tmp_path / "again.yaml").write_text(out)
    assert cli("run", tmp_path / "again.yaml", "--print-config")[:2] == (0, out)


def test_doctor_tells_a_bad_configuration(cli: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("inputs: [{topic: t, widow: 1}]")
    code, out, _ = cli("doctor", tmp_path / "c.yaml")
    assert code == 1
    assert out.startswith("✗ ")
    assert "did you mean inputs[0].window?" in out
