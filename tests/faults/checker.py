"""The independent checker: what a read_committed reader of a faulted application sees must be what it sees of
an uninterrupted one over the same input.

It shares no code with the loop: plain readers, and what is compared are bytes. Only the name of the
application differs between the two, and is taken out of headers and bodies before they are compared.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

READ_TIMEOUT_S = 60.0
Place = tuple[int, int]  # partition and offset of an input record
State = Mapping[str, bytes]  # what is stored of one task: what it is of, and its bytes


class Record(NamedTuple):
    """A record as a reader sees it, without its own offset, which faults may move."""

    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass
class Outputs:
    """All that one application has published, each topic in the order of its partitions."""

    scores: list[Record]
    dead: list[Record]
    episodes: list[Record]
    states: dict[int, State] = field(default_factory=dict)


@dataclass
class Verdict:
    """What was found, a sentence each."""

    records: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    @property
    def findings(self) -> list[str]:
        """All of it."""
        return [*self.lost, *self.doubled, *self.different, *self.reordered, *self.states]


def read_topics(bootstrap: str, *topics: str) -> dict[str, list[tuple[int, Record]]]:
    """Every record of some topics that is committed, with its offset; waits for what is pending."""
    from kafka import KafkaConsumer, TopicPartition

    settings: dict[str, Any] = {"bootstrap_servers": bootstrap, "enable_auto_commit": False}
    committed = KafkaConsumer(**settings, isolation_level="read_committed")
    uncommitted = KafkaConsumer(**settings)
    found: dict[str, list[tuple[int, Record]]] = {topic: [] for topic in topics}
    try:
        partitions = [
            TopicPartition(topic, n)
            for topic in topics
            for n in sorted(committed.partitions_for_topic(topic) or ())
        ]
        assert {partition.topic for partition in partitions} == set(topics), "a topic is not there"
        committed.assign(partitions)
        committed.seek_to_beginning()
        ends = uncommitted.end_offsets(partitions)
        deadline = time.monotonic() + READ_TIMEOUT_S
        # Not "until the last offset came": markers and aborted records are never delivered.
        while any(committed.position(partition) < ends[partition] for partition in partitions):
            assert time.monotonic() < deadline, f"{topics} are blocked by an open transaction"
            for partition, records in committed.poll(timeout_ms=50).items():
                found[partition.topic] += [
                    (r.offset, Record(r.partition, r.timestamp, r.key, r.value, tuple(r.headers or ())))
                    for r in records
                ]
    finally:
        committed.close()
        uncommitted.close()
    return {
        topic: sorted(records, key=lambda one: (one[1].partition, one[0])) for topic, records in found.items()
    }


def read_outputs(bootstrap: str, application: str) -> Outputs:
    """What an application has published, without its name."""
    topics = [f"{application}.{name}" for name in ("scores", "dlq", "anomalies")]
    found = read_topics(bootstrap, *topics)
    scores, dead, episodes = (nameless(found[topic], application) for topic in topics)
    return Outputs(scores, dead, episodes)


def nameless(records: Iterable[tuple[int, Record]], application: str) -> list[Record]:
    """The records with the application's name taken out."""
    name, no_name = application.encode(), b"<application>"

    def without(data: bytes | None) -> bytes | None:
        return None if data is None else data.replace(name, no_name)

    return [
        record._replace(
            value=without(record.value),
            headers=tuple((header, without(value) or b"") for header, value in record.headers),
        )
        for _, record in records
    ]


