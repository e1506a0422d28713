"""The commands that talk to a broker, against a real one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from streamgen.config import KafkaConfig
from streamgen.kafka.topics import NewTopic, create_topics, partition_count

if TYPE_CHECKING:
    from tests.conftest import Said


@pytest.fixture
def cli(
    cli: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, kafka: KafkaConfig, tmp_path: Path
) -> Callable[..., Said]:
    """Run a command against the broker."""
    monkeypatch.setenv("STREAMGEN_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.chdir(tmp_path)
    return cli


def score(key: str, p_value: float, is_anomaly: bool) -> dict[str, Any]:
    return {
        "key": key, "timestamp": "2024-01-01T00:00:00.000Z", "score": 0.5, "p_value": p_value,
        "is_anomaly": is_anomaly, "expected": {"load": 3.5}, "contributions": {"load": 1.0, "disk": 2.0},
    }  # fmt: skip


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_topics_are_made_once(
    cli: Callable[..., Said], kafka: KafkaConfig, fresh: Callable[[str], str]
) -> None:
    name = fresh("made")
    code, out, _ = cli("topics", name, "--partitions", 3)
    assert code == 0
    assert out.split() == f"made {name} made {name}.scores made {name}.anomalies made {name}.dlq".split()
    assert partition_count(kafka, f"{name}.dlq") == 3
    assert cli("topics", name) == (0, "all topics are there\n", "")


def test_what_is_wrong_with_a_topic_is_one_sentence(
    cli: Callable[..., Said], kafka: KafkaConfig, fresh: Callable[[str], str]
) -> None:
    name = fresh("wrong")
    create_topics(kafka, [NewTopic(name, 2), NewTopic(f"{name}.scores", 3)])
    for command, said in (
        (
            f"run --input {name}",
            f"The output topic {name}.scores has 3 partitions and its input {name} has 2",
        ),
        ("run --input nowhere", "The input topic nowhere does not exist"),
        ("watch nowhere", "There is neither a topic nowhere nor nowhere.scores"),
        ("replay rows.jsonl --topic nowhere", "The topic nowhere does not exist"),
    ):
        lines(Path("rows.jsonl"), [{"a": 1}])
        code, out, err = cli(*command.split())
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"streamgen: {said}")


def test_watch_shows_the_newest_score_of_each_key(
    cli: Callable[..., Said], kafka: KafkaConfig, fresh: Callable[[str], str]
) -> None:
    name = fresh("watched")
    # One partition: between partitions there is no order, and so no newest score.
    create_topics(kafka, [NewTopic(f"{name}.scores", 1, settings={"retention.ms": "-1"})])
    scores = [score("x", 0.5, False), score("y", 0.25, False), score("x", 0.00001, True), {"no": "score"}]
    assert cli("replay", lines(Path("s.jsonl"), scores), "--topic", f"{name}.scores")[0] == 0
    code, out, _ = cli("watch", name, "--for", 1.5, "--from-start")
    assert code == 0
    assert f"{name}.scores:" in out
    assert "3 records, 2 keys, 1 anomalies, 1 that are no scores" in " ".join(out.split())
    newest, _, anomalies = out.partition("\nanomalies")
    assert "1e-05" in newest
    assert "0.25" in newest
    assert "│ 0.5 " in newest
    assert "load 3.5" in newest
    assert anomalies.count("1e-05") == 1
    assert "disk" in anomalies  # what contributed most
    quiet = cli("watch", name, "--for", 0.5)[1]
    assert "0 records, 0 keys" in quiet


def test_doctor_finds_nothing_wrong(
    cli: Callable[..., Said], kafka: KafkaConfig, fresh: Callable[[str], str]
) -> None:
    name = fresh("sound")
    create_topics(kafka, [NewTopic(name, 2)])
    assert "no record to look at" in cli("doctor", "--input", name)[1]
    now = int(time.time())
    rows = [{"time": now - 60 + n, "who": f"k{n % 5}", "load": n} for n in range(60)]
    cli("replay", lines(Path("rows.jsonl"), rows), "--topic", name, "--key-column", "who")
    code, out, err = cli("doctor", "--input", name)
    assert (code, err) == (0, "")
    assert "✗" not in out
    assert "can be used; features: time, load" in out
    assert "5 keys among them" in out
    assert "set timestamp.field" in out
    assert partition_count(kafka, f"{name}.scores") is None, "doctor makes nothing"


def test_doctor_says_what_is_wrong(
    cli: Callable[..., Said], kafka: KafkaConfig, fresh: Callable[[str], str], tmp_path: Path
) -> None:
    name, unread, nowhere = fresh("wrong"), fresh("unread"), fresh("nowhere")
    create_topics(kafka, [NewTopic(name, 2), NewTopic(unread), NewTopic(f"{unread}.dlq", 4)])
    ahead = int(time.time()) + 1800  # the broker takes no record that is an hour ahead
    rows = [{"time": ahead + n, "who": f"k{n % 5}", "load": n, "kind": "text"} for n in range(60)]
    rows[40]["load"] = None
    cli("replay", lines(Path("rows.jsonl"), rows), "--topic", name, "--key", "all")
    (tmp_path / "no").write_text("a file")
    (tmp_path / "c.yaml").write_text(
        f"""
        application_id: {fresh("app")}
        state: {{directory: no/state}}
        inputs:
          - {{topic: {name}, features: [load], key: {{field: who}}, timestamp: {{field: time}}}}
          - {{topic: {unread}}}
          - {{topic: {nowhere}}}
        """
    )
    code, out, _ = cli("doctor", "c.yaml")
    assert code == 1
    marks = {line[2:]: line[0] for line in out.splitlines()}

    def mark(words: str) -> str:
        return next(mark for said, mark in marks.items() if words in said)

    assert mark("workers cannot hold their names") == "✗"
    assert mark("of the newest 50 records 1 would be dead-lettered (1 no_usable_value)") == "!"
    assert mark("is not the key by which records are partitioned") == "!"
    assert mark("ahead of this machine's clock") == "!"
    assert mark(f"The output topic {unread}.dlq has 4 partitions") == "✗"
    assert mark(f"The input topic {nowhere} does not exist") == "✗"

    (tmp_path / "d.yaml").write_text(f"inputs: [{{topic: {name}, features: [kind]}}]")
    code, out, _ = cli("doctor", "d.yaml")
    assert code == 1
    assert "✗" in next(line for line in out.splitlines() if "none can be used (" in line)


def test_replay_and_host_write_records(
    cli: Callable[..., Said], kafka: KafkaConfig, fresh: Callable[[str], str],
    read_committed: Callable[[str], list[Any]],
) -> None:  # fmt: skip
    name = fresh("produced")
    create_topics(kafka, [NewTopic(name, 1, settings={"retention.ms": "-1"})])
    Path("rows.csv").write_text("timestamp,load\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n")
    code, _, err = cli("replay", "rows.csv", "--topic", name, "--key", "x", "--rate", 100, "--limit", 2)
    assert (code, err) == (0, f"2 records written to {name}\n")
    assert cli("host", "--topic", name, "--interval", 0.05, "--limit", 1, "--key", "me")[0] == 0
    assert [record.key for record in read_committed(name)] == [b"x", b"x", b"me"]


def test_the_embedded_broker_runs_until_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamgen", "broker", "--port", "0", "--data", str(tmp_path / "kafka")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        kafka = KafkaConfig(bootstrap_servers=process.stdout.readline().strip())
        create_topics(kafka, [NewTopic("kept")])
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
    assert said.splitlines()[-1] == "stopping Kafka"
    assert (tmp_path / "kafka" / "log" / "kept-0").is_dir()
