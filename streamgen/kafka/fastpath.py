"""Whole record batches into and out of the client, past its per-record API.

`send()` costs 20 to 30 µs a record and `poll()` about 7, nearly all of it one Python object after another;
here a batch is encoded and decoded in one loop. The client offers no public way to do so: every private
name that we use is used in this file, for exactly one version of the client. `check()` looks for them and
compares both directions with the client's own code, byte for byte; where anything differs it says what,
and the callers fall back to the public API. What stays the client's own: headers and checksums of batches,
compression, sequence numbers, retries, and the filtering of aborted transactions.
"""

from __future__ import annotations

import inspect
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import kafka
from kafka.consumer.fetcher import Fetcher
from kafka.errors import (
    CorruptRecordError,
    KafkaError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
)
from kafka.net.compat import KafkaNetClient
from kafka.producer import producer_batch, record_accumulator, sender
from kafka.producer.transaction_manager import TransactionalRequestResult, TransactionManager
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.structs import TopicPartition

from streamgen.kafka.record_codec import Decoded, decode_records, encode_records
from streamgen.records import OutputBatch
from streamgen.records import TopicPartition as SourcePartition

CLIENT_VERSION = "3.0.12"
TOO_FEW_REPLICAS = (NotEnoughReplicasError, NotEnoughReplicasAfterAppendError)
BATCH_BYTES = 500_000  # the broker takes 1,048,588 bytes a batch, unless told otherwise

# Each private name that is used below, with the parameters we rely on (None: not a function).
_NAMES: list[tuple[Any, str, list[str] | None]] = [
    (Fetcher, "PartitionRecords", None),
    (Fetcher.PartitionRecords, "_unpack_records", ["self", "tp", "records"]),
    (Fetcher.PartitionRecords, "take", ["self", "n"]),
    (Fetcher.PartitionRecords, "drain", ["self"]),
    (Fetcher.PartitionRecords, "_maybe_skip_record", ["self", "record"]),
    (Fetcher.PartitionRecords, "_consume_aborted_transactions_up_to", ["self", "offset"]),
    (Fetcher.PartitionRecords, "_contains_abort_marker", ["self", "batch"]),
    (Fetcher.PartitionRecords, "_is_batch_aborted", ["self", "batch"]),
    (DefaultRecordBatch, "_maybe_uncompress", ["self"]),
    (DefaultRecordBatch, "_buffer", None),
    (DefaultRecordBatch, "_pos", None),
    (MemoryRecordsBuilder, "_builder", None),
    (MemoryRecordsBuilder, "_next_offset", None),
    (DefaultRecordBatchBuilder, "_buffer", None),
    (DefaultRecordBatchBuilder, "_first_timestamp", None),
    (DefaultRecordBatchBuilder, "_max_timestamp", None),
    (DefaultRecordBatchBuilder, "_last_offset", None),
    (DefaultRecordBatchBuilder, "_num_records", None),
    (producer_batch.ProducerBatch, "__init__", ["self", "tp", "records"]),
    (record_accumulator.RecordAccumulator, "_tp_lock", ["self", "tp"]),
    (record_accumulator.IncompleteProducerBatches, "add", ["self", "batch"]),
    (sender.Sender, "_can_split", ["self", "batch", "error"]),
    (sender.Sender, "_can_retry", ["self", "batch", "error_cls"]),
    (sender.Sender, "wakeup", ["self"]),
    (KafkaNetClient, "await_ready", ["self", "node_id", "timeout_ms"]),
    (sender.Sender, "force_close", ["self"]),
    (
        TransactionManager,
        "maybe_add_partition_to_transaction",
        ["self", "topic_partition"],
    ),
    (TransactionManager, "send_offsets_to_transaction", ["self", "offsets"]),
    (TransactionManager, "begin_commit", ["self"]),
    (TransactionManager, "begin_abort", ["self"]),
    (TransactionalRequestResult, "wait", ["self", "timeout_ms"]),
]


@cache
def check() -> str | None:
    """None when the client is as this file expects; otherwise what is not."""
    if kafka.__version__ != CLIENT_VERSION:
        return f"kafka-python is {kafka.__version__}, not {CLIENT_VERSION}"
    for owner, name, parameters in _NAMES:
        found = getattr(owner, name, None)
        if found is None:
            return f"{owner.__name__} has no {name}"
        if (
            parameters is not None
            and list(inspect.signature(found).parameters)[: len(parameters)] != parameters
        ):
            return f"{owner.__name__}.{name} takes other parameters"
    return _self_test()


