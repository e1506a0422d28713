"""Signing in over TLS, what a refusal says, and where secrets and open ports are not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from streamgen.config import KafkaConfig, MetricsConfig
from streamgen.errors import BrokerUnavailable, ConfigError, StreamgenError
from streamgen.kafka.client import client_settings
from streamgen.kafka.pins import state_topic
from streamgen.kafka.reach import reach
from streamgen.kafka.topics import NewTopic, create_topics
from tests.integration.rights_page import rights
from tests.integration.secured import PASSWORD, USERS, Secured
from tests.integration.test_worker import events, metrics_port, wait_for

USER = USERS["SCRAM-SHA-512"]


@pytest.mark.parametrize("way", [*USERS, "TLS", "PLAINTEXT"])
def test_each_way_to_sign_in(secured: Secured, way: str) -> None:
    other = {"TLS": secured.mutual_tls, "PLAINTEXT": lambda: secured.inner}
    kafka = other[way]() if way in other else secured.sasl(way)
    assert reach(kafka) == kafka.bootstrap_servers
    with KafkaAdminClient(**client_settings(kafka)) as admin:
        assert admin.describe_topics(["none"])


@pytest.fixture
def wrong(secured: Secured) -> Callable[[str], KafkaConfig]:
    """Each way to get it wrong, by what is wrong."""
    tls, sasl = (secured.broker.address(protocol) for protocol in ("SSL", "SASL_SSL"))
    plain, by_name = secured.broker.bootstrap_servers, sasl.replace("127.0.0.1", "localhost")
    made = {
        **{f"password {m}": lambda m=m: secured.sasl(m, sasl_password="wrong-one") for m in USERS},
        "user": lambda: secured.sasl(sasl_username="nobody"),
        "mechanism": lambda: secured.sasl("SCRAM-SHA-256", sasl_username=USERS["PLAIN"]),
        "authority": lambda: secured.sasl(ssl_cafile=None),
        "host": lambda: secured.sasl(bootstrap_servers=by_name),
        "file": lambda: secured.sasl(ssl_cafile="/nowhere/ca.pem"),
        "no certificates": lambda: secured.sasl(ssl_cafile=os.devnull),
        "no certificate": lambda: secured.mutual_tls(ssl_certfile=None, ssl_keyfile=None),
        "no password of the key": lambda: secured.mutual_tls(ssl_password=None),
        "another key": lambda: secured.mutual_tls(ssl_keyfile=str(secured.folder / "server.pem")),
        "plain to TLS": lambda: KafkaConfig(bootstrap_servers=tls),
        "plain SASL to TLS": lambda: secured.sasl(security_protocol="SASL_PLAINTEXT"),
        "TLS to plain": lambda: secured.mutual_tls(bootstrap_servers=plain),
        "TLS to SASL": lambda: secured.mutual_tls(bootstrap_servers=sasl),
        "SASL to plain": lambda: secured.sasl(security_protocol="SASL_PLAINTEXT", bootstrap_servers=plain),
    }
    return lambda what: made[what]()


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        *((f"password {m}", "PermissionDenied", f"refused the user {u} with {m} ") for m, u in USERS.items()),
        ("user", "PermissionDenied", "refused the user nobody"),
        ("mechanism", "PermissionDenied", f"refused the user {USERS['PLAIN']} with SCRAM-SHA-256"),
        ("authority", "ConfigError", "is not trusted (unable to get local issuer certificate)"),
        ("host", "ConfigError", "is not trusted (Hostname mismatch"),
        ("file", "ConfigError", "kafka.ssl_cafile names /nowhere/ca.pem, which cannot be read"),
        ("no certificates", "ConfigError", "holds no certificate in PEM form"),
        ("no certificate", "PermissionDenied", "refused this client's certificate, or that it has none"),
        ("no password of the key", "ConfigError", "kafka.ssl_password must open the key"),
        ("another key", "ConfigError", "must be PEM, belong together"),
        ("plain to TLS", "BrokerUnavailable", "may want another kafka.security_protocol"),
        ("plain SASL to TLS", "BrokerUnavailable", "may want another kafka.security_protocol"),
        ("TLS to plain", "ConfigError", "does not speak TLS"),
        ("TLS to SASL", "BrokerUnavailable", "may want another kafka.security_protocol"),
        ("SASL to plain", "ConfigError", "does not take kafka.sasl_mechanism SCRAM-SHA-512; it takes: none"),
    ],
)
def test_what_is_refused_is_one_sentence_within_seconds(
    wrong: Callable[[str], KafkaConfig], what: str, kind: str, said: str
) -> None:
    began = time.monotonic()
    with pytest.raises(StreamgenError) as refused:
        reach(wrong(what))
    assert time.monotonic() - began < 3
    assert type(refused.value).__name__ == kind
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "wrong-one" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_a_server_that_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgen.kafka.signin.TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        for protocol in ("PLAINTEXT", "SSL"):
            with pytest.raises(BrokerUnavailable, match=server):
                reach(KafkaConfig(bootstrap_servers=server, security_protocol=protocol))


@pytest.fixture
def application(secured: Secured, fresh: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """An input with 60 records, and an application that may do what a worker does."""
    topic, name = fresh("secret"), fresh("app")
    create_topics(secured.inner, [NewTopic(topic)])
    secured.send(topic, 60)
    needed = rights("worker", topic, name) + rights("worker that makes its topics", topic, name)
    with secured.granted([right.granted_to(USER) for right in needed]):
        yield topic, name


def test_the_password_is_nowhere_and_no_port_is_open_to_others(
    secured: Secured, application: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, name = application
    (tmp_path / "password").write_text(PASSWORD + "\n")
    kafka = secured.sasl().model_dump(mode="json", exclude={"sasl_password"}, exclude_none=True)
    kafka["sasl_password_file"] = tmp_path / "password"
    kafka["ssl_password"] = PASSWORD
    for key, value in kafka.items():
        monkeypatch.setenv(f"STREAMGEN_KAFKA__{key.upper()}", str(value))
    command = [sys.executable, "-m", "streamgen", "run", "--input", topic, "--application-id", name]
    monkeypatch.setenv("STREAMGEN_STATE__DIRECTORY", str(tmp_path / "state"))

    told: dict[str, bytes] = {}
    with (tmp_path / "worker.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            port = wait_for(lambda: metrics_port(tmp_path), "the worker did not start")
            wait_for(lambda: len(secured.read(f"{topic}.scores")) >= 60, "there are no scores")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                told["metrics"] = answer.read()
            running = psutil.Process(process.pid)
            told["command line"] = " ".join(running.cmdline()).encode()
            ports = running.net_connections("inet")
            listening = {port.laddr.ip for port in ports if port.status == psutil.CONN_LISTEN}
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
    assert listening == {"127.0.0.1"}
    assert events(tmp_path)[-1]["event"] == "worker ended"
    told["log"] = (tmp_path / "worker.log").read_bytes()

    printed = subprocess.run([*command, "--print-config"], capture_output=True, check=True)
    told["printed configuration"] = printed.stdout + printed.stderr
    assert printed.stdout.count(b"'***'") == 2

    monkeypatch.setenv("STREAMGEN_KAFKA__SASL_USERNAME", "nobody")
    refused = subprocess.run(command, capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"refused the user nobody" in refused.stderr
    told["a refusal"] = refused.stdout + refused.stderr

    for written in (f"{topic}.scores", f"{topic}.anomalies", f"{topic}.dlq", state_topic(name)):
        told[written] = everything(secured, written)
    assert told[state_topic(name)]
    assert [what for what, content in told.items() if PASSWORD.encode() in content] == []


def everything(secured: Secured, topic: str) -> bytes:
    """Keys, values and headers of all records, aborted ones too."""
    consumer = KafkaConsumer(**client_settings(secured.inner), enable_auto_commit=False)
    partitions = [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends, found = consumer.end_offsets(partitions), b""
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for records in consumer.poll(timeout_ms=50).values():
            found += b"".join(repr((r.key, r.value, r.headers)).encode() for r in records)
    consumer.close()
    return found


def test_metrics_are_for_this_machine_unless_told() -> None:
    assert MetricsConfig().host == "127.0.0.1"


def test_a_missing_file_of_tls_is_a_configuration_error(secured: Secured) -> None:
    with pytest.raises(ConfigError, match=r"kafka\.ssl_keyfile names /nowhere/key, which cannot be read"):
        reach(secured.mutual_tls(ssl_keyfile="/nowhere/key"))
