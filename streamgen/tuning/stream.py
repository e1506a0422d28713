"""The records that settings are compared over: of a CSV file, or of a topic between fixed offsets.

They are held in memory, decoded, in the order in which a worker's tasks would see them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamgen.between import Bounds, read_between
from streamgen.config import Config, InputConfig
from streamgen.csvfile import CsvRows
from streamgen.detect import SOURCE, Choice, file_columns
from streamgen.errors import InputError
from streamgen.formats.decode import Decoder, discover
from streamgen.learners.results import chosen
from streamgen.records import Columns, RawBatch, TopicPartition

FEWEST = 270  # records, ten a point of the curve


@dataclass(frozen=True, slots=True)
class Stream:
    """Records of each partition, in order. `unusable` were left out, as a worker would dead-letter them."""

    features: tuple[str, ...]
    parts: list[tuple[TopicPartition, Columns]]
    unusable: int

    def __len__(self) -> int:
        return sum(len(columns) for _, columns in self.parts)

    def newest(self, records: int | None) -> Stream:
        """The last of each partition, `records` of all together; None: all."""
        if records is None or records >= len(self):
            return self
        share = records / len(self)
        kept = []
        for source, columns in self.parts:
            first = len(columns) - round(share * len(columns))
            kept.append((source, chosen(columns, np.arange(first, len(columns)))))
        return Stream(self.features, kept, self.unusable)

    def checked(self, where: str) -> Stream:
        """Itself. Raises `InputError` when it is too short to tell anything."""
        if len(self) < FEWEST:
            raise InputError(
                f"{where} has {len(self)} usable records: at least {FEWEST} are needed to compare settings."
            )
        return self

    def fingerprint(self) -> str:
        """A hash of all that a model would see."""
        seen = hashlib.sha256(json.dumps(self.features).encode())
        for source, columns in self.parts:
            seen.update(json.dumps([*source, columns.key]).encode())
            for array in (columns.timestamp_N, columns.value_ND):
                seen.update(np.ascontiguousarray(array).tobytes())
        return seen.hexdigest()[:16]


def of_file(path: Path, choice: Choice) -> Stream:
    """All usable rows. Raises `InputError` as `CsvRows` does."""
    rows = CsvRows(path, choice.timestamp, choice.key, choice.values, choice.times)
    parts, count = [], 0
    for batch, _, columns in file_columns(rows):
        parts.append(columns)
        count += len(batch)
    columns = _joined(parts, len(rows.columns))
    return Stream(rows.columns, [(SOURCE, columns)], count - len(columns))


def of_topic(config: Config, source: InputConfig, between: Bounds) -> Stream:
    """The usable records between offsets. Raises `LogGap` where the topic does not have them any more, and
    `InputError` where none is usable."""
    features = None if source.features is None else tuple(source.features)
    decoder = None if features is None else Decoder(source, features)
    parts: dict[int, list[Columns]] = {number: [] for number in between}
    unusable = 0
    for raw in _read(config, source.topic, between):
        if decoder is None:
            features = discover(source, raw)
            if features is None:
                unusable += len(raw)
                continue
            decoder = Decoder(source, features)
        done = decoder.decode(raw)
        unusable += len(done.dead)
        parts[raw.source.partition].append(done.columns)
    if features is None:
        raise InputError(f"No record of {source.topic} between these positions is usable.")
    joined = [
        (TopicPartition(source.topic, number), _joined(columns, len(features)))
        for number, columns in parts.items()
    ]
    return Stream(features, joined, unusable)


def _read(config: Config, topic: str, between: Bounds) -> Iterator[RawBatch]:
    """In the same order every time, so that the first usable record is the same too."""
    from streamgen.kafka.tail import KafkaTail

    tail = KafkaTail(config.kafka)
    try:
        yield from read_between(tail, topic, between)
    finally:
        tail.close()


def _joined(parts: list[Columns], D: int) -> Columns:
    nothing = np.zeros(0, dtype=np.int64)
    empty = Columns(nothing, nothing, [], np.zeros((0, D)), nothing)
    every = [empty, *parts]
    return Columns(
        offset_N=np.concatenate([one.offset_N for one in every]),
        timestamp_N=np.concatenate([one.timestamp_N for one in every]),
        key=[key for one in every for key in one.key],
        value_ND=np.concatenate([one.value_ND for one in every]),
        raw_N=np.concatenate([one.raw_N for one in every]),
    )
