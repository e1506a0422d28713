"""The transport over a real Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from streamgen.config import Config
from streamgen.errors import Fenced, StreamgenError
from streamgen.kafka.consumer import GroupConsumer
from streamgen.kafka.producer import TransactionalProducer
from streamgen.kafka.transport import Committed, OnRevoke, Polled
from streamgen.records import OutputBatch, TopicPartition


class KafkaTransport:
    """`streamgen.kafka.transport.Transport` with kafka-python.

    `worker_id` names this worker among the live ones of the application. The same worker should come back
    with the same name: then it ends the transaction that it left open when it was killed at once, while
    another one's readers wait for it for up to 30 s.

    Raises `BrokerUnavailable`, `PermissionDenied` or `ConfigError` when it cannot connect.
    """

    def __init__(self, config: Config, topics: Sequence[str], worker_id: str) -> None:
        name = f"{config.application_id}-{worker_id}"
        self._producer = TransactionalProducer(config.kafka, name)
        self._consumer = GroupConsumer(
            config.kafka, topics, config.application_id, name, config.kafka.static_membership
        )
        try:
            self._producer.open()
        except StreamgenError:
            self._consumer.close()
            raise

    def poll(self, timeout_s: float, max_records: int, on_revoke: OnRevoke | None = None) -> Polled:
        return self._consumer.poll(timeout_s, max_records, on_revoke)

    def seek(self, source: TopicPartition, offset: int) -> None:
        self._consumer.seek(source, offset)

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        self._consumer.pause(sources)

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._consumer.resume(sources)

    def committed(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        if self._producer.in_doubt:
            try:
                self._producer.open()  # ends the open transaction, whose offsets would be waited for
            except Fenced:
                if not self._consumer.revoking:
                    self._consumer.rejoin()
                raise
        return self._consumer.committed(sources)

    def topic_id(self, topic: str) -> str:
        return self._consumer.topic_id(topic)

    def bounds(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return self._consumer.bounds(sources)

    def ends(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return self._consumer.ends(sources)

    def offsets_at(self, sources: Iterable[TopicPartition], time_ms: int) -> dict[TopicPartition, int]:
        return self._consumer.offsets_at(sources, time_ms)

    def partitions(self, topic: str) -> list[TopicPartition]:
        return self._consumer.partitions(topic)

    def forget(self) -> None:
        self._consumer.forget()

    def publish(
        self,
        outputs: Sequence[OutputBatch],
        offsets: Mapping[TopicPartition, int],
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        group = self._consumer.group_metadata
        if offsets and (group is None or group.generation_id < 0 or not group.member_id):
            if not self._consumer.revoking:  # in the middle of a poll, which will tell
                self._consumer.forget()
            raise Fenced("The membership of the group ended: another worker may own the partitions.")
        try:
            if topic_ids is None:
                topic_ids = {source.topic: self.topic_id(source.topic) for source in offsets}
            self._producer.publish(outputs, offsets, group, topic_ids)
        except Fenced:
            if not self._consumer.revoking:
                self._consumer.rejoin()
            raise

    def close(self) -> None:
        try:
            self._producer.close()
        finally:
            self._consumer.close()
