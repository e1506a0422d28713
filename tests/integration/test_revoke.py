"""A partition that moves in order: committed and stored by the old owner before the new one has it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamgen.config import Config, InputConfig, KafkaConfig
from streamgen.errors import Fenced, RetryError
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.kafka.transport import OnRevoke
from streamgen.records import OutputBatch, TopicPartition


class Two:
    """An application with a topic of two partitions, and a worker that has both."""

    def __init__(self, kafka: KafkaConfig, fresh: Callable[[str], str]) -> None:
        self.topic = fresh("moving")
        create_topics(kafka, [NewTopic(self.topic, 2), NewTopic(f"{self.topic}.scores", 2)])
        self.config = Config(kafka=kafka, application_id=fresh("app"), inputs=[InputConfig(topic=self.topic)])
        self.both = {TopicPartition(self.topic, n) for n in range(2)}
        self.open: list[KafkaTransport] = []
        self.first = self.worker("w0")
        self.poll_until_owned(self.first, self.both)

    def worker(self, name: str) -> KafkaTransport:
        self.open.append(KafkaTransport(self.config, [self.topic], name))
        return self.open[-1]

    @staticmethod
    def poll_until_owned(worker: KafkaTransport, sources: set[TopicPartition]) -> None:
        owned: set[TopicPartition] = set()
        deadline = time.monotonic() + 20
        while owned != sources:
            assert time.monotonic() < deadline, owned
            polled = worker.poll(0.1, 100)
            owned = (owned | polled.assigned) - polled.revoked - polled.lost

    def move_one(self, on_revoke: OnRevoke | None) -> TopicPartition:
        """Let a second worker come; the partition that moves to it."""
        self.second = self.worker("w1")
        self.seen: set[TopicPartition] = set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._poll_second)
        self.thread.start()
        deadline = time.monotonic() + 30
        gone: frozenset[TopicPartition] = frozenset()
        while not self.seen:
            assert time.monotonic() < deadline
            gone |= self.first.poll(0.1, 100, on_revoke).revoked
        self.stop.set()
        self.thread.join()
        assert gone == self.seen
        (source,) = gone
        return source

    def _poll_second(self) -> None:
        while not self.stop.is_set():
            polled = self.second.poll(0.1, 100)
            self.seen |= polled.assigned
            for source in polled.assigned:
                self.second.seek(source, 0)

    def publish(self, source: TopicPartition, offset: int) -> None:
        target = TopicPartition(f"{self.topic}.scores", source.partition)
        self.first.publish([OutputBatch(target, [0], [None], [b"x"], [[]])], {source: offset})

    def committed(self, source: TopicPartition) -> int | None:
        found = self.second.committed([source])[source]
        return None if found is None else found.offset

    def close(self) -> None:
        if hasattr(self, "stop"):
            self.stop.set()
            self.thread.join()
        for worker in self.open:
            worker.close()


@pytest.fixture
def two(kafka: KafkaConfig, fresh: Callable[[str], str]) -> Iterator[Two]:
    made = Two(kafka, fresh)
    yield made
    made.close()


def test_what_is_revoked_can_be_committed_before_it_is_given_up(two: Two) -> None:
    seen_meanwhile: list[set[TopicPartition]] = []

    def finish(sources: frozenset[TopicPartition]) -> None:
        for source in sources:
            two.publish(source, 7)
        time.sleep(1)
        seen_meanwhile.append(set(two.seen))

    source = two.move_one(finish)
    assert seen_meanwhile == [set()]
    assert two.committed(source) == 7


def test_the_group_metadata_of_the_revocation_is_void_once_another_has_it(two: Two) -> None:
    """A worker that hangs while it gives a partition up, and wakes when the group has gone on without it."""
    stale: list[Any] = []
    source = two.move_one(lambda sources: stale.append(two.first._consumer.group_metadata))
    two.first._consumer._polled_under = stale[0]
    with pytest.raises((Fenced, RetryError)):
        two.publish(source, 7)
    assert two.committed(source) is None


def test_the_group_metadata_of_the_next_poll_is_not_used_for_what_was_revoked(two: Two) -> None:
    """The broker would take it: it vouches for a member, not for a partition."""
    source = two.move_one(None)
    two.first.poll(0.1, 100)
    two.publish(source, 7)
    assert two.committed(source) == 7  # so the caller must drop at once what it is told is revoked