def compare(inputs: Iterable[Place], faulted: Outputs, whole: Outputs) -> Verdict:
    """Hold what `faulted` published against what `whole` did; `inputs` are the places of all records."""
    verdict = Verdict()
    places = sorted(inputs)
    verdict.records = len(places)
    mine, theirs = _by_place(faulted, verdict), _by_place(whole, Verdict())
    for place in places:
        results = mine.pop(place, [])
        expected = theirs.get(place, [])
        if len(expected) != 1:
            verdict.different.append(f"{place}: the uninterrupted run has {len(expected)} results")
        if not results:
            verdict.lost.append(f"{place}: no result")
        elif len(results) > 1:
            verdict.doubled.append(f"{place}: {len(results)} results")
        elif expected and results[0] != expected[0]:
            verdict.different.append(f"{place}: {_difference(results[0], expected[0])}")
    verdict.doubled += [f"{place}: a result of no input record" for place in mine]
    for name, records in (("scores", faulted.scores), ("dead letters", faulted.dead)):
        _check_order(name, records, verdict)
    _compare_episodes(faulted.episodes, whole.episodes, verdict)
    _compare_states(faulted.states, whole.states, verdict)
    return verdict


def place_of(record: Record) -> Place:
    """Of which input record this is the result. Raises `ValueError` or `KeyError` for one of none."""
    headers = dict(record.headers)
    if "__streams.errors.offset" in headers:
        return int(headers["__streams.errors.partition"]), int(headers["__streams.errors.offset"])
    source = json.loads(record.value or b"null")["source"]
    return source["partition"], source["offset"]


def _by_place(outputs: Outputs, verdict: Verdict) -> dict[Place, list[tuple[str, Record]]]:
    found: dict[Place, list[tuple[str, Record]]] = {}
    for kind, records in (("score", outputs.scores), ("dead letter", outputs.dead)):
        for record in records:
            place = place_of(record)
            found.setdefault(place, []).append((kind, record))
            if place[0] != record.partition:
                verdict.different.append(f"{place}: its result is in partition {record.partition}")
    return found


def _difference(mine: tuple[str, Record], theirs: tuple[str, Record]) -> str:
    if mine[0] != theirs[0]:
        return f"a {mine[0]}, and a {theirs[0]} in the uninterrupted run"
    for name in Record._fields:
        ours, other = getattr(mine[1], name), getattr(theirs[1], name)
        if ours != other:
            return f"{mine[0]}: its {name} is {ours!r:.400}, and {other!r:.400} in the uninterrupted run"
    return "the same"


def _check_order(name: str, records: Sequence[Record], verdict: Verdict) -> None:
    """A key's results are in the order of its records."""
    newest: dict[tuple[int, bytes | None], int] = {}
    for record in records:
        partition, offset = place_of(record)
        key = (partition, record.key)
        if offset < newest.get(key, -1):
            verdict.reordered.append(f"{(partition, offset)}: {name} of {record.key!r} are out of order")
        newest[key] = max(offset, newest.get(key, -1))


def _compare_episodes(mine: Sequence[Record], theirs: Sequence[Record], verdict: Verdict) -> None:
    """Each key's episodes open and close in the same order, with the same bytes."""
    for key in sorted({(r.partition, r.key) for r in [*mine, *theirs]}, key=repr):
        ours = [record for record in mine if (record.partition, record.key) == key]
        others = [record for record in theirs if (record.partition, record.key) == key]
        if ours == others:
            continue
        missing, more = Counter(others) - Counter(ours), Counter(ours) - Counter(others)
        verdict.lost += [
            f"episode of {key}: {record.value!r:.200}" for record in missing if record not in ours
        ]
        verdict.doubled += [f"episode of {key}: {record.value!r:.200}" for record in more if record in others]
        verdict.different += [
            f"episode of {key}: {record.value!r:.200}" for record in more if record not in others
        ]
        if not missing and not more:
            verdict.reordered.append(f"episodes of {key}")


def _compare_states(mine: Mapping[int, State], theirs: Mapping[int, State], verdict: Verdict) -> None:
    for partition in sorted(mine.keys() | theirs.keys()):
        ours, others = mine.get(partition, {}), theirs.get(partition, {})
        for name in sorted(ours.keys() | others.keys()):
            if ours.get(name) != others.get(name):
                verdict.states.append(f"state of partition {partition}: {name} differs")
