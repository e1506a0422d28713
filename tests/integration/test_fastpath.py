"""The batch path gives what the client's own records give, and its absence changes only the speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgen.config import Config, InputConfig, KafkaConfig
from streamgen.kafka import fastpath
from streamgen.kafka.client import client_settings
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.record_codec import Decoded, decode_records, encode_records, varint
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.records import OutputBatch, RawBatch, TopicPartition

TARGET = TopicPartition("t", 0)
rows = st.lists(
    st.tuples(
        st.integers(0, 2**45),
        st.none() | st.binary(max_size=200),
        st.none() | st.binary(max_size=9000),
        st.lists(st.tuples(st.text(max_size=10), st.binary(max_size=200)), max_size=4),
    ),
    min_size=1,
    max_size=20,
)


def output(given_rows: list[Any]) -> OutputBatch:
    return OutputBatch(TARGET, *(list(column) for column in zip(*given_rows, strict=True)))


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 20_000))
def test_what_was_encoded_is_decoded(given_rows: list[Any], limit: int) -> None:
    batch = output(given_rows)
    first, got = 0, Decoded([], [], [], [], [])
    while first < len(batch):
        encoded, last = encode_records(batch, first, limit)
        assert last > first
        assert len(encoded) <= limit or last == first + 1
        part = decode_records(encoded, last - first, first, batch.timestamp[first], None)
        for column, more in zip(got, part, strict=True):
            column.extend(more)
        first = last
    assert got == Decoded(list(range(len(batch))), batch.timestamp, batch.key, batch.value, batch.headers)


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_are_those_of_the_client(number: int) -> None:
    from kafka.record.util import decode_varint

    encoded = varint(number)
    assert decode_varint(bytearray(encoded)) == (number, len(encoded))


@given(st.binary(max_size=60), st.integers(1, 3))
def test_damaged_bytes_are_an_error_or_records(damaged: bytes, count: int) -> None:
    try:
        decoded = decode_records(damaged, count, 0, 0, None)
    except (ValueError, IndexError):
        return
    assert len(decoded.value) == count


def test_the_client_is_the_one_we_know() -> None:
    assert fastpath.check() is None


@pytest.mark.parametrize("changed", ["version", "name", "parameters"])
def test_another_client_is_noticed(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from kafka.producer.sender import Sender

    if changed == "version":
        monkeypatch.setattr("kafka.__version__", "3.0.13")
    elif changed == "name":
        monkeypatch.delattr(Sender, "force_close")
    else:
        monkeypatch.setattr(Sender, "_can_split", lambda self, other: False)
    assert fastpath.check.__wrapped__() is not None


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_compressed_and_aborted_input(
    kafka: KafkaConfig,
    fresh: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    fast: bool,
    compression: str | None,
) -> None:
    from kafka import KafkaProducer

    if not fast:
        monkeypatch.setattr(fastpath, "check", lambda: "asked to be slow")
    topic, copy, app = fresh("source"), fresh("copy"), fresh("app")
    create_topics(kafka, [NewTopic(topic), NewTopic(copy)])
    producer = KafkaProducer(
        **client_settings(kafka), transactional_id=fresh("feeder"), compression_type=compression
    )
    producer.init_transactions()
    for n in range(6):
        producer.begin_transaction()
        for m in range(10):
            producer.send(topic, b"%d" % (10 * n + m) * 50, headers=[("n", b"%d" % n)], timestamp_ms=n)
        producer.flush()
        (producer.abort_transaction if n % 3 == 1 else producer.commit_transaction)()
    producer.close()

    worker = KafkaTransport(
        Config(kafka=kafka, application_id=app, inputs=[InputConfig(topic=topic)]), [topic], "w0"
    )
    source = TopicPartition(topic, 0)
    while not worker.poll(0.1, 1).assigned:
        pass
    worker.seek(source, 3)  # inside a batch
    batches: list[RawBatch] = []
    while sum(map(len, batches)) < 37:
        batches += worker.poll(0.1, 7).batches
    worker.publish([OutputBatch(TopicPartition(copy, 0), [0], [None], [b"x"], [[]])], {source: 40})
    found = worker.committed([source])[source]
    assert found is not None
    assert found.offset == 40
    worker.close()
    kept = [n for n in range(60) if n // 10 % 3 != 1][3:]
    assert [value for batch in batches for value in batch.value] == [b"%d" % n * 50 for n in kept]
    assert [int(at) for batch in batches for at in batch.timestamp_N] == [n // 10 for n in kept]
    assert [h for batch in batches for h in batch.headers] == [[("n", b"%d" % (n // 10))] for n in kept]
    # Each of the transactions before it has left a marker.
    assert [int(o) for batch in batches for o in batch.offset_N] == [n + n // 10 for n in kept]
