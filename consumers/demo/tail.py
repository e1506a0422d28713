"""Reads what happens: the input topics and all results, as any read_committed reader would."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec
from kafka import KafkaConsumer, TopicPartition

from consumers.demo.forecasts import Answer
from consumers.demo.judgement import Place, Score, Source
from streamgen.config import InputConfig, KafkaConfig
from streamgen.kafka.client import client_settings, translated

_POLL_RECORDS = 5000


class Peak(msgspec.Struct, frozen=True):
    """The most surprising record of an episode so far."""

    score: float
    timestamp: datetime
    value: dict[str, float | None]
    expected: dict[str, float | None]


class Episode(msgspec.Struct, frozen=True):
    """A record of an anomalies topic; `features` begin with the one that did most."""

    id: str
    event: str
    key: str | None
    anomalies: int
    peak: Peak
    features: list[str]
    source: Source


@dataclass
class Seen:
    """What was read of one input topic and of its results."""

    values: dict[Place, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=lambda: defaultdict(list))  # of values, by key
    scores: dict[str, list[Score]] = field(default_factory=lambda: defaultdict(list))  # by key, in order
    dead_letters: list[Place] = field(default_factory=list)
    episodes: dict[str, Episode] = field(default_factory=dict)  # the latest word on each, by id
    answers: dict[str, Answer] = field(default_factory=dict)  # generated sequences, by their request's id
    refusals: dict[str, str] = field(default_factory=dict)  # why a request has no answer, by its id
    scored: int = 0

    @property
    def written(self) -> int:
        return len(self.values)

    @property
    def lag(self) -> int:
        """Records that have no result yet."""
        return max(0, self.written - self.scored - len(self.dead_letters))

    def scored_places(self) -> list[Place]:
        """The input records that the scores are of."""
        return [score.place for scores in self.scores.values() for score in scores]


class Tail:
    """Follows inputs, and all that comes of them, from their beginning; the topics must exist."""

    def __init__(self, kafka: KafkaConfig, inputs: Sequence[InputConfig]) -> None:
        self.seen = {source.topic: Seen() for source in inputs}
        self._score, self._episode = msgspec.json.Decoder(Score), msgspec.json.Decoder(Episode)
        self._take = {}
        for source in inputs:
            seen = self.seen[source.topic]
            self._take[source.topic] = (seen, self._take_value)
            self._take[source.scores_topic] = (seen, self._take_score)
            self._take[source.anomalies_topic] = (seen, self._take_episode)
            self._take[source.dlq_topic] = (seen, self._take_dead_letter)
            self._take[source.generated_topic] = (seen, self._take_generated)
            self._take[source.generate_dlq_topic] = (seen, self._take_refusal)
        with translated("connecting to read the results"):
            self._consumer = KafkaConsumer(
                **client_settings(kafka),
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_poll_records=_POLL_RECORDS,
            )
            self._partitions = [
                TopicPartition(topic, number)
                for topic in self._take
                for number in sorted(self._consumer.partitions_for_topic(topic))
            ]
            self._consumer.assign(self._partitions)

    def poll(self, seconds: float) -> None:
        """Read what comes within this time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with translated("reading the results"):
                polled = self._consumer.poll(timeout_ms=int(left * 1000), max_records=_POLL_RECORDS)
            for partition, records in polled.items():
                seen, take = self._take[partition.topic]
                for record in records:
                    take(seen, record)

    def drain(self) -> None:
        """Read on to the end, as it is now."""
        with translated("reading the results"):
            ends = self._consumer.end_offsets(self._partitions)
            # Not "until the last offset came": the markers of transactions are never delivered.
            while any(self._consumer.position(partition) < end for partition, end in ends.items()):
                self.poll(0.1)

    def ends(self, topic: str) -> dict[int, int]:
        """The end of each partition of an input topic."""
        with translated(f"reading the ends of {topic}"):
            found = self._consumer.end_offsets([one for one in self._partitions if one.topic == topic])
        return {partition.partition: end for partition, end in found.items()}

    def answered(self, topic: str) -> bool:
        """Whether every record that was written has its result."""
        seen = self.seen[topic]
        return seen.scored + len(seen.dead_letters) >= sum(self.ends(topic).values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def _take_value(self, seen: Seen, record: Any) -> None:
        place = record.partition, record.offset
        seen.values[place] = msgspec.json.decode(record.value)
        seen.places[(record.key or b"").decode()].append(place)

    def _take_score(self, seen: Seen, record: Any) -> None:
        score = self._score.decode(record.value)
        seen.scores[score.key or ""].append(score)
        seen.scored += 1

    def _take_episode(self, seen: Seen, record: Any) -> None:
        episode = self._episode.decode(record.value)
        seen.episodes[episode.id] = episode

    def _take_dead_letter(self, seen: Seen, record: Any) -> None:
        headers = dict(record.headers)
        partition = int(headers["__streams.errors.partition"])
        seen.dead_letters.append((partition, int(headers["__streams.errors.offset"])))

    def _take_generated(self, seen: Seen, record: Any) -> None:
        Answer.take(seen.answers, record)

    def _take_refusal(self, seen: Seen, record: Any) -> None:
        headers = dict(record.headers)
        id = headers["streamgen_correlation_id"].decode()
        seen.refusals[id] = headers["__streams.errors.message"].decode()
