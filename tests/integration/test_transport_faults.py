"""What the client gets wrong unless coded around, each with the guard that holds: one test a trap."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaAdminClient, errors
from kafka.structs import TopicPartition as ClientPartition

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, Fenced, OutcomeUnknown, PublishAborted, StopError
from streamgen.kafka import consumer as consumer_module
from streamgen.kafka import fastpath
from streamgen.kafka import producer as producer_module
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.client import client_settings
from streamgen.kafka.tail import KafkaTail
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.records import OutputBatch
from tests.integration.secured import read_committed_values

if TYPE_CHECKING:
    from conftest import Rig

Reader = Callable[[str], list[Any]]


def values(records: list[Any]) -> list[bytes]:
    return [record.value for record in records]


def test_records_that_expire_abort_the_transaction(
    rig: Rig, paused: Callable[[float], None], read_committed: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would commit a transaction whose records it gave up; only their futures tell."""
    monkeypatch.setattr(producer_module, "REQUEST_TIMEOUT_MS", 500)
    monkeypatch.setattr(producer_module, "DELIVERY_TIMEOUT_MS", 1000)
    monkeypatch.setattr(fastpath, "BATCH_BYTES", 1)  # one record a batch
    append = fastpath.append

    def expire(producer: Any, batch: OutputBatch, first: int, limit: int) -> Any:
        if batch.value[first] != b"2":
            return append(producer, batch, first, limit)
        time.sleep(0.3)  # the first record is written by now
        paused(1.5)
        made = append(producer, batch, first, limit)
        time.sleep(2.0)  # the broker is well again
        return made

    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    worker.publish([rig.batch(b"0")], {rig.input: 1})
    with monkeypatch.context() as patched:
        patched.setattr(fastpath, "append", expire)
        with pytest.raises(PublishAborted):
            worker.publish([rig.batch(b"1", b"2")], {rig.input: 3})
    rig.wait(lambda: rig.published(worker, rig.batch(b"1", b"2"), {rig.input: 3}))
    assert values(read_committed(rig.output.topic)) == [b"0", b"1", b"2"]
    assert rig.committed(worker) == 3


