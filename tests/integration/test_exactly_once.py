"""Two real workers, one stopped and another started half-way, over a real broker: exactly one result each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from streamgen.config import KafkaConfig
from streamgen.kafka.client import client_settings
from streamgen.kafka.topics import NewTopic, create_topics

RECORDS, KEYS, PARTITIONS = 20_000, 50, 4
BAD_EVERY = 997
FIELDS = {
    "key", "timestamp", "score", "p_value", "nll", "is_anomaly", "threshold", "warming_up", "late",
    "expected", "interval", "contributions", "imputed", "model", "step", "source",
}  # fmt: skip


def produce(kafka: KafkaConfig, topic: str) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """Fill the topic; returns (partition, offset) → (key, value)."""
    create_topics(kafka, [NewTopic(topic, PARTITIONS, 1, {"retention.ms": "-1"})])
    producer = KafkaProducer(**client_settings(kafka), linger_ms=20)
    rng = np.random.default_rng(0)
    sent = []
    for n in range(RECORDS):
        walk = rng.normal(size=2)
        value = json.dumps({"a": float(walk[0]), "b": float(walk[1])}).encode()
        if n % BAD_EVERY == 0:
            value = [b"{broken", b"", b'{"a": "text"}', b'{"a": Infinity, "b": 1}'][n // BAD_EVERY % 4]
        key = b"key-%d" % (n % KEYS)
        sent.append(
            (producer.send(topic, value, key=key, timestamp_ms=1_700_000_000_000 + 1000 * n), key, value)
        )
    producer.flush()
    written = {}
    for future, key, value in sent:
        at = future.get(timeout=10)
        written[at.partition, at.offset] = (key, value)
    producer.close()
    return written


@pytest.fixture
def application(fresh: Callable[[str], str]) -> str:
    return fresh("app")


@pytest.fixture
def worker(kafka: KafkaConfig, tmp_path: Path, application: str) -> Iterator[Callable[[str], Any]]:
    """Start `streamgen run` on a topic as a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(topic: str) -> subprocess.Popen[bytes]:
        file = tmp_path / "config.yaml"
        file.write_text(
            f"application_id: {application}\nkafka: {{bootstrap_servers: {kafka.bootstrap_servers}}}\n"
            f"inputs: [{{topic: {topic}, model: {{name: stream_ae, hidden: 8}}}}]\n"
            f"state: {{directory: {tmp_path / 'state'}, every_seconds: 3}}\nmetrics: {{port: 0}}\n"
        )
        log = (tmp_path / f"worker-{len(started)}.log").open("wb")
        environment = {name: v for name, v in os.environ.items() if not name.startswith("STREAMGEN_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "streamgen", "run", str(file)],
            stdout=log, stderr=log, start_new_session=True, env=environment,
        )  # fmt: skip
        log.close()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def committed(kafka: KafkaConfig, application: str, topic: str) -> int:
    """Records whose results are committed: the sum of the group's offsets."""
    consumer = KafkaConsumer(**client_settings(kafka), group_id=application, enable_auto_commit=False)
    offsets = [consumer.committed(TopicPartition(topic, partition)) for partition in range(PARTITIONS)]
    consumer.close()
    return sum(offset or 0 for offset in offsets)


def wait(until: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.5)


@pytest.mark.timeout(240)
def test_two_workers_one_stopped_another_started(
    kafka: KafkaConfig,
    fresh: Callable[[str], str],
    application: str,
    worker: Callable[[str], subprocess.Popen[bytes]],
    read_committed: Callable[[str], list[Any]],
) -> None:
    topic = fresh("live")
    written = produce(kafka, topic)
    workers = [worker(topic), worker(topic)]
    wait(lambda: committed(kafka, application, topic) > RECORDS // 3, 90, "third of the results")
    workers[0].send_signal(signal.SIGTERM)
    assert workers[0].wait(timeout=40) == 0
    workers[0] = worker(topic)
    wait(lambda: committed(kafka, application, topic) == RECORDS, 120, "result for every record")
    for process in workers:
        process.send_signal(signal.SIGTERM)
    for process in workers:
        assert process.wait(timeout=40) == 0

    scores, dead = read_committed(f"{topic}.scores"), read_committed(f"{topic}.dlq")
    places = []
    newest: dict[bytes, int] = {}
    for record in scores:
        score = json.loads(record.value)
        source = score["source"]
        assert set(score) == FIELDS
        assert record.partition == source["partition"]
        assert source["offset"] > newest.get(record.key, -1), "a key's results are out of order"
        newest[record.key] = source["offset"]
        place = (source["partition"], source["offset"])
        assert record.key == written[place][0]
        assert dict(record.headers)["ce_id"].endswith(f"/{place[0]}/{place[1]}/score".encode())
        places.append(place)
    for record in dead:
        headers = dict(record.headers)
        place = (int(headers["__streams.errors.partition"]), int(headers["__streams.errors.offset"]))
        assert (record.key, record.value) == written[place]
        assert headers["__streams.errors.exception"] in {
            b"malformed",
            b"empty",
            b"no_usable_value",
            b"not_finite",
        }
        places.append(place)
    assert sorted(places) == sorted(written)  # each once, none twice, none missing
    assert len(dead) == len(range(0, RECORDS, BAD_EVERY))
