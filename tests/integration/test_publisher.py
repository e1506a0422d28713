"""`streamgen publish` beside a worker, as a user starts them: requests in, sequences out, a real broker."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer

from producers.sending import Record, open_sender
from streamgen.config import Config, KafkaConfig
from streamgen.configfile import print_config
from streamgen.errors import StateError, TopicError
from streamgen.forgetting import reset
from streamgen.kafka.client import client_settings
from streamgen.kafka.groups import committed_offsets
from streamgen.kafka.topics import NewTopic, create_topics, ensure_publishing_topics
from streamgen.publishing.comparison import FEWEST
from streamgen.records import TopicPartition
from streamgen.state.places import open_store
from streamgen.state.tailing import KafkaStateReader

FIRST_MS, GAP_MS = 1_700_000_000_000, 1000
Read = Callable[[str], list[Any]]


class Stage:
    """An input topic, its configuration as a file, and the processes of an application."""

    def __init__(self, kafka: KafkaConfig, name: str, application: str, folder: Path, read: Read) -> None:
        self.kafka, self.topic, self.folder, self.read = kafka, name, folder, read
        self.config = Config.model_validate(
            {
                "application_id": application,
                "kafka": kafka,
                "inputs": [
                    {"topic": name, "features": ["load", "disk.free", "up"], "window": {"length": 8},
                     "timestamp": {"field": "at", "max_behind": "1d"}, "model": {"name": "rvae", "hidden": 8}}
                ],
                "device": "cpu",
                "state": {"directory": str(folder / "state"), "every_records": 50, "every_seconds": 1},
                "metrics": {"port": 0},
            }
        )  # fmt: skip
        self.file = folder / "app.yaml"
        self.file.write_text(print_config(self.config))
        create_topics(kafka, [NewTopic(name, 2, settings={"retention.ms": "-1"})])

    def send(self, first: int, last: int) -> None:
        """Records of two keys."""
        with open_sender(self.kafka, self.topic) as sender:
            for n in range(first, last):
                at = FIRST_MS + n // 2 * GAP_MS
                body = {
                    "at": at,
                    "load": 0.5 + 0.25 * float(np.sin(n / 9)),
                    "disk": {"free": n % 7},
                    "up": n % 3 > 0,
                }
                sender.send(Record(at, b"key-%d" % (n % 2), json.dumps(body).encode()))

    def ask(self, **request: Any) -> None:
        producer = KafkaProducer(**client_settings(self.kafka))
        producer.send(f"{self.topic}.generate", json.dumps(request).encode(), request["key"].encode())
        producer.close()

    @contextmanager
    def process(self, command: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        line = [sys.executable, "-m", "streamgen", command, str(self.file), *options]
        with (
            (self.folder / f"{command}.log").open("ab") as log,
            subprocess.Popen(line, stderr=log) as running,
        ):
            try:
                yield running
            finally:
                running.kill()

    def events(self, command: str) -> list[dict[str, Any]]:
        path = self.folder / f"{command}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def stored(self) -> dict[TopicPartition, int]:
        """Offsets of the checkpoints."""
        store = open_store(self.config)
        try:
            found = {source: store.peek(source) for source in store.sources()}
        except StateError:
            return {}  # no topic yet
        return {source: one.manifest.offset for source, one in found.items() if one is not None}

    def answers(self) -> dict[str, list[Any]]:
        """Sequences by the request that they answer."""
        found: dict[str, list[Any]] = {}
        for record in self.read(f"{self.topic}.generated"):
            found.setdefault(header(record, "streamgen_correlation_id"), []).append(record)
        return found


def header(record: Any, name: str) -> str:
    return dict(record.headers)[name].decode()  # type: ignore[no-any-return]


def wait_for(look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def end(running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 0


@pytest.fixture
def stage(kafka: KafkaConfig, fresh: Callable[[str], str], read_committed: Read, tmp_path: Path) -> Stage:
    return Stage(kafka, fresh("published"), fresh("app"), tmp_path, read_committed)


ASKED: dict[str, Any] = {"kind": "continue", "key": "key-0", "length": 6, "count": 2, "seed": 5}


def test_requests_are_answered_from_a_live_workers_state(stage: Stage) -> None:
    """Each once, through a kill -9 of the publisher; the generated topic is read by a worker of its own."""
    stage.send(0, 400)
    ends = {TopicPartition(stage.topic, n): 0 for n in range(2)}
    for record in stage.read(stage.topic):
        ends[TopicPartition(stage.topic, record.partition)] = record.offset + 1
    with stage.process("run") as worker:
        wait_for(lambda: stage.stored() == {s: e for s, e in ends.items() if e}, "nothing was stored")
        with stage.process("publish") as publisher:
            wait_for(lambda: f"{stage.topic}.generate" in made(stage), "the publisher made no topics")
            stage.ask(correlation_id="a", **ASKED)
            stage.ask(correlation_id="b", **ASKED)
            stage.ask(correlation_id="never", **ASKED | {"key": "never"})
            stage.ask(
                correlation_id="filled", key="key-1", kind="impute", window=[{"load": 0.5}, {"up": True}]
            )
            stage.ask(correlation_id="if", **ASKED | {"kind": "what-if", "fixed": {"disk.free": 3}})
            wait_for(lambda: stage.answers().keys() >= {"a", "b", "filled", "if"}, "no answers")
            text = scraped(stage)
            assert f'streamgen_sequences_published_total{{kind="continue",topic="{stage.topic}"}} 4.0' in text
            assert (
                f'streamgen_generate_errors_total{{reason="unknown_key",topic="{stage.topic}"}} 1.0' in text
            )
            publisher.kill()
            publisher.wait()
        # What is asked while none is there waits.
        stage.ask(correlation_id="c", **ASKED)
        before = stage.stored()
        stage.send(400, 600)
        wait_for(lambda: stage.stored() != before, "nothing more was stored")
        with stage.process("publish") as publisher:
            wait_for(lambda: "c" in stage.answers(), "no answer after the kill")
            stage.ask(correlation_id="d", **ASKED)
            wait_for(lambda: "d" in stage.answers(), "no answer")
            end(publisher)
        end(worker)
    check_answers(stage)
    consume(stage)


def test_sequences_are_compared_with_what_then_came(stage: Stage) -> None:
    """In the middle of it the worker stores new state, and the publisher goes on with that."""
    stage.send(0, 200)
    with stage.process("run") as worker:
        wait_for(lambda: sum(stage.stored().values()) == 200, "nothing was stored")
        with stage.process("publish") as publisher:
            wait_for(lambda: f"{stage.topic}.generate" in made(stage), "the publisher made no topics")
            for n in range(FEWEST):
                stage.ask(correlation_id=str(n), **ASKED | {"length": 2})
                wait_for(lambda n=n: str(n) in stage.answers(), "no answer")
                stage.send(200 + 4 * n, 204 + 4 * n)
                pairs = (
                    f'generate_compared_total{{partition="{place(stage)}",topic="{stage.topic}"}} {n + 1}.0'
                )
                wait_for(lambda pairs=pairs: pairs in scraped(stage), "what came was not compared")
            text = scraped(stage)
            end(publisher)
        end(worker)
    for name in ("distance_ratio", "distance_chance_ratio"):
        (found,) = re.findall(rf"streamgen_generate_{name}{{.*}} (\S+)", text)
        assert -1 <= float(found) <= 1
    steps = {header(records[0], "streamgen_step") for records in stage.answers().values()}
    assert len(steps) > 1


def place(stage: Stage) -> int:
    """The partition of the key that is asked."""
    return next(int(r.partition) for r in stage.read(stage.topic) if r.key == ASKED["key"].encode())


def made(stage: Stage) -> set[str]:
    topics: set[str] = set()
    for event in stage.events("publish"):
        if event["event"] == "topics made":
            topics |= set(event["topics"])
    return topics


def scraped(stage: Stage) -> str:
    address = next(e["metrics"] for e in stage.events("publish") if e["event"] == "publisher started")
    with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
        return answer.read().decode()  # type: ignore[no-any-return]


def check_answers(stage: Stage) -> None:
    found = stage.answers()
    assert {name: len(records) for name, records in found.items()} == {
        "a": 12, "b": 12, "if": 12, "filled": 2, "c": 12, "d": 12,
    }  # fmt: skip
    (letter,) = stage.read(f"{stage.topic}.generate.dlq")
    assert header(letter, "streamgen_correlation_id") == "never"
    assert header(letter, "__streams.errors.exception") == "unknown_key"
    assert json.loads(letter.value)["key"] == "never"
    place = {record.key: record.partition for record in stage.read(stage.topic)}
    for name, records in found.items():
        for n, record in enumerate(records):
            body = json.loads(record.value)
            assert record.partition == place[record.key]
            assert list(body) == ["at", "load", "disk", "up"]
            assert [type(body["at"]), type(body["disk"]["free"]), type(body["up"])] == [int, int, bool]
            assert 0 <= body["disk"]["free"] <= 6
            assert record.timestamp == body["at"]
            assert header(record, "streamgen_model") == "rvae"
            if name in ("a", "b"):
                assert header(record, "streamgen_from_offset") == header(record, "streamgen_state_offset")
                assert body["at"] == FIRST_MS + GAP_MS * (200 + n % 6)
            if name == "if":
                assert body["disk"]["free"] == 3
    same = [[(r.key, r.value, r.timestamp) for r in found[name]] for name in ("a", "b")]
    assert same[0] == same[1]
    later = int(header(found["d"][0], "streamgen_step"))
    assert later > int(header(found["a"][0], "streamgen_step"))  # fresh weights
    assert json.loads(found["d"][0].value)["at"] == FIRST_MS + GAP_MS * 300


def consume(stage: Stage) -> None:
    """A worker that was written for the input reads the generated topic, unchanged but for its name."""
    generated = f"{stage.topic}.generated"
    source = stage.config.inputs[0].model_copy(update={"topic": generated})
    reader = stage.config.model_copy(
        update={"inputs": [source], "application_id": f"{stage.config.application_id}-reader"}
    )
    stage.file.write_text(print_config(reader))
    count = len(stage.read(generated))
    with stage.process("run") as worker:
        wait_for(lambda: committed_offsets(stage.kafka, reader.application_id), "nothing was read")
        wait_for(lambda: len(stage.read(f"{generated}.scores")) >= count, "not all was scored")
        end(worker)
    assert len(stage.read(f"{generated}.scores")) == count
    assert stage.read(f"{generated}.dlq") == []


def test_the_state_topic_is_followed_and_never_written(stage: Stage) -> None:
    """What the reader has is what a store that reads everything has, after each checkpoint."""
    stage.send(0, 200)
    topic = f"{stage.config.application_id}-state"
    with stage.process("run") as worker:
        wait_for(lambda: len(stage.events("run")) and stage_ready(stage), "nothing was stored")
        reader = KafkaStateReader(stage.kafka, stage.config.application_id, [stage.topic])
        seen: dict[TopicPartition, int] = {}
        for n in range(3):
            stage.send(200 + 100 * n, 300 + 100 * n)
            wait_for(lambda n=n: sum(stage.stored().values()) == 300 + 100 * n, "nothing more was stored")
            expected = stage.stored()
            wait_for(lambda expected=expected: read_on(reader) == expected, "the reader did not follow")
            seen = read_on(reader)
        end(worker)
    written = len(stage.read(topic))
    store = open_store(stage.config)
    for source, checkpoint in reader.newest().items():
        other = store.peek(source)
        assert other is not None
        assert seen[source] == checkpoint.manifest.offset == other.manifest.offset
        assert checkpoint.manifest.checksum == other.manifest.checksum
        assert set(checkpoint.learners) == set(other.learners)
        for key, fields in other.learners.items():
            mine = checkpoint.learners[key]
            assert {name: array.tobytes() for name, array in fields.items()} == {
                name: array.tobytes() for name, array in mine.items()
            }
    reader.close()
    assert len(stage.read(topic)) == written


def test_a_state_topic_that_is_made_again_is_read_from_its_beginning(stage: Stage) -> None:
    """`state reset` beside a publisher that goes on, and a worker that begins anew."""
    stage.send(0, 200)
    with stage.process("run") as worker:
        wait_for(lambda: stage_ready(stage), "nothing was stored")
        end(worker)
    reader = KafkaStateReader(stage.kafka, stage.config.application_id, [stage.topic])
    wait_for(lambda: sum(read_on(reader).values()) == 200, "the reader did not read")
    learners = {source: set(one.learners) for source, one in reader.newest().items()}
    reset(stage.config)
    stage.send(200, 300)
    with stage.process("run") as worker:
        wait_for(lambda: sum(stage.stored().values()) == 300, "nothing was stored anew")
        wait_for(lambda: sum(read_on(reader).values()) == 300, "the reader is still at the old topic")
        end(worker)
    assert {source: set(one.learners) for source, one in reader.newest().items()} == learners
    reader.close()


def stage_ready(stage: Stage) -> bool:
    return sum(stage.stored().values()) == 200


def read_on(reader: KafkaStateReader) -> dict[TopicPartition, int]:
    reader.read()
    return {source: one.manifest.offset for source, one in reader.newest().items()}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"message.timestamp.type": "LogAppendTime"}, "CreateTime"),
        ({"message.timestamp.after.max.ms": "3600000"}, "takes no times further ahead than 3600000 ms"),
    ],
)
def test_a_topic_that_does_not_take_generated_times_is_said(
    stage: Stage, settings: dict[str, str], said: str
) -> None:
    create_topics(stage.kafka, [NewTopic(f"{stage.topic}.generated", 2, settings=settings)])
    with pytest.raises(TopicError, match=said):
        ensure_publishing_topics(stage.config)
