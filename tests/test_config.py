"""The configuration: what loads, what wins, and what each mistake is told."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from streamgen.config import Config, InputConfig
from streamgen.configfile import load_config, print_config, secret_paths
from streamgen.errors import ConfigError
from streamgen.times import Duration, short_duration, time_ms

SMALL = "inputs:\n  - topic: cpu\n"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("STREAMGEN_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def load(file: Path, text: str, **overrides: Any) -> Config:
    file.write_text(text, encoding="utf-8")
    return load_config(file, overrides)


def refusal(file: Path, text: str | None = None, **overrides: Any) -> str:
    """The message, which names no exception that would carry values into a traceback."""
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    assert not isinstance(caught.value.__context__, ValidationError)
    return str(caught.value)


def test_one_topic_is_a_whole_configuration(file: Path) -> None:
    config = load(file, SMALL)
    assert config == Config(inputs=[InputConfig(topic="cpu")])


def test_no_file_is_needed() -> None:
    config = load_config(None, {"inputs": [{"topic": "cpu"}], "kafka": {"bootstrap_servers": "a:1"}})
    assert (config.inputs[0].topic, config.kafka.bootstrap_servers) == ("cpu", "a:1")


def test_the_command_line_is_above_the_environment_above_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SMALL + "kafka: {bootstrap_servers: 'file:1', sasl_username: file, ssl_cafile: file}\n"
    monkeypatch.setenv("STREAMGEN_KAFKA__BOOTSTRAP_SERVERS", "environment:1")
    monkeypatch.setenv("STREAMGEN_KAFKA__SASL_USERNAME", "environment")
    kafka = load(file, text, kafka={"bootstrap_servers": "command:1"}).kafka
    assert (kafka.bootstrap_servers, kafka.sasl_username, kafka.ssl_cafile) == (
        "command:1",
        "environment",
        "file",
    )


def test_environment_values(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STREAMGEN_SEED": "7",
        "STREAMGEN_METRICS__PORT": "null",
        "STREAMGEN_KAFKA__SSL_CHECK_HOSTNAME": "no",
        "STREAMGEN_STATE__DIRECTORY": "",  # as compose files pass what is not set
        "STREAMGEN_INPUTS": '[{"topic": "memory", "window": {"max_gap": "1h"}}]',
        # What Kubernetes sets beside services called streamgen and streamgen-metrics.
        "STREAMGEN_SERVICE_HOST": "10.0.0.1",
        "STREAMGEN_PORT": "tcp://10.0.0.1:9464",
        "STREAMGEN_METRICS_PORT": "tcp://10.0.0.1:9464",
        "STREAMGEN_METRICS_PORT_9464_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    config = load(file, SMALL)
    assert (config.seed, config.metrics.port, config.kafka.ssl_check_hostname) == (7, None, False)
    assert config.state.directory == "streamgen-state"
    assert [(one.topic, one.window.max_gap) for one in config.inputs] == [("memory", timedelta(hours=1))]


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("STREAMGEN_KAFKA_SASL_PASSWORD", "STREAMGEN_KAFKA__SASL_PASSWORD"),
        ("STREAMGEN_KAFKA__SASL_PASWORD", "STREAMGEN_KAFKA__SASL_PASSWORD"),
        ("STREAMGEN_APLICATION_ID", "STREAMGEN_APPLICATION_ID"),
        ("STREAMGEN_FOO__BAR", "docs/configuration.md"),
    ],
)
def test_a_misspelt_variable(file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, near: str) -> None:
    monkeypatch.setenv(variable, "hunter2")
    message = refusal(file, SMALL)
    assert variable in message
    assert near in message
    assert "hunter2" not in message


def test_a_variable_that_is_not_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGEN_KAFKA", "hunter2")
    message = refusal(file, SMALL)
    assert message.startswith("STREAMGEN_KAFKA is not JSON")
    assert "hunter2" not in message


def test_a_wrong_value_in_the_environment_names_the_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGEN_METRICS__PORT", "70000")
    assert refusal(file, SMALL) == (
        "the environment variable STREAMGEN_METRICS__PORT: metrics.port is '70000'; allowed: at most 65535"
    )
    assert refusal(file, SMALL, metrics={"port": -1}) == (
        "the command line: metrics.port is -1; allowed: at least 0"
    )


# --- secrets ------------------------------------------------------------------------------------------


def test_every_password_is_a_secret() -> None:
    assert set(secret_paths(Config)) == {("kafka", "sasl_password"), ("kafka", "ssl_password")}


def test_a_secret_from_a_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text(" hunter2 \n")
    monkeypatch.setenv("STREAMGEN_KAFKA__SASL_PASSWORD_FILE", str(secret))
    password = load(file, SMALL).kafka.sasl_password
    assert password is not None
    assert password.get_secret_value() == " hunter2 "  # only the editor's newline goes
    monkeypatch.setenv("STREAMGEN_KAFKA__SASL_PASSWORD", "hunter3")
    message = refusal(file)
    assert message.startswith("both STREAMGEN_KAFKA__SASL_PASSWORD and STREAMGEN_KAFKA__SASL_PASSWORD_FILE")
    monkeypatch.delenv("STREAMGEN_KAFKA__SASL_PASSWORD")
    secret.unlink()
    assert "which cannot be read: No such file or directory" in refusal(file)


@pytest.mark.parametrize(
    "text",
    [
        "kafka: {sasl_password: [hunter2]}\n",
        "kafka: {sasl_password: {x: hunter2}}\n",
        "kafka: {sasl_password: 31337}\n",
        "kafka: hunter2\n",
        "kafka: [hunter2]\n",
        "kafka: {sasl_pasword: hunter2}\n",
        "kafka: {sasl_password: *hunter2}\n",
        "kafka: {sasl_password: !hunter2 x}\n",
        "kafka: {sasl_password: '@hunter2}\n",
        "kafka: {sasl_password: %hunter2}\n",
        "kafka:\n  sasl_password: hunter2: x\n",
        "kafka: {sasl_password: hunter2, security_protocol: SASL_SSL}\n",
        "kafka: {sasl_password: hunter2, security_protocol: hm}\n",
    ],
)
def test_no_message_holds_a_secret(file: Path, text: str) -> None:
    message = refusal(file, SMALL + text)
    assert "hunter2" not in message
    assert "31337" not in message


def test_no_message_holds_a_secret_of_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGEN_KAFKA__SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("STREAMGEN_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    message = refusal(file, SMALL)
    assert "security_protocol SASL_SSL needs sasl_mechanism, sasl_username too" in message
    assert "hunter2" not in message


def test_what_is_printed_masks_secrets_and_loads_again(file: Path) -> None:
    text = """