def _self_test() -> str | None:
    sample = OutputBatch(
        SourcePartition("t", 0),
        timestamp=[1_700_000_000_000, 1_700_000_000_300, 1_699_999_999_000],
        key=[b"k" * 70, None, b""],
        value=[b"v" * 9000, b"", None],
        headers=[[("ce_id", b"1"), ("é", b"x" * 200)], [], [("ce_id", b"")]],
    )
    theirs, (ours, last) = MemoryRecordsBuilder(2, 0, 1 << 20), _records(sample, 0, 1 << 20)
    for row in zip(sample.timestamp, sample.key, sample.value, sample.headers, strict=True):
        theirs.append(*row)
    theirs.close()
    ours.close()
    if last != 3 or ours.buffer() != theirs.buffer():
        return "a batch that we encode differs from the client's"
    decoded = _decode(MemoryRecords(theirs.buffer()).next_batch())
    if decoded != Decoded([0, 1, 2], sample.timestamp, sample.key, sample.value, sample.headers):
        return "a batch that we decode differs from the client's"
    return None


def _records(batch: OutputBatch, first: int, limit: int) -> tuple[Any, int]:
    """The client's builder, filled at once with rows from `first` on; and the next row."""
    encoded, last = encode_records(batch, first, limit)
    records = MemoryRecordsBuilder(2, 0, limit)
    builder = records._builder
    builder._buffer += encoded
    timestamp = batch.timestamp[first:last]
    builder._first_timestamp, builder._max_timestamp = timestamp[0], max(timestamp)
    builder._num_records = records._next_offset = last - first
    builder._last_offset = last - first - 1
    return records, last


def prepare(producer: Any) -> None:
    """Mend three things of a new producer, before anything else is done with it.

    A batch that the broker finds too large is split by the futures of its records; ours have one future a
    batch, and splitting would lose track of them. It fails instead, and the caller cuts smaller.

    A batch for which too few replicas are in sync is tried again in silence, and fails in the end as one that
    nobody answered. It fails at once, with its reason; the caller tries again.

    A transactional request whose connection fails while it is made is dropped, and its transaction hangs;
    where the connection is only said to be not ready, the request is tried again.
    """
    producer._sender._can_split = lambda batch, error: False
    can_retry = producer._sender._can_retry
    producer._sender._can_retry = lambda batch, error_cls: (
        error_cls not in TOO_FEW_REPLICAS and can_retry(batch, error_cls)
    )
    client = producer._sender._client
    await_ready = client.await_ready

    def patient(node_id: Any, timeout_ms: float) -> bool:
        try:
            return bool(await_ready(node_id, timeout_ms=timeout_ms))
        except KafkaError:
            time.sleep(0.05)  # the caller asks again at once
            return False

    client.await_ready = patient


def append(producer: Any, batch: OutputBatch, first: int, limit: int) -> tuple[Any, int]:
    """Hand rows from `first` on over as one record batch of at most `limit` bytes, in the open transaction.

    Returns its handle for `outcome`, and the next row.
    """
    target = TopicPartition(*batch.target)
    producer._transaction_manager.maybe_add_partition_to_transaction(target)
    records, last = _records(batch, first, limit)
    made = producer_batch.ProducerBatch(target, records)
    accumulator = producer._accumulator
    with accumulator._tp_lock(target):
        accumulator._batches[target].append(made)
        accumulator._incomplete.add(made)
    producer._sender.wakeup()
    return made, last


def outcome(made: Any, timeout_s: float) -> KafkaError | None:
    """Why a batch was not written, or None when it was. Raises `TimeoutError` when that is not known."""
    if not made.produce_future.wait(timeout_s):
        raise TimeoutError
    _, _, failure = made.produce_future.value  # the client completes a failed batch's future as a success
    return None if failure is None else failure(0)


def send_offsets(producer: Any, offsets: Any, group: Any, timeout_s: float) -> bool:
    """`send_offsets_to_transaction`, which has no timeout of its own; False: no answer in time."""
    return _wait(
        producer, lambda: producer._transaction_manager.send_offsets_to_transaction(offsets, group), timeout_s
    )


def commit(producer: Any, timeout_s: float) -> bool:
    """`commit_transaction`, which has no timeout of its own; False: no answer in time."""
    return _wait(producer, producer._transaction_manager.begin_commit, timeout_s)


def abort(producer: Any, timeout_s: float) -> bool:
    """`abort_transaction`, which has no timeout of its own; False: no answer in time."""
    return _wait(producer, producer._transaction_manager.begin_abort, timeout_s)


def _wait(producer: Any, begin: Callable[[], Any], timeout_s: float) -> bool:
    result = begin()
    producer._sender.wakeup()
    return bool(result.wait(timeout_ms=timeout_s * 1000))


def discard(producer: Any) -> None:
    """End a producer at once: its `close` would first wait for what can't be sent any more."""
    producer._sender.force_close()
    producer._sender.join(5.0)


def free_slot(consumer: Any) -> None:
    """Let a resumed partition deliver again; call before every poll.

    The client parks what it has fetched of a paused partition, and restores it only into a slot that is None.
    It leaves a drained fetch there, though, and does not fetch a partition of which something is parked: a
    partition that is paused and resumed may then deliver nothing for good.
    """
    if not consumer._fetcher._next_partition_records:
        consumer._fetcher._next_partition_records = None


def sleep(consumer: Any, seconds: float) -> Any:
    """To be awaited on the client's I/O thread: the client's own loop runs meanwhile."""
    return consumer._net.sleep(seconds)


