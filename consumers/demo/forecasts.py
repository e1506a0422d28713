"""What the model thought would come: asked for in the middle of the replay, held against what then came.

Shapes: S sequences of T records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from kafka import KafkaProducer

from consumers.demo.judgement import Place
from streamgen.config import InputConfig, KafkaConfig
from streamgen.kafka.client import client_settings, translated
from streamgen.records import Bools, Floats

LENGTH, COUNT = 96, 64  # of a request
ASK_AT = 0.5  # of a series, as it is written: the rest is still to come
INSIDE = 0.8  # of the sequences' values, at each record


@dataclass
class Answer:
    """The sequences of one answer as they come, and the offset of the first record that they did not see."""

    partition: int
    from_offset: int
    records: dict[tuple[int, int], float] = field(default_factory=dict)  # by sequence and record

    @classmethod
    def take(cls, answers: dict[str, Answer], record: Any) -> None:
        """Take in one record of a generated topic."""
        told = {name: value.decode() for name, value in record.headers}
        id = told["streamgen_correlation_id"]
        answer = answers.setdefault(id, cls(record.partition, int(told["streamgen_from_offset"])))
        place = int(told["streamgen_sequence"]), int(told["streamgen_record"])
        answer.records[place] = float(msgspec.json.decode(record.value)["value"])

    @property
    def whole(self) -> bool:
        return len(self.records) == LENGTH * COUNT

    @property
    def value_ST(self) -> Floats:
        """Only of a whole one."""
        return np.array([[self.records[s, t] for t in range(LENGTH)] for s in range(COUNT)])


@dataclass(frozen=True, slots=True)
class Forecast:
    """An answer beside the values before it, and those that then came: T of each, or as many as there are."""

    value_ST: Floats
    was_N: Floats
    came_N: Floats

    @classmethod
    def of(
        cls, answer: Answer, places: Sequence[Place], values: Mapping[Place, Mapping[str, Any]]
    ) -> Forecast:
        """`places` are the input records of the key, in their order."""
        mine = [place for place in places if place[0] == answer.partition]
        later = [place for place in mine if place[1] >= answer.from_offset][:LENGTH]
        earlier = [place for place in mine if place[1] < answer.from_offset][-LENGTH:]
        was_N, came_N = (
            np.array([values[place]["value"] for place in places], dtype=np.float64)
            for places in (earlier, later)
        )
        return cls(answer.value_ST, was_N, came_N)

    def band(self, share: float) -> tuple[Floats, Floats]:
        """Where that share of the sequences' values lies, [T] each."""
        low_T, high_T = np.quantile(self.value_ST, [0.5 - share / 2, 0.5 + share / 2], axis=0)
        return low_T, high_T

    @property
    def inside_N(self) -> Bools:
        """Which of the values that came lie where 80 % were expected."""
        low_T, high_T = self.band(INSIDE)
        N = len(self.came_N)
        return np.asarray((self.came_N >= low_T[:N]) & (self.came_N <= high_T[:N]))


def ask(kafka: KafkaConfig, source: InputConfig, key: str) -> None:
    """Ask for sequences that go on from now; the answer carries the key as its id."""
    request = {
        "kind": "continue",
        "key": key,
        "length": LENGTH,
        "count": COUNT,
        "seed": 0,
        "correlation_id": key,
    }
    with translated("asking for sequences"):
        producer = KafkaProducer(**client_settings(kafka))
        producer.send(source.generate_topic, msgspec.json.encode(request), key.encode())
        producer.close()
