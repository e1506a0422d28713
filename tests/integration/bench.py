"""An input topic and applications that learn it with real workers, for the tests of `streamgen state`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumers.online import run_worker
from producers.sending import Record, open_sender
from streamgen.config import Config, KafkaConfig
from streamgen.configfile import print_config
from streamgen.kafka.groups import committed_offsets
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.records import TopicPartition
from streamgen.state.places import open_store

if TYPE_CHECKING:
    from tests.conftest import Said

Place = tuple[int, int]
PARTITIONS = 2


@dataclass(frozen=True)
class Bench:
    """An input topic, and applications that learn it, each with outputs of its own."""

    kafka: KafkaConfig
    topic: str
    folder: Path
    fresh: Callable[[str], str]
    read: Callable[[str], list[Any]]
    run: Callable[..., Said]

    def config(self, **changes: Any) -> Config:
        """An application of its own; `changes` are of its input, `store` is where its state is."""
        name = self.fresh("app")
        create_topics(self.kafka, [NewTopic(f"{name}.s", PARTITIONS, settings={"retention.ms": "-1"})])
        state = {"directory": str(self.folder / name), "every_records": 40}
        if "store" in changes:
            state["store"] = changes.pop("store")
        one = {"topic": self.topic, "features": ["a", "b"], "window": {"length": 8}, "min_records": 2}
        one |= {"outputs": {"scores": f"{name}.s", "anomalies": f"{name}.a", "dlq": f"{name}.d"}} | changes
        return Config.model_validate(
            {"application_id": name, "kafka": self.kafka, "inputs": [one], "device": "cpu", "state": state,
             "metrics": {"port": None}, "commit_interval_ms": 20}
        )  # fmt: skip

    def cli(self, *arguments: object, of: Config) -> Said:
        """`streamgen state …` with the configuration as a file at the end."""
        return self.run("state", *arguments, self.file(of))

    def file(self, config: Config) -> Path:
        path = self.folder / f"{config.application_id}.yaml"
        path.write_text(print_config(config))
        return path

    def fill(self, first: int, last: int) -> None:
        """Records of three keys."""
        with open_sender(self.kafka, self.topic) as sender:
            for n in range(first, last):
                value = json.dumps({"a": n % 7, "b": n * n % 5}).encode()
                sender.send(Record(1_700_000_000_000 + 1000 * n, b"key-%d" % (n % 3), value))

    def ends(self) -> dict[TopicPartition, int]:
        ends = {TopicPartition(self.topic, n): 0 for n in range(PARTITIONS)}
        for record in self.read(self.topic):
            ends[TopicPartition(self.topic, record.partition)] = record.offset + 1
        return ends

    def work(self, config: Config, from_state: Path | None = None) -> None:
        """A worker until all that is there is committed, and its last checkpoint stored."""
        ends, began, looked = self.ends(), time.monotonic(), 0.0

        def stopping() -> bool:
            nonlocal looked
            if time.monotonic() - looked < 0.3:
                return False
            looked = time.monotonic()
            assert looked - began < 60, "not all was committed"
            return committed_offsets(self.kafka, config.application_id) == ends

        run_worker(config, "w0", stopping, from_state)

    def results(self, config: Config) -> dict[Place, bytes]:
        """The one score of each record, as published."""
        found: dict[Place, bytes] = {}
        for record in self.read(f"{config.application_id}.s"):
            source = json.loads(record.value)["source"]
            place = source["partition"], source["offset"]
            assert place not in found, f"two results of {place}"
            found[place] = record.value
        return found

    def places(self, first: dict[TopicPartition, int] | None = None) -> set[Place]:
        """Where records lie, from `first` on."""
        begin = first or {}
        return {
            (record.partition, record.offset)
            for record in self.read(self.topic)
            if record.offset >= begin.get(TopicPartition(self.topic, record.partition), 0)
        }


@contextmanager
def process(bench: Bench, config: Config, *options: object) -> Iterator[subprocess.Popen[bytes]]:
    """`streamgen run` as a user starts it; its log is `<application>.log`."""
    command = [sys.executable, "-m", "streamgen", "run", str(bench.file(config)), *map(str, options)]
    with (bench.folder / f"{config.application_id}.log").open("ab") as log:  # noqa: SIM117
        with subprocess.Popen(command, stderr=log) as running:
            try:
                yield running
            finally:
                running.kill()


def end(running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 0


def wait_for(look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def offsets(config: Config) -> dict[TopicPartition, int]:
    """Of the application's checkpoints."""
    store = open_store(config)
    found = {source: store.peek(source) for source in store.sources()}
    return {source: one.manifest.offset for source, one in found.items() if one is not None}


def checksums(said: str) -> set[str]:
    """Of what `export` printed."""
    return {line.split()[-1] for line in said.splitlines()}
