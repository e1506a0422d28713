"""Streams for a worker: random walks by key into one partition, at once or at a pace; and who reads results.

D features, each key's records one after another; event time goes on a second a round of all keys.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from streamgen.config import KafkaConfig
from streamgen.kafka.topics import NewTopic, create_topics

START_MS = 1_700_000_000_000
D = 2


class Stream:
    """A topic of one partition, and the records that it gets."""

    def __init__(self, bootstrap: str, topic: str, keys: int) -> None:
        self.topic, self._keys, self.sent = topic, keys, 0
        kafka = KafkaConfig(bootstrap_servers=bootstrap)
        create_topics(kafka, [NewTopic(topic, 1, 1, {"retention.ms": "-1"})])
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, batch_size=262_144)
        self._steps = self._random()

    def send(self, records: int) -> None:
        """Send the next records; they are on their way when this returns."""
        for _ in range(records):
            n, (a, b) = self.sent, next(self._steps)
            self._producer.send(
                self.topic,
                b'{"a": %.4f, "b": %.4f}' % (a, b),
                key=self._key(n),
                timestamp_ms=START_MS + 1000 * (n // self._keys),
            )
            self.sent += 1

    def fill(self, records: int) -> None:
        """Send the next records and wait until they are written."""
        self.send(records)
        self._producer.flush()

    def close(self) -> None:
        """End the producer."""
        self._producer.close()

    def _key(self, n: int) -> bytes:
        return b"key-%d" % (n % self._keys)

    def _random(self) -> Iterator[list[float]]:
        rng, walk_KD = np.random.default_rng(0), np.zeros((self._keys, D))
        while True:
            walk_KD += rng.normal(size=walk_KD.shape)
            yield from walk_KD.tolist()


class ComersAndGoers(Stream):
    """So many keys live at a time, each for `lifetime` records; one record in ten has a key of its own."""

    def __init__(self, bootstrap: str, topic: str, keys: int, lifetime: int) -> None:
        super().__init__(bootstrap, topic, keys)
        self._lifetime = lifetime

    def _key(self, n: int) -> bytes:
        if n % 10 == 9:
            return b"once-%d" % n
        turn, place = divmod(n - n // 10, self._keys)
        # They do not all go at once.
        return b"key-%d-%d" % (place, (turn + place * self._lifetime // self._keys) // self._lifetime)


class Pace(threading.Thread):
    """Sends each stream its records a second until `end`."""

    def __init__(self, rates: dict[Stream, float]) -> None:
        super().__init__(daemon=True)
        self._rates, self._ended = rates, threading.Event()

    def run(self) -> None:
        began, sent = time.monotonic(), dict.fromkeys(self._rates, 0)
        while not self._ended.wait(0.01):
            for stream, rate in self._rates.items():
                due = int((time.monotonic() - began) * rate) - sent[stream]
                stream.send(due)
                sent[stream] += due

    def end(self) -> None:
        """Stop sending."""
        self._ended.set()
        self.join()


class Commits(threading.Thread):
    """When a read_committed reader had results of each topic, on the clock of `time.monotonic`."""

    def __init__(self, bootstrap: str, topics: list[str]) -> None:
        super().__init__(daemon=True)
        self._reader = KafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            group_id=None,
            fetch_max_wait_ms=20,
            max_poll_records=5000,
            metrics_enabled=False,
        )
        self.times: dict[str, list[float]] = {topic: [] for topic in topics}
        partitions = [TopicPartition(topic, 0) for topic in topics]
        self._reader.assign(partitions)
        self._reader.seek_to_end()
        for partition in partitions:
            self._reader.position(partition)  # the end as it is now, not at the first poll
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                seen = self._reader.poll(timeout_ms=20)
            except KafkaError:
                continue
            now = time.monotonic()
            for partition in seen:
                self.times[partition.topic].append(now)

    def first(self, topic: str, after: float) -> float | None:
        """When the first result after a moment came, if it has."""
        return next((at for at in list(self.times[topic]) if at > after), None)

    def longest_gap(self, topic: str, begin: float, end: float) -> float:
        """The longest time without a result that touches [begin, end], s; as far as results have come."""
        times = list(self.times[topic])
        gaps = [after - at for at, after in pairwise(times) if after > begin and at < end]
        return max(gaps, default=float("nan"))

    def end(self) -> None:
        """Stop reading."""
        self._ended.set()
        self.join()
        self._reader.close()
