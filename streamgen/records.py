"""What travels: raw batches from a transport, columns after decoding, output batches back.

Shapes: N records of one batch, D features of a topic's schema. Within a batch records are in offset
order. Times are milliseconds since 1970-01-01 UTC (event time) unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Headers = list[tuple[str, bytes]]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Records of one partition as the log holds them. `timestamp_N` is Kafka's own record timestamp."""

    source: TopicPartition
    offset_N: Ints
    timestamp_N: Ints
    key: list[bytes | None]
    value: list[bytes | None]
    headers: list[Headers]

    def __len__(self) -> int:
        return len(self.value)


def rows(raw: RawBatch, start: int, end: int) -> RawBatch:
    """The records `start` … `end` − 1 of a batch."""
    s = slice(start, end)
    return RawBatch(raw.source, raw.offset_N[s], raw.timestamp_N[s], raw.key[s], raw.value[s], raw.headers[s])


class Reason(StrEnum):
    """Why a record is dead-lettered: only what would fail again on every replay."""

    EMPTY = "empty"  # no value at all (a tombstone, or zero bytes)
    TOO_LARGE = "too_large"  # more bytes than the input's `max_bytes`
    MALFORMED = "malformed"  # not of the input's format
    NO_USABLE_VALUE = "no_usable_value"  # every feature is missing or of a wrong type
    NOT_FINITE = "not_finite"  # a feature is infinite
    BAD_KEY = "bad_key"  # the key is not UTF-8 text, or the key field is not a string, number or boolean
    BAD_TIMESTAMP = "bad_timestamp"  # the timestamp field is absent or not a time
    TIMESTAMP_OUT_OF_BOUNDS = "timestamp_out_of_bounds"  # before 1970 or after 2200
    TIMESTAMP_SKEW = "timestamp_skew"  # too far from the record's own Kafka timestamp
    LEARNER_FAILED = "learner_failed"  # the learner raised, again when the record was tried alone


class DeadLetter(NamedTuple):
    """Row `n` of the raw batch cannot be used."""

    n: int
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Columns:
    """The usable records of one raw batch.

    `raw_N` is each record's row in the raw batch; `key` is the scope key (None: the partition's own
    learner); `value_ND` holds NaN where a value is missing.
    """

    offset_N: Ints
    timestamp_N: Ints
    key: list[str | None]
    value_ND: Floats
    raw_N: Ints

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True)
class OutputBatch:
    """Records to write to one partition of one topic, in order; all lists have one entry a record."""

    target: TopicPartition
    timestamp: list[int]
    key: list[bytes | None]
    value: list[bytes | None]
    headers: list[Headers]

    def __len__(self) -> int:
        return len(self.value)