application_id: shop
kafka: {sasl_password: hunter2, sasl_username: 'no'}
inputs:
  - topic: 1e3
    features: ['yes', '0x1F', '2024-05-01', '12', 'null', 'é: ☃', '1:30', '.5', 'on']
    timestamp: {max_ahead: 90m, max_behind: PT36H}
    window: {max_gap: 0.5s}
    start: 2024-05-01
    model: {name: stream_ae, learning_rate: 1e-3, learn_anomalies: yes, sizes: [8, 16], none: null}
state: {every_seconds: 1e-7}
"""
    config = load(file, text.replace("1e3", "'1e3'"))
    assert config.inputs[0].model["learning_rate"] == 0.001
    assert config.inputs[0].model["learn_anomalies"] == "yes"
    printed = print_config(config)
    assert "hunter2" not in printed
    assert "sasl_password: '***'" in printed
    for form in ("max_ahead: 90m", "max_behind: 36h", "max_gap: 500ms"):
        assert form in printed
    keys = [line.split(":")[0] for line in printed.splitlines() if line[0] not in " -"]
    assert keys == list(Config.model_fields)
    again = load(file, printed.replace("'***'", "hunter2"))
    assert again == config
    assert again.inputs[0].fingerprint(0, ("x",)) == config.inputs[0].fingerprint(0, ("x",))


# --- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kafk: {}", "kafk is not a known key; did you mean kafka?"),
        (
            "bootstrap_servers: a",
            "bootstrap_servers is not a known key; did you mean kafka.bootstrap_servers?",
        ),
        ("timezone: UTC", "timezone is not a known key; did you mean inputs[].timestamp.timezone?"),
        ("metrics: {zzz: 1}", "metrics.zzz is not a known key; known here: host, port"),
        ("seed: -1", "seed is -1; allowed: at least 0"),
        ("seed: 1.5", "seed is 1.5; allowed: a whole number"),
        ("seed: true", "seed is true: must not be true or false"),
        ("seed:", "seed is empty; allowed: a whole number"),
        ("device: gpu", "device is 'gpu'; allowed: auto, cpu or cuda"),
        ("application_id: a b", "application_id is 'a b'; allowed: text that matches ^[A-Za-z0-9._-]+$"),
        ("state: {directory: 12}", "state.directory is 12; allowed: text (put it in quotes)"),
        ("state: {every_seconds: .inf}", "state.every_seconds is inf; allowed: a finite number"),
        ("kafka: 7", "kafka is 7; allowed: a mapping (indented lines of key: value)"),
        ("kafka: {ssl_check_hostname: hm}", "kafka.ssl_check_hostname is 'hm'; allowed: true or false"),
    ],
)
def test_a_mistake_at_the_top(file: Path, text: str, problem: str) -> None:
    assert refusal(file, SMALL + text + "\n") == f"{file}: {problem}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("widow: {}", "inputs[1].widow is not a known key; did you mean inputs[1].window?"),
        ("window: {size: 8, length: 1}", "inputs[1].window.length is 1; allowed: at least 2"),
        ("window: {max_gap: soon}", "inputs[1].window.max_gap is 'soon': must be a duration such as 500ms"),
        ("window: {max_gap: 0}", "inputs[1].window.max_gap is 0s; allowed: more than 0"),
        ("timestamp: {timezone: Europe/Brelin}", "did you mean Europe/Berlin?"),
        ("timestamp: {timezone: America}", "not a time zone of the IANA database"),
        ("timestamp: {timezone: ../etc/passwd}", "not a time zone of the IANA database"),
        ("start: yesterday", "start is 'yesterday'; allowed: earliest, latest, or an ISO 8601 time"),
        ("publish_from: latest", "publish_from is 'latest'; allowed: first, now, or an ISO 8601 time"),
        ("start: 2024", "inputs[1].start is 2024; allowed: text (put it in quotes)"),
        ("features: a,b", "inputs[1].features is 'a,b'; allowed: a list"),
        ("features: []", "inputs[1].features is a list; allowed: at least 1 entry"),
        ("features: [a, b, a]", "the feature 'a' is named twice"),
        ("outputs: {scores: memory}", "the topic 'memory' has two uses"),
        ("window: {length: 8, stride: 9}", "stride is 9; allowed: at most the length, 8"),
    ],
)
def test_a_mistake_in_an_input(file: Path, text: str, problem: str) -> None:
    message = refusal(file, f"{SMALL}  - topic: memory\n    {text}\n")
    assert str(file) in message
    assert "inputs[1]" in message
    assert problem in message


def test_every_mistake_is_listed(file: Path) -> None:
    message = refusal(file, "seed: -1\ninputs: [{topik: a}]\n")
    assert message.splitlines() == [
        "3 problems in the configuration:",
        f"  - {file}: inputs[0].topic is missing",
        f"  - {file}: inputs[0].topik is not a known key; did you mean inputs[0].topic?",
        f"  - {file}: seed is -1; allowed: at least 0",
    ]


def test_a_topic_twice(file: Path) -> None:
    assert "the topic 'cpu' is listed twice" in refusal(file, SMALL + "  - topic: cpu\n")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "\ufeff"])
def test_an_empty_file(file: Path, text: str) -> None:
    assert refusal(file, text) == f"{file}: inputs is missing: name at least one topic"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- topic: a\n", " holds a list, not a mapping"),
        ("hello\n", " holds a single value, not a mapping"),
        ("inputs:\n\t- topic: a\n", ", line 2: a tab, which YAML forbids as indentation; use spaces"),
        ("seed: 1\ninputs: [\n", ", line 3: "),
        ("seed: 1\nkafka: a: b\n", ", line 2: mapping values are not allowed here"),
        ("seed: 1\nseed: 2\n", ", line 2: the key 'seed' a second time (first on line 1)"),
        ("1: 2\n", ", line 1: a key that is not text"),
        ("seed: *a\n", ", line 1: a name after * or &"),
        ("seed: !a 1\n", ", line 1: an unknown tag"),
        ("seed: \x00\n", " is not YAML: it holds a character that YAML forbids"),
        ("a: 1\n---\nb: 2\n", ", line 2: "),
    ],
)
def test_broken_yaml(file: Path, text: str, problem: str) -> None:
    assert refusal(file, text).startswith(f"{file}{problem}")


def test_files_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.yaml") == (
        f"there is no configuration file {tmp_path / 'absent.yaml'}; check the path"
    )
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    file.write_bytes(b"seed: \xff")
    assert refusal(file) == f"{file} is not UTF-8 text; save it as UTF-8"


# --- times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds", "short"),
    [
        ("1h", 3600, "1h"),
        ("30s", 30, "30s"),
        ("2d", 172_800, "2d"),
        ("90m", 5400, "90m"),
        ("500ms", 0.5, "500ms"),
        ("1h30m", 5400, "90m"),
        ("1.5 h", 5400, "90m"),
        ("PT1H", 3600, "1h"),
        ("P1DT1S", 86_401, "86401s"),
        (45, 45, "45s"),
        ("45", 45, "45s"),
        (0.25, 0.25, "250ms"),
        (0.000125, 0.000125, "0.125ms"),
        (0, 0, "0s"),
        (90_000, 90_000, "25h"),
    ],
)
def test_durations(given: Any, seconds: float, short: str) -> None:
    adapter: TypeAdapter[timedelta] = TypeAdapter(Duration)
    value = adapter.validate_python(given)
    assert value == timedelta(seconds=seconds)
    assert json.loads(adapter.dump_json(value)) == short == short_duration(value)
    assert adapter.validate_python(short) == value


@pytest.mark.parametrize("given", ["", "h", "1y", "1h x", "-1h", -1, True, "nan", 1e30, [1], None, "P"])
def test_what_is_no_duration(given: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(given)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("1970-01-01", "UTC", 0),
        ("1970-01-01T01:00:00+01:00", "UTC", 0),
        ("1970-01-01T00:00:00", "Europe/Berlin", -3_600_000),
        ("2024-05-01T00:00:00.123Z", "Asia/Tokyo", 1_714_521_600_123),
        ("earliest", "UTC", None),
        ("", "UTC", None),
    ],
)
def test_iso_times(text: str, zone: str, expected: int | None) -> None:
    assert time_ms(text, zone) == expected
