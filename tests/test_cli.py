"""The command line: what it says, where it says it, and with which exit code."""

from __future__ import annotations

import json
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
    quantiles = ("--count", 10, "--quantiles", "0.1,0.9")
    assert cli("generate", "--state", tmp_path / "s", "--out", out, *options, *quantiles)[0] == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [list(line) for line in lines] == [["quantile", "step", "load"]] * 8
    assert all(low["load"] < high["load"] for low, high in zip(lines[:4], lines[4:], strict=True))
    assert [list(json.loads(line)) for line in made[0].splitlines()] == [["sequence", "step", "load"]] * 8


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
        (
            "generate --state none --out x.csv --quantiles .1;.9",
            "numbers with commas between them, not '.1;.9'",
        ),
        ("generate --state none --out x.csv --quantiles 10,90", "shares between 0 and 1"),
        ("generate --state none --out x.csv --quantiles .1,.9", "1 sequences do not tell these quantiles"),
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