def membership_lost(consumer: Any) -> bool:
    """Whether a consumer is no member of its group, or not yet."""
    return bool(consumer._coordinator._generation.is_lost())


def positions(consumer: Any) -> dict[SourcePartition, int]:
    """Where the next fetch of each assigned partition begins. Nobody is asked."""
    states = dict(consumer._subscription.assignment)  # the I/O thread may change it
    return {
        SourcePartition(*partition): int(state.position.offset)
        for partition, state in states.items()
        if state.position is not None
    }


def topic_id(consumer: Any, topic: str) -> str:
    """What tells a topic from another one of the same name that was made before or after (KIP-516); empty
    where the brokers know no such ids."""
    found = consumer._cluster.topic_id(topic)
    return "" if found is None else str(found)


def has_leader(consumer: Any, partition: TopicPartition) -> bool:
    """Whether the newest metadata names a leader of the partition. Nobody is asked."""
    leader = consumer._cluster.leader_for_partition(partition)
    return leader is None or leader >= 0  # None: nothing is known of it yet


class _Kept:
    """What joining the group gave, or will give, until it was looked at."""

    is_done = False

    def __init__(self, joining: Any) -> None:
        self.add_callback, self.add_errback = joining.add_callback, joining.add_errback


def keep_join(consumer: Any) -> None:
    """Let a join that ends between two polls count; call before every poll.

    The client joins in the background and looks at the outcome inside a poll. When it ended between two it
    joins again instead, and the group rebalances again: two members that are busy never come to an end.
    """
    coordinator = consumer._coordinator
    joining = coordinator._join_task
    if joining is not None and not isinstance(joining, _Kept) and not coordinator._generation.is_lost():
        coordinator._join_task = _Kept(joining)


def columns(records: list[Any]) -> Decoded:
    """What `poll()` gave for one partition, of either kind: our columns, or the client's records."""
    if not isinstance(records[0], Decoded):
        return _from_records(records)
    if len(records) == 1:
        return records[0]
    return Decoded(*map(list, map(chain.from_iterable, zip(*records, strict=True))))


def _from_records(records: Iterable[Any]) -> Decoded:
    rows = [(r.offset, r.timestamp, r.key, r.value, r.headers or []) for r in records]
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
    return Decoded(*columns)


def _decode(batch: Any) -> Decoded:
    """The columns of one of the client's record batches."""
    if batch.magic != 2:
        return _from_records(batch)
    batch._maybe_uncompress()
    body = bytes(memoryview(batch._buffer)[batch._pos :])
    append_time = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
    first = batch.first_timestamp
    try:
        return decode_records(body, batch.records_count, batch.base_offset, first, append_time)
    except (ValueError, IndexError) as error:
        what = f"The record batch at offset {batch.base_offset} is damaged: {error}"
        raise CorruptRecordError(what) from error


class _Taken(list[Decoded]):
    """One slice of columns that counts as its records, as the fetcher's budget needs it."""

    def __len__(self) -> int:
        return len(next(iter(self)).offset)


class PartitionColumns(Fetcher.PartitionRecords):  # type: ignore[misc]  # the client is untyped
    """What one fetch brought for one partition, taken as columns instead of as records.

    Used in place of the client's class: `consumer._fetcher.PartitionRecords = PartitionColumns`.
    """

    _rest: Decoded | None = None  # of the batch that the last `take` cut

    def take(self, n: int | None = None) -> list[Decoded]:
        """At most `n` records, of one record batch."""
        whole, self._rest = self._rest or next(self.record_iterator, None), None
        if whole is None:
            self.drain()
            return []
        if n is not None and len(whole.offset) > n:
            whole, self._rest = whole.rows(0, n), whole.rows(n, None)
        self.next_fetch_offset = whole.offset[-1] + 1
        return _Taken([whole])

    def _maybe_skip_record(self, record: Decoded) -> bool:
        return False  # what lies before the fetched offset was cut off already

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Decoded]:
        last = None
        while (batch := records.next_batch()) is not None:
            last = batch
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(
                    f"The record batch of {tp} at offset {batch.base_offset} has a wrong checksum"
                )
            if batch.magic == 2:
                self.leader_epoch = batch.leader_epoch
                if self._is_hidden(batch):
                    continue
            whole = _decode(batch)
            # A fetch from inside a batch brings all of it.
            cut = bisect_left(whole.offset, self.fetch_offset)
            if cut < len(whole.offset):
                yield whole.rows(cut, None) if cut else whole
        if last is not None and last.magic == 2:
            self.next_fetch_offset = last.next_offset  # also past what compaction took or nobody may see
        self.drain()

    def _is_hidden(self, batch: Any) -> bool:
        """Whether a batch is a marker, or of an aborted transaction; in the order the client does it."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def read_columns(consumer: Any) -> None:
    """Make a consumer's `poll()` give columns, for `columns()`."""
    consumer._fetcher.PartitionRecords = PartitionColumns