def test_an_expired_transaction_is_never_taken_for_committed(
    make_rig: Callable[[KafkaConfig], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the transaction's timeout the client's commit returns although nothing was committed."""
    monkeypatch.setattr(producer_module, "TRANSACTION_TIMEOUT_MS", 500)
    monkeypatch.setattr(fastpath, "BATCH_BYTES", 1)  # one record a batch
    append, calls = fastpath.append, 0

    def late(producer: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            time.sleep(2.5)
        return append(producer, *arguments)

    monkeypatch.setattr(fastpath, "append", late)
    often = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200"}  # as a rule every 10 s
    with EmbeddedBroker(properties=often) as broker:
        rig = make_rig(KafkaConfig(bootstrap_servers=broker.bootstrap_servers))
        worker = rig.worker()
        rig.join(worker)
        rig.read_one(worker)
        with pytest.raises(Fenced):
            worker.publish([rig.batch(b"0", b"1")], {rig.input: 2})
        assert read_committed_values(rig.config.kafka, rig.output.topic) == []
        rig.join(worker)
        rig.read_one(worker)
        worker.publish([rig.batch(b"0", b"1")], {rig.input: 2})
        assert read_committed_values(rig.config.kafka, rig.output.topic) == [b"0", b"1"]
        worker.close()


def test_a_worker_that_hung_cannot_commit_with_what_it_polled_before(
    rig: Rig, read_committed: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past max.poll.interval the client's metadata has generation -1, which the broker accepts."""
    short = {"max_poll_interval_ms": 1000, "heartbeat_interval_ms": 200}
    monkeypatch.setattr(consumer_module, "client_settings", lambda kafka: client_settings(kafka) | short)
    hung, other = rig.worker("w0"), None
    rig.join(hung)
    rig.read_one(hung)
    other = rig.worker("w1")
    rig.join(other)  # takes until the first one's time is up
    rig.read_one(other)
    other.publish([rig.batch(b"0")], {rig.input: 1})
    with pytest.raises((Fenced, PublishAborted)):
        hung.publish([rig.batch(b"0")], {rig.input: 1})
    assert values(read_committed(rig.output.topic)) == [b"0"]
    assert rig.committed(other) == 1


def test_a_void_membership_is_told_at_the_poll_and_then_joined_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"max_poll_interval_ms": 1000, "heartbeat_interval_ms": 200}
    monkeypatch.setattr(consumer_module, "client_settings", lambda kafka: client_settings(kafka) | short)
    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    time.sleep(1.8)
    seen: list[Any] = []

    def told() -> bool:
        try:
            seen.append(rig.poll(worker))
        except Fenced:
            seen.append("fenced")
        return seen[-1] == "fenced" or rig.input in seen[-1].lost

    rig.wait(told)
    assert not any(one.batches for one in seen if one != "fenced")
    if rig.input not in getattr(seen[-1], "assigned", ()):
        rig.join(worker, 4)
    else:
        worker.seek(rig.input, 4)
    seen.clear()
    rig.wait(lambda: seen.append(rig.poll(worker)) or seen[-1].batches)
    assert seen[-1].batches[0].offset_N[0] == 4


def test_records_polled_without_a_membership_are_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client may hand records of its old partitions over when its membership has just ended."""
    from kafka.structs import ConsumerGroupMetadata

    worker = rig.worker()
    rig.join(worker)
    void = ConsumerGroupMetadata(group_id=rig.config.application_id)
    with monkeypatch.context() as patched:
        patched.setattr(worker._consumer._consumer, "group_metadata", lambda: void)
        with pytest.raises(Fenced):
            rig.poll(worker)
        assert not rig.poll(worker).assigned  # not before it has joined again
        with pytest.raises(Fenced):
            worker.publish([rig.batch(b"0")], {rig.input: 1})
    rig.join(worker, 3)
    seen: list[Any] = []
    rig.wait(lambda: seen.append(rig.poll(worker)) or seen[-1].batches)
    assert seen[-1].batches[0].offset_N[0] == 3


def test_the_same_id_elsewhere_fences(rig: Rig, read_committed: Reader) -> None:
    old = rig.worker("w0")
    rig.join(old)
    rig.read_one(old)
    old.publish([rig.batch(b"0")], {rig.input: 1})
    new = producer_module.TransactionalProducer(rig.config.kafka, f"{rig.config.application_id}-w0")
    new.open()
    with pytest.raises(Fenced):
        old.publish([rig.batch(b"1")], {rig.input: 2})
    new.publish([rig.batch(b"2")])
    new.close()
    assert values(read_committed(rig.output.topic)) == [b"0", b"2"]


def test_an_answer_that_is_lost_leaves_the_committed_offset_to_tell(
    rig: Rig, paused: Callable[[float], None], read_committed: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = rig.worker()
    rig.join(worker)
    rig.read_one(worker)
    worker.publish([rig.batch(b"0")], {rig.input: 1})
    commit = fastpath.commit

    def lost(producer: Any, timeout_s: float) -> bool:
        paused(2.0)
        return commit(producer, 0.5)

    with monkeypatch.context() as patched:
        patched.setattr(fastpath, "commit", lost)
        with pytest.raises(OutcomeUnknown):
            worker.publish([rig.batch(b"1")], {rig.input: 2})
    committed = rig.committed(worker)
    assert values(read_committed(rig.output.topic)) == [b"0", b"1"][:committed]
    worker.publish([rig.batch(*[b"1", b"2"][(committed or 0) - 1 :])], {rig.input: 3})
    assert values(read_committed(rig.output.topic)) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("first", [0, 1])
def test_a_record_that_a_topic_refuses_is_said_so(rig: Rig, first: int) -> None:
    """The client's error for the records beside it is the same as for a lost answer: retried for ever."""
    worker = rig.worker()
    batch = rig.batch(b"a", b"b")
    batch.timestamp[first] = int((time.time() + 100 * 3600) * 1000)
    with pytest.raises(StopError, match=f"{rig.output} refused a record"):
        worker.publish([batch], {})


def test_a_partition_taken_while_the_changes_are_read_is_told(rig: Rig) -> None:
    """The client's thread tells them at any time; one that is missed would be committed by two workers."""
    worker = rig.worker()
    rig.join(worker)
    group = worker._consumer
    landed: list[bool] = []

    class Interrupted(set[Any]):
        def land(self) -> None:
            if not landed:
                landed.append(True)
                group._changes.gone.append((False, rig.input))

        def __rand__(self, other: Any) -> Any:
            found = set(other) & set(self)
            if other:
                self.land()
            return found

        def __contains__(self, source: object) -> bool:
            self.land()
            return super().__contains__(source)

    group._owned = Interrupted(group._owned)
    group._changes.gone.append((False, rig.output))  # something to look for
    rig.wait(lambda: rig.input in rig.poll(worker).revoked, seconds=3)
    assert landed


def test_a_worker_that_is_fenced_while_no_broker_answers_joins_when_one_does(
    make_rig: Callable[[KafkaConfig], Rig],
) -> None:
    with EmbeddedBroker() as broker:
        rig = make_rig(KafkaConfig(bootstrap_servers=broker.bootstrap_servers, session_timeout_ms=6000))
        worker = rig.worker()
        rig.join(worker)
        rig.read_one(worker)
        broker.kill()
        worker._consumer.rejoin()  # as after a transaction that expired in the outage
        with pytest.raises(BrokerUnavailable):
            rig.poll(worker)
        broker.start()

        def joined() -> bool:
            try:
                return rig.input in rig.poll(worker).assigned
            except BrokerUnavailable:
                return False

        rig.wait(joined, 40)  # the group waits for the old member's session to end
        worker.seek(rig.input, 3)
        seen: list[Any] = []
        rig.wait(lambda: seen.append(rig.poll(worker)) or seen[-1].batches)
        assert seen[-1].batches[0].offset_N[0] == 3
        worker.close()


def test_metadata_without_the_topic_is_no_answer(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a broker that has just started. An empty id would begin the topic's history anew."""
    worker = rig.worker()
    known = worker.topic_id(rig.input.topic)
    assert known
    monkeypatch.setattr(worker._consumer._consumer, "partitions_for_topic", lambda topic: None)
    with pytest.raises(BrokerUnavailable, match=f"do not know the topic {rig.input.topic} now"):
        worker.topic_id(rig.input.topic)


def make_again(rig: Rig) -> None:
    """The input, with one record."""
    with KafkaAdminClient(**client_settings(rig.config.kafka)) as admin:
        admin.delete_topics([rig.input.topic])
        rig.wait(lambda: rig.input.topic not in admin.list_topics())
    create_topics(rig.config.kafka, [NewTopic(rig.input.topic)])
    feeder = producer_module.TransactionalProducer(rig.config.kafka, f"{rig.config.application_id}-feeder")
    feeder.publish([OutputBatch(rig.input, [0], [None], [b"new"], [[]])])
    feeder.close()


def polled(tail: KafkaTail, seen: list[Any]) -> bool:
    """Whether the newest poll has found a gap."""
    try:
        seen.append(tail.poll(0.1))
    except BrokerUnavailable:  # while the topic is not there
        return False
    return bool(seen[-1].gaps)


@pytest.mark.parametrize("cut", [False, True])
def test_a_log_that_is_shorter_is_a_gap_to_a_reader_without_a_group(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    tail, seen = KafkaTail(rig.config.kafka), list[Any]()
    tail.begin(rig.input, 9)
    rig.wait(lambda: seen.append(tail.poll(0.1)) or tail.position(rig.input) == 10)
    if cut:  # as the client tells it after an unclean election, which one broker has not
        here = ClientPartition(*rig.input)
        told = iter([errors.LogTruncationError({here: None})])

        def poll(**given: Any) -> Any:
            if (error := next(told, None)) is not None:
                raise error
            return {}

        monkeypatch.setattr(tail._consumer, "poll", poll)
    else:
        make_again(rig)
    rig.wait(lambda: polled(tail, seen))
    assert seen[-1].gaps == {rig.input: 0}
    assert tail.position(rig.input) == 0
    tail.close()


def test_a_topic_that_is_made_again_and_is_shorter_is_told_as_a_gap(rig: Rig) -> None:
    """With the id of the new one, so that it can be told from a log that was cut."""
    worker = rig.worker()
    rig.join(worker)
    rig.wait(lambda: rig.poll(worker).positions.get(rig.input) == 10)
    before = worker.topic_id(rig.input.topic)
    make_again(rig)
    seen: list[Any] = []
    rig.wait(lambda: seen.append(rig.poll(worker)) or rig.input in seen[-1].gaps)
    assert seen[-1].gaps == {rig.input: 0}
    assert worker.topic_id(rig.input.topic) not in ("", before)


def test_the_marker_of_a_transaction_is_passed_over(rig: Rig) -> None:
    """The input's last offset is the marker of its producer's transaction: the position is beyond it."""
    feeder = producer_module.TransactionalProducer(rig.config.kafka, f"{rig.config.application_id}-feeder")
    feeder.open()
    feeder.publish([OutputBatch(rig.input, [0], [None], [b"10"], [[]])])
    feeder.close()
    worker = rig.worker()
    rig.join(worker, 9)
    seen: list[Any] = []
    rig.wait(lambda: seen.append(rig.poll(worker)) or seen[-1].positions.get(rig.input) == 12)
    assert [int(o) for one in seen for batch in one.batches for o in batch.offset_N] == [9, 10]
