"""One application over the input topic: its workers, how far it is, and what the checker says in the end."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any, Literal

from checker import Outputs, Place, Verdict, compare, read_outputs, read_topics
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from stage import Stage, Worker
from states import final_states, is_whole
from stream import PARTITIONS, Row

from streamgen.config import KafkaConfig
from streamgen.kafka.topics import NewTopic, create_topics

Store = Literal["kafka", "files"]


class Application:
    """The workers of one application on a stage."""

    def __init__(
        self,
        stage: Stage,
        name: str,
        topic: str,
        store: Store = "kafka",
        every_records: int = 300,
        every_seconds: float = 1,
    ) -> None:
        self.stage, self.name, self.topic = stage, name, topic
        self.directory = stage.folder / f"{name}-state"
        self.workers: dict[int | None, Worker] = {}
        self._state: dict[str, Any] = {
            "store": "kafka" if store == "kafka" else str(self.directory),
            "directory": f"{self.directory}-names",
            "every_seconds": every_seconds,
            "every_records": every_records,
        }
        self._consumer: Any = None
        stage.clients.callback(self._close_consumer)

    def start(self, slot: int | None, *commands: str) -> Worker:
        """Start the worker of a slot."""
        worker = self.stage.start_worker(self.name, self.topic, slot, *commands, state=self._state)
        self.workers[slot] = worker
        return worker

    def committed(self) -> dict[int, int]:
        """By partition, how far its results are committed; what is not known now is left out."""
        found = {}
        try:
            if self._consumer is None:
                self._consumer = KafkaConsumer(
                    bootstrap_servers=self.stage.bootstrap, group_id=self.name, enable_auto_commit=False,
                    reconnect_backoff_max_ms=500,
                )  # fmt: skip
            for n in range(PARTITIONS):
                offset = self._consumer.committed(TopicPartition(self.topic, n), timeout_ms=2000)
                found[n] = offset or 0
        except KafkaError:
            self._close_consumer()
        return found

    def drained(self, ends: dict[int, int]) -> bool:
        """Whether every record up to `ends` has its result."""
        committed = self.committed()
        return all(committed.get(n, -1) >= end for n, end in ends.items())

    def tear(self) -> Path | None:
        """Cut the newest of a task's checkpoint files short, where a whole one is there to fall back on."""
        for folder in sorted(self.directory.glob("*-*")):
            files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
            if len(files) > 1 and is_whole(files[-2]):
                os.truncate(files[-1], files[-1].stat().st_size // 2)
                return files[-1]
        return None

    def stop(self, seconds: float = 60) -> None:
        """End the workers in order, once they have restored what they have: before that they leave no newer
        state."""
        alive = [worker for worker in self.workers.values() if worker.code is None]
        self.stage.wait(lambda: all(w.ready or w.code is not None for w in alive), seconds, "workers ready")
        for worker in self.workers.values():
            if worker.code is None:
                worker.signal(signal.SIGTERM)
        for slot, worker in self.workers.items():
            code = worker.wait(seconds)
            # Killed by a fault, or told to end before it had begun.
            fine = code in (0, -signal.SIGKILL, -signal.SIGTERM)
            assert fine, f"worker {slot} ended with {code}: see {worker.log}"
        self._close_consumer()

    def outputs(self) -> Outputs:
        """What it has published, and the states that its workers left when they ended in order."""
        made = read_outputs(self.stage.bootstrap, self.name)
        made.states = final_states(self.stage.bootstrap, self.name, Path(self.directory))
        return made

    def _close_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaError):
                consumer.close()


def make_input(stage: Stage, topic: str) -> None:
    """The input topic, whose records are older than any retention."""
    create_topics(
        KafkaConfig(bootstrap_servers=stage.bootstrap),
        [NewTopic(topic, PARTITIONS, settings={"retention.ms": "-1"})],
    )


def send(producer: Any, topic: str, row: Row) -> None:
    """One record into the input."""
    producer.send(topic, partition=row.partition, key=row.key, value=row.value, timestamp_ms=row.timestamp_ms)


def input_producer(stage: Stage) -> Any:
    """A producer that outlives a broker's death."""
    producer = KafkaProducer(
        bootstrap_servers=stage.bootstrap,
        linger_ms=5,
        delivery_timeout_ms=120_000,
        reconnect_backoff_max_ms=500,
    )
    stage.clients.callback(producer.close, timeout=1)
    return producer


def places(stage: Stage, topic: str) -> list[Place]:
    """Where the records of the input are."""
    return [(record.partition, offset) for offset, record in read_topics(stage.bootstrap, topic)[topic]]


def ends_of(found: list[Place]) -> dict[int, int]:
    """Behind the last record of each partition."""
    return {n: max((offset for p, offset in found if p == n), default=-1) + 1 for n in range(PARTITIONS)}


def uninterrupted(stage: Stage, name: str, topic: str, ends: dict[int, int], store: Store) -> Outputs:
    """What one worker publishes that nothing happens to."""
    whole = Application(stage, name, topic, store)
    whole.start(None)
    stage.wait(lambda: whole.drained(ends), 120, "end of the uninterrupted run")
    whole.stop()
    return whole.outputs()


def judge(inputs: list[Place], faulted: Outputs, whole: Outputs) -> Verdict:
    """The checker's verdict; both applications must have left their states."""
    verdict = compare(inputs, faulted, whole)
    if not whole.states or faulted.states.keys() != whole.states.keys():
        verdict.states.append(
            f"states of {sorted(faulted.states)}, and of {sorted(whole.states)} in the other"
        )
    return verdict
