"""`streamgen run` as a user starts it: a process, a real broker, a signal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from producers.sending import Record, open_sender
from streamgen.config import KafkaConfig
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.records import Reason

FIELDS = {
    "key", "timestamp", "score", "p_value", "nll", "is_anomaly", "threshold", "warming_up", "late",
    "expected", "interval", "contributions", "imputed", "model", "step", "source",
}  # fmt: skip
BAD = {
    b"{no json": Reason.MALFORMED,
    b"": Reason.EMPTY,
    b'{"a": null, "b": "text"}': Reason.NO_USABLE_VALUE,
    b'{"a": 1e999, "b": 1}': Reason.NOT_FINITE,
}
FIRST_MS = 1_700_000_000_000
Read = Callable[[str], list[Any]]


def fill(kafka: KafkaConfig, topic: str, first: int, last: int) -> None:
    """Records `first` … `last` − 1 of four keys, one in 50 bad, and near the end of each key one far off."""
    with open_sender(kafka, topic) as sender:
        for n in range(first, last):
            value = json.dumps({"a": n % 7, "b": 1000 if n // 4 == 280 else n % 5}).encode()
            if n % 50 == 7:
                value = list(BAD)[n // 50 % len(BAD)]
            sender.send(Record(FIRST_MS + 1000 * n, b"key-%d" % (n % 4), value))


@contextmanager
def worker(
    kafka: KafkaConfig, topic: str, application: str, folder: Path, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`streamgen run` on one topic; its log is worker.log in `folder`."""
    command = [sys.executable, "-m", "streamgen", "run", "--input", topic, *options]
    command += ["--bootstrap", kafka.bootstrap_servers]
    command += ["--application-id", application]
    environment = os.environ | {"STREAMGEN_STATE__DIRECTORY": str(folder / "state")}
    with (
        (folder / "worker.log").open("ab") as log,
        subprocess.Popen(command, stderr=log, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "worker.log").read_text().splitlines()]


