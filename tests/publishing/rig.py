"""A stream in memory, its learned state, and a publisher over them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from memory_rig import Ticking

from streamgen.config import Config
from streamgen.health import Health
from streamgen.learners.task import Task
from streamgen.metrics import PublisherMetrics
from streamgen.publishing.publisher import Publisher
from streamgen.records import Columns, TopicPartition
from streamgen.state.checkpoint import Manifest
from streamgen.state.reading import StoreReader
from streamgen.testing import LogRecord, MemoryLog, MemoryStore, MemoryTail, MemoryTransport

FIRST_MS, GAP_MS = 1_700_000_000_000, 60_000
SOURCE, OTHER = TopicPartition("in", 0), TopicPartition("in", 1)
FEATURES = ("load", "disk.free", "up")
MODELS: dict[str, dict[str, Any]] = {
    "stream_ae": {"name": "stream_ae", "hidden": 4},
    "stream_ae full": {"name": "stream_ae", "hidden": 4, "preset": "full", "reservoir": 6, "burn_in": 4},
    "stream_ae task": {"name": "stream_ae", "hidden": 4, "scope": "task"},
    "rvae full": {
        "name": "rvae",
        "hidden": 8,
        "latent": 2,
        "components": 2,
        "preset": "full",
        "reservoir": 6,
        "joint": 16,
    },
    "rvae task": {"name": "rvae", "hidden": 8, "latent": 2, "components": 2, "scope": "task"},
    "rvae": {"name": "rvae", "hidden": 8, "latent": 2, "components": 2},
    "river": {"name": "river", "n_trees": 2, "height": 3, "window_size": 50},
}


def config(model: str = "stream_ae", **settings: Any) -> Config:
    one = {"topic": "in", "model": MODELS[model], "window": {"length": 8}, "min_records": 1}
    one |= {"timestamp": {"field": "at"}, "features": list(FEATURES)}
    return Config.model_validate({"inputs": [one | settings]})


def value(n: int) -> dict[str, Any]:
    """A share that is never negative, whole numbers, and true or false, every minute."""
    at = np.datetime_as_string(np.datetime64(FIRST_MS + n * GAP_MS, "ms").astype("datetime64[s]"))
    load = round(0.5 + 0.4 * float(np.sin(n / 5.0)), 3)
    return {"at": f"{at}Z", "load": load, "disk": {"free": 100 + n * n % 7}, "up": n % 3 > 0}


class Rig:
    """One input with two partitions; `a` and `b` are keys of partition 0, `c` of partition 1."""

    def __init__(self, made: Config) -> None:
        self.config, self.source = made, made.inputs[0]
        self.log, self.store, self.metrics, self.clock = (
            MemoryLog(),
            MemoryStore(),
            PublisherMetrics(),
            Ticking(),
        )
        for topic in ("in", "in.generated", "in.generate", "in.generate.dlq"):
            self.log.create_topic(topic, 2)
        self.tasks: dict[TopicPartition, Task] = {}
        self.learned: dict[TopicPartition, int] = {}
        self.n = 0
        self.wall = 1_000.0

    def send(self, count: int, key: str = "a", partition: int = 0) -> None:
        """Records of a key, a minute after one another."""
        for n in range(self.n, self.n + count):
            at = FIRST_MS + n * GAP_MS
            self.log.append("in", json.dumps(value(n)).encode(), key.encode(), at + 500, partition)
        self.n += count

    def learn(self, source: TopicPartition = SOURCE) -> None:
        """Learn the partition to its end, and store a checkpoint."""
        from streamgen.formats.decode import Decoder

        if source not in self.tasks:
            self.tasks[source] = Task(source, self.source, FEATURES, 0, "cpu")
        task, tail = self.tasks[source], MemoryTail(self.log, 10_000)
        tail.begin(source, self.learned.get(source, 0))
        decoder = Decoder(self.source, FEATURES)
        for raw in tail.poll().batches:
            task.process(decoder.decode(raw).columns)
        self.learned[source] = self.log.partition(source).end
        snapshot = task.snapshot(self.learned[source], whole=True)
        manifest = Manifest(
            source, snapshot.offset, FEATURES, 0, self.source.model_dump(mode="json"),
            self.source.fingerprint(0, FEATURES), self.log.topic_ids["in"], facts=snapshot.facts,
        )  # fmt: skip
        claim = self.store.claim(source)
        claim.read(-1)
        claim.write(manifest, snapshot.take(100), ())

    def learn_from(self, offset: int) -> None:
        """As `learn`, where records before `offset` are gone: a learner of its own."""
        del self.tasks[SOURCE]
        self.learned[SOURCE] = offset
        self.learn()

    def publisher(self, transport: MemoryTransport | None = None) -> Publisher:
        return Publisher(
            self.config,
            transport or self.transport(),
            StoreReader(self.store, ["in"], self.clock, 0.0),
            MemoryTail(self.log),
            self.metrics,
            Health(),
            clock=self.clock,
            wall=lambda: self.wall,
            sleep=self.clock.sleep,
        )

    def transport(self) -> MemoryTransport:
        return MemoryTransport(self.log, ["in.generate"], group="streamgen-generate")

    def ask(self, to: int = 0, kafka_key: bytes | None = None, **request: Any) -> None:
        self.ask_raw(json.dumps(request).encode(), kafka_key, to)

    def ask_raw(self, value: bytes | None, kafka_key: bytes | None = None, partition: int = 0) -> None:
        self.log.append("in.generate", value, kafka_key, 7, partition)

    def generated(self) -> list[LogRecord]:
        return self.log.records("in.generated")

    def refused(self) -> list[dict[str, bytes]]:
        return [dict(record.headers) for record in self.log.records("in.generate.dlq")]


def turn(publisher: Publisher, times: int = 4) -> None:
    for _ in range(times):
        publisher.turn()


def headers(record: LogRecord) -> dict[str, str]:
    return {name: text.decode() for name, text in record.headers}


def contents(records: list[LogRecord]) -> list[tuple[Any, ...]]:
    return [(r.timestamp, r.key, r.value, r.headers) for r in records]


def columns_of(rig: Rig, first: int) -> Columns:
    """The records of partition 0 from an offset on."""
    from streamgen.formats.decode import Decoder

    tail = MemoryTail(rig.log, 10_000)
    tail.begin(SOURCE, first)
    return Decoder(rig.source, FEATURES).decode(tail.poll().batches[0]).columns
