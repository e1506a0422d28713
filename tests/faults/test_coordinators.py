"""Of three brokers those die that coordinate the group and the transactions: others do, and nothing shows.

The stage's one broker has every partition's only replica; here two more have the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

import pytest
from application import Application, ends_of, input_producer, judge, make_input, places, send, uninterrupted
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from stage import Stage
from stream import rows

from streamgen.kafka.broker import EmbeddedBroker
from tests.cluster import another_broker

pytestmark = pytest.mark.timeout(240)
RECORDS = 1500
THREE = {"default.replication.factor": "3", "min.insync.replicas": "2", "group.min.session.timeout.ms": "500"}
COORDINATORS = ("__consumer_offsets", "__transaction_state")


class Cluster(Stage):
    """The stage's broker, which stays, and two that may die; workers ask them all, without a proxy."""

    def __enter__(self) -> Self:
        self._others = ExitStack()
        self.brokers: dict[int, EmbeddedBroker] = {}
        super().__enter__()
        try:
            for node in (2, 3):
                other = another_broker(self.broker, node, self.folder / f"broker-{node}", THREE)
                self.brokers[node] = self._others.enter_context(other)
            everyone = [self.broker, *self.brokers.values()]
            self.bootstrap = ",".join(broker.bootstrap_servers for broker in everyone)
            self.admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
            self._others.callback(self.admin.close)
            # Brokers 2 and 3 lead them in turn, whichever of the two dies.
            self.admin.create_topics(
                [
                    NewTopic(
                        name,
                        replica_assignments={n: [2, 3, 1] for n in range(4)},  # as many as it is told
                        topic_configs={"cleanup.policy": "compact", "min.insync.replicas": "2"},
                    )
                    for name in COORDINATORS
                ]
            )
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        self.clients.close()  # while there are brokers to say it to
        self._others.close()
        super().close()

    def way(self, slot: int) -> str:
        return self.bootstrap

    def described(self, topic: str) -> list[dict[str, Any]]:
        """The partitions of a topic."""
        (found,) = self.admin.describe_topics([topic])
        partitions: list[dict[str, Any]] = found["partitions"]
        return partitions

    def coordinator(self) -> int:
        """The broker that leads the group's and the transactions' coordinators."""
        leaders = {one["leader_id"] for topic in COORDINATORS for one in self.described(topic)}
        return leaders.pop() if len(leaders) == 1 else -1

    def in_sync(self, *topics: str) -> bool:
        """Whether all replicas of these topics are."""
        partitions = [one for topic in (*topics, *COORDINATORS) for one in self.described(topic)]
        return all(len(one["isr_nodes"]) == 3 for one in partitions)


@pytest.fixture
def cluster(tmp_path: Any) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", properties=THREE) as made:
        yield made


def test_both_coordinators_move_twice_while_it_works(cluster: Cluster) -> None:
    make_input(cluster, "moving")
    producer, coming = input_producer(cluster), rows(seed=3)

    def more(count: int) -> None:
        for row in itertools.islice(coming, count):
            send(producer, "moving", row)
        producer.flush()

    application = Application(cluster, "moved", "moving", every_records=150)
    workers = [application.start(0), application.start(1)]
    more(RECORDS // 3)
    cluster.wait(lambda: sum(application.committed().values()) > RECORDS // 6, 60, "results")
    for _ in range(2):
        before = cluster.coordinator()
        assert before in (2, 3)
        cluster.brokers[before].kill()
        more(RECORDS // 3)
        cluster.wait(lambda was=before: cluster.coordinator() == 5 - was, 60, "new coordinator")
        done = sum(application.committed().values())
        cluster.wait(lambda was=done: sum(application.committed().values()) > was, 60, "results after it")
        cluster.brokers[before].start()
        cluster.wait(lambda: cluster.in_sync("moving", "moved-state"), 60, "replicas in sync")
    producer.close()
    inputs = places(cluster, "moving")
    cluster.wait(lambda: application.drained(ends_of(inputs)), 90, "result for every record")
    assert [worker.code for worker in workers] == [None, None]  # they waited
    application.stop()
    whole = uninterrupted(cluster, "whole", "moving", ends_of(inputs), "kafka")
    verdict = judge(inputs, application.outputs(), whole)
    assert verdict.records == RECORDS
    assert verdict.findings == []