def wait_for(look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


@pytest.fixture
def topic(kafka: KafkaConfig, fresh: Callable[[str], str]) -> str:
    name = fresh("worked")
    create_topics(kafka, [NewTopic(name, 2, settings={"retention.ms": "-1"})])
    return name


def place(record: Any) -> tuple[int, int]:
    """Where the input lies that a score or a dead letter is of."""
    headers = dict(record.headers)
    if "__streams.errors.offset" in headers:
        return record.partition, int(headers["__streams.errors.offset"])
    source = json.loads(record.value)["source"]
    assert source["partition"] == record.partition
    return source["partition"], source["offset"]


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics_port(folder: Path) -> Any:
    """Of the worker that started last, None before it did."""
    addresses = [event["metrics"] for event in events(folder) if event["event"] == "worker started"]
    return int(addresses[-1].rpartition(":")[2]) if addresses else None


def test_a_worker_scores_everything_once_and_goes_on_after_a_restart(
    kafka: KafkaConfig, topic: str, fresh: Callable[[str], str], read_committed: Read, tmp_path: Path
) -> None:
    application = fresh("app")
    fill(kafka, topic, 0, 1300)
    inputs = {(record.partition, record.offset): record for record in read_committed(topic)}

    def results() -> list[Any]:
        return read_committed(f"{topic}.scores") + read_committed(f"{topic}.dlq")

    with worker(kafka, topic, application, tmp_path, "--metrics-port", "0") as process:
        port = wait_for(lambda: metrics_port(tmp_path), "the worker did not start")
        assert get(port, "/livez") == (200, "ok\n")
        wait_for(lambda: get(port, "/readyz")[0] == 200, "the worker did not get ready")
        wait_for(lambda: len(results()) >= 1300, "the records were not all answered")
        code, text = get(port, "/metrics")
        assert code == 200
        counted = re.findall(r"^streamgen_records_total\{.*\} (\S+)$", text, flags=re.MULTILINE)
        assert sum(map(float, counted)) == 1300
        assert f'streamgen_dead_letters_total{{reason="empty",topic="{topic}"}}' in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert events(tmp_path)[-1]["event"] == "worker ended"

    assert Counter(map(place, results())) == Counter(dict.fromkeys(inputs, 1))
    for score in read_committed(f"{topic}.scores"):
        body = json.loads(score.value)
        assert set(body) == FIELDS
        original = inputs[place(score)]
        assert score.key == original.key == body["key"].encode()
        assert score.timestamp == original.timestamp
        assert set(body["expected"]) == set(body["contributions"]) == {"a", "b"}
        assert 0 <= body["score"] < 1
    for letter in read_committed(f"{topic}.dlq"):
        original = inputs[place(letter)]
        assert (letter.key, letter.value) == (original.key, original.value)
        reason = dict(letter.headers)["__streams.errors.exception"].decode()
        assert reason == BAD[original.value or b""]

    first_run = len(read_committed(f"{topic}.scores"))
    fill(kafka, topic, 1300, 1400)
    with worker(kafka, topic, application, tmp_path, "--metrics-port", "0") as process:
        wait_for(lambda: len(results()) >= 1400, "the worker did not go on")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    inputs = {(record.partition, record.offset): record for record in read_committed(topic)}
    assert Counter(map(place, results())) == Counter(dict.fromkeys(inputs, 1))
    opened = [event for event in events(tmp_path) if event["event"] == "task opened"]
    assert [one["restored"] for one in opened] == [False, False, True, True]
    later = [json.loads(score.value) for score in read_committed(f"{topic}.scores")]
    assert len(later) > first_run
    # It did not begin to learn anew: 325 records of each key had been learned.
    assert all(one["step"] >= 19 for one in later if one["timestamp"] >= "2023-11-14T22:35:00")


def test_what_is_far_off_is_an_episode(
    kafka: KafkaConfig, topic: str, fresh: Callable[[str], str], read_committed: Read, tmp_path: Path
) -> None:
    fill(kafka, topic, 0, 1250)
    with worker(kafka, topic, fresh("app"), tmp_path) as process:
        wait_for(lambda: metrics_port(tmp_path), "the worker did not start")
        wait_for(
            lambda: len(read_committed(f"{topic}.scores") + read_committed(f"{topic}.dlq")) >= 1250, "no end"
        )
        process.terminate()
        assert process.wait(timeout=20) == 0
    episodes = [json.loads(record.value) for record in read_committed(f"{topic}.anomalies")]
    opened = {one["key"]: one for one in episodes if one["event"] == "opened"}
    assert sorted(opened) == ["key-0", "key-1", "key-2", "key-3"]
    for one in opened.values():
        assert one["peak"]["value"]["b"] == 1000
        assert one["features"][0] == "b"
        assert one["closed"] is None
    closed = [one for one in episodes if one["event"] == "closed"]
    assert closed
    assert {one["id"] for one in closed} <= {one["id"] for one in opened.values()}


def test_two_workers_of_one_machine_and_state_directory(
    kafka: KafkaConfig, topic: str, fresh: Callable[[str], str], read_committed: Read, tmp_path: Path
) -> None:
    application = fresh("app")
    fill(kafka, topic, 0, 200)
    with (
        worker(kafka, topic, application, tmp_path) as one,
        worker(kafka, topic, application, tmp_path) as other,
    ):
        started = wait_for(
            lambda: len(s := [e for e in events(tmp_path) if e["event"] == "worker started"]) == 2 and s,
            "both did not start",
        )
        assert len({event["worker"] for event in started}) == 2
        assert len({event["metrics"] for event in started}) == 2
        wait_for(
            lambda: len(read_committed(f"{topic}.scores") + read_committed(f"{topic}.dlq")) >= 200, "no end"
        )
        for process in (one, other):
            process.terminate()
        assert [process.wait(timeout=20) for process in (one, other)] == [0, 0]
    found = read_committed(f"{topic}.scores") + read_committed(f"{topic}.dlq")
    assert max(Counter(map(place, found)).values()) == 1


def test_a_compacted_input_is_refused_in_a_sentence(
    kafka: KafkaConfig, fresh: Callable[[str], str], tmp_path: Path
) -> None:
    name = fresh("compacted")
    create_topics(kafka, [NewTopic(name, settings={"cleanup.policy": "compact"})])
    with worker(kafka, name, fresh("app"), tmp_path) as process:
        assert process.wait(timeout=30) == 1
    said = (tmp_path / "worker.log").read_text()
    assert said.startswith(f"streamgen: The input topic {name} is compacted")
    assert said.count("\n") == 1
