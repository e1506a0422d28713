"""One transactional producer: a call is a transaction, and returns when its end is known.

The order is the one that held under faults:

 1. begin; hand the records over in whole batches;
 2. wait for every batch: the client lets a transaction commit although records of it were never written,
    and an expired one commit nothing; only the outcome of each batch tells. One failure is an abort;
 3. add the consumer's offsets under the group metadata captured with the records (KIP-447);
 4. commit; nothing is unsent by then.

A producer whose transaction failed is thrown away, aborted or not: one in its fatal state does nothing at
`init_transactions` and says that all is well, and after a batch that the broker refused the client's next
sequence number is wrong. A new one with the same transactional id ends what the old one left open.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kafka import KafkaProducer, errors
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as ClientPartition

from streamgen.config import KafkaConfig
from streamgen.errors import (
    BrokerUnavailable,
    Fenced,
    OutcomeUnknown,
    PublishAborted,
    StopError,
    StreamgenError,
    TopicError,
)
from streamgen.kafka import fastpath
from streamgen.kafka.client import client_settings, translate, translated
from streamgen.kafka.topics import partition_count
from streamgen.records import OutputBatch, TopicPartition

log = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = (
    30_000  # how long a worker that is gone for good can block the readers of its outputs
)
ANSWER_TIMEOUT_S = 30.0  # the longest wait for each step of a transaction
METADATA_TIMEOUT_MS = 10_000
REQUEST_TIMEOUT_MS = 10_000
DELIVERY_TIMEOUT_MS = 20_000  # below the wait for an answer, so that the client is the one who gives up
MAX_IN_FLIGHT = 64  # batches handed over and not known to be written
# No limit of our own: the topic's `max.message.bytes` decides what is too large, and says so.
MAX_REQUEST_BYTES = 64 << 20

_SUPERSEDED = (errors.ProducerFencedError, errors.InvalidProducerEpochError)
# This producer's view of its transaction is wrong; a new one's is not.
_CONFUSED = (
    errors.OutOfOrderSequenceNumberError,
    errors.UnknownProducerIdError,
    errors.InvalidProducerIdMappingError,
    errors.InvalidTxnStateError,
    errors.TransactionAbortedError,
    errors.IllegalStateError,
)
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_INVALID = (errors.InvalidTimestampError, errors.InvalidRecordError)
# What the client says of the good records of a batch of which others are invalid; the error has no class.
_BESIDE_INVALID = "part of a batch which had one more"


class _Written(NamedTuple):
    """Rows of a batch that were handed over to the client."""

    batch: OutputBatch
    first: int
    last: int
    handle: Any


class TransactionalProducer:
    """Writes transactions under one transactional id, which no other live worker may use.

    The connection is made by the first call. `records_fast` is false when the client is not the version
    whose batches we can build, and records go through its `send()`.
    """

    def __init__(self, kafka: KafkaConfig, transactional_id: str, timeout_ms: int | None = None) -> None:
        """`timeout_ms`: after which the broker aborts a transaction whose producer is gone for good."""
        self.transactional_id = transactional_id
        self._timeout_ms = timeout_ms or TRANSACTION_TIMEOUT_MS
        self._kafka = kafka
        self._producer: Any = None
        self._batch_bytes: dict[str, int] = {}  # topics whose limit is below our usual batch
        self.in_doubt = False  # a transaction may still be open: the next `open` ends it
        # Why the last transaction could not be written: until that heals its abort can't be either, and the
        # next one waits for it.
        self._blocked: str | None = None
        reason = fastpath.check()
        self.records_fast = reason is None
        if reason is not None:
            log.warning("records are sent one by one, which is slow: %s", reason)

    @property
    def is_open(self) -> bool:
        """Whether the producer that `open` made still stands; one that failed is thrown away."""
        return self._producer is not None

    def open(self) -> None:
        """Connect, fence older producers of this id, and end what they left open.

        Raises `BrokerUnavailable` or `PermissionDenied`.
        """
        if self._producer is not None:
            return
        with translated(f"opening the transactional id {self.transactional_id}"):
            producer = KafkaProducer(
                **client_settings(self._kafka),
                transactional_id=self.transactional_id,
                transaction_timeout_ms=self._timeout_ms,
                max_block_ms=METADATA_TIMEOUT_MS,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
                max_request_size=MAX_REQUEST_BYTES,
                allow_auto_create_topics=False,
                retry_backoff_ms=20,  # a transaction is refused while the last one's markers go out
                metrics_enabled=False,  # half of what sending costs, and nobody reads them
            )
            if self.records_fast:
                fastpath.prepare(producer)
            try:
                producer.init_transactions()
            except errors.KafkaError:
                self._end(producer)
                raise
        self._producer, self.in_doubt = producer, False

    def publish(
        self,
        outputs: Iterable[OutputBatch],
        offsets: Mapping[TopicPartition, int] | None = None,
        group: Any = None,
        topic_ids: Mapping[str, str] | None = None,
    ) -> None:
        """One transaction, see the module. Raises as `Transport.publish` does, and what `outputs` raises,
        which is consumed as it is written, with a bounded part of it on the way. `topic_ids` are stored with
        the offsets."""
        try:
            self.open()
        except BrokerUnavailable as error:
            raise PublishAborted(self._blocked or str(error)) from error
        try:
            self._producer.begin_transaction()
            self._write(outputs)
            if offsets:
                self._send_offsets(offsets, group, topic_ids or {})
        except errors.KafkaError as error:
            self._abort(superseded=isinstance(error, _SUPERSEDED))
            raise _aborted(error) from error
        except BaseException:  # also what ends the process: an open transaction blocks its readers
            self._abort()
            raise
        self._commit()
        self._blocked = None

    def abandon(self) -> None:
        """End the producer at once. A transaction that may be open is for its successor to end: who would end
        it here fences a successor that there is already."""
        if self._producer is not None:
            self._discard()
        self.in_doubt = False

    def close(self) -> None:
        """End the producer; a transaction that may be open is aborted first, or its readers would wait."""
        if self.in_doubt:
            try:
                self.open()
            except StreamgenError as error:
                log.warning("an open transaction is left to its timeout: %s", error)
        if self._producer is not None:
            producer, self._producer = self._producer, None
            producer.close(timeout=5)

    def _check_target(self, target: TopicPartition) -> None:
        topic, partition = target
        try:
            known = self._producer.partitions_for(topic)
        except errors.KafkaTimeoutError as error:
            if partition_count(self._kafka, topic) is not None:
                raise PublishAborted(f"No answer about the topic {topic} in time.") from error
            raise TopicError(
                f"The output topic {topic} does not exist: create it (streamgen topics)."
            ) from error
        if partition not in known:
            raise TopicError(
                f"The output topic {topic} has {len(known)} partitions, and a record is for partition "
                f"{partition}: give it as many as its input has."
            )

    def _write(self, outputs: Iterable[OutputBatch]) -> None:
        checked: set[TopicPartition] = set()
        written: deque[_Written] = deque()
        for batch in outputs:
            if batch.target not in checked:
                self._check_target(batch.target)
                checked.add(batch.target)
            limit = self._batch_bytes.get(batch.target.topic, fastpath.BATCH_BYTES)
            first = 0
            while first < len(batch):
                if self.records_fast:
                    handle, last = fastpath.append(self._producer, batch, first, limit)
                else:
                    handle, last = self._send(batch, first), first + 1
                written.append(_Written(batch, first, last, handle))
                first = last
                while len(written) > MAX_IN_FLIGHT:
                    self._await(written.popleft(), time.monotonic() + ANSWER_TIMEOUT_S)
        if not self.records_fast:
            self._producer.flush(ANSWER_TIMEOUT_S)
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        for one in written:
            self._await(one, deadline)

    def _await(self, one: _Written, deadline: float) -> None:
        """Raises why a batch was not written."""
        batch, first, last, handle = one
        failure = self._outcome(handle, max(0.0, deadline - time.monotonic()))
        if isinstance(failure, fastpath.TOO_FEW_REPLICAS):
            self._blocked = (
                f"{batch.target} takes nothing, for fewer of its replicas are in sync than its topic's "
                "`min.insync.replicas`: bring the missing brokers back, or lower that setting."
            )
            raise PublishAborted(self._blocked) from failure
        if failure is not None:
            raise self._too_large(batch, first, last, failure) or _invalid(batch, failure) or failure

    def _send(self, batch: OutputBatch, row: int) -> Any:
        return self._producer.send(
            batch.target.topic,
            partition=batch.target.partition,
            timestamp_ms=batch.timestamp[row],
            key=batch.key[row],
            value=batch.value[row],
            headers=batch.headers[row],
        )

    def _outcome(self, handle: Any, timeout_s: float) -> errors.KafkaError | None:
        if not self.records_fast:
            if not handle.is_done:
                self._producer.flush(timeout_s)
            return handle.exception if handle.is_done else errors.KafkaTimeoutError("no answer in time")
        try:
            return fastpath.outcome(handle, timeout_s)
        except TimeoutError:
            return errors.KafkaTimeoutError("no answer in time")

    def _too_large(
        self, batch: OutputBatch, first: int, last: int, failure: errors.KafkaError
    ) -> StreamgenError | None:
        if not isinstance(failure, _TOO_LARGE):
            return None
        size = sum(_size(batch, row) for row in range(first, last))
        topic = batch.target.topic
        if last - first > 1:
            self._batch_bytes[topic] = size // 4
            return PublishAborted(f"A batch of {size} bytes is too large for {topic}: cut smaller next time.")
        return StopError(
            f"A record of {size} bytes is too large for {batch.target} (key {batch.key[first]!r:.80}, time "
            f"{batch.timestamp[first]} ms): raise `max.message.bytes` of {topic} above it."
        )

    def _send_offsets(
        self, offsets: Mapping[TopicPartition, int], group: Any, topic_ids: Mapping[str, str]
    ) -> None:
        theirs = {
            ClientPartition(*source): OffsetAndMetadata(offset, topic_ids.get(source.topic, ""), -1)
            for source, offset in offsets.items()
        }
        if not self.records_fast:
            self._producer.send_offsets_to_transaction(theirs, group)
        elif not fastpath.send_offsets(self._producer, theirs, group, ANSWER_TIMEOUT_S):
            raise errors.KafkaTimeoutError("the offsets were not taken in time")

    def _commit(self) -> None:
        try:
            if not self.records_fast:
                self._producer.commit_transaction()
                return
            if fastpath.commit(self._producer, ANSWER_TIMEOUT_S):
                return
        except _SUPERSEDED as error:
            self._discard()
            self.in_doubt = False
            raise Fenced(f"Another producer took {self.transactional_id} over, or it expired.") from error
        except errors.KafkaError as error:
            if self._abort():
                raise _aborted(error) from error
            raise OutcomeUnknown(f"A commit failed ({error}).") from error
        self._discard()
        raise OutcomeUnknown(f"No answer to a commit within {ANSWER_TIMEOUT_S:.0f} s.")

    def _abort(self, superseded: bool = False) -> bool:
        """Abort the transaction and throw the producer away; False: its successor has to end it."""
        done = False
        try:
            if self.records_fast:
                done = fastpath.abort(self._producer, ANSWER_TIMEOUT_S)
            else:
                self._producer.abort_transaction()
                done = True
        except _SUPERSEDED:
            superseded = True  # who did that, or the coordinator, has ended the transaction
        except errors.KafkaError as error:
            log.warning("an abort failed, a new producer takes over: %s", error)
        self._discard()
        self.in_doubt = not (done or superseded)
        return done

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        self.in_doubt = True
        self._end(producer)

    def _end(self, producer: Any) -> None:
        if self.records_fast:
            fastpath.discard(producer)
        try:
            producer.close(timeout=0)
        except errors.KafkaError as error:
            log.debug("closing a discarded producer: %s", error)


def _invalid(batch: OutputBatch, failure: errors.KafkaError) -> StreamgenError | None:
    """A topic that refuses a record refuses it every time."""
    if not isinstance(failure, _INVALID) and _BESIDE_INVALID not in str(failure):
        return None
    return StopError(
        f"{batch.target} refused a record between {min(batch.timestamp)} and {max(batch.timestamp)} ms "
        f"({failure}): its `message.timestamp.*` settings must take what the input's take."
    )


def _aborted(error: errors.KafkaError) -> StreamgenError:
    """What an abort for this reason is to the caller."""
    ours = translate(error, "publishing")
    again = isinstance(ours, BrokerUnavailable) or isinstance(error, _CONFUSED)
    return PublishAborted(str(ours)) if again else ours


def _size(batch: OutputBatch, row: int) -> int:
    return len(batch.value[row] or b"") + len(batch.key[row] or b"")
