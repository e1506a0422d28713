"""What the topics say about a run: incidents caught, false alarms, and whether each record counted once.

Pure functions of what was read from the topics; nothing here knows what was meant to happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from producers.data import Incident

_DAY_MS = 86_400_000

Place = tuple[int, int]  # partition and offset of an input record


class Source(msgspec.Struct, frozen=True):
    """The input record that a result comes from."""

    topic: str
    partition: int
    offset: int


class Score(msgspec.Struct, frozen=True):
    """A record of a scores topic."""

    key: str | None
    timestamp: datetime
    score: float
    threshold: float
    is_anomaly: bool
    warming_up: bool
    late: bool
    expected: dict[str, float | None]
    interval: dict[str, tuple[float | None, float | None]]
    source: Source

    @property
    def time_ms(self) -> int:
        return round(self.timestamp.timestamp() * 1000)

    @property
    def place(self) -> Place:
        return self.source.partition, self.source.offset


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one known incident; `first` is the first anomaly inside its window."""

    incident: Incident
    outcome: Literal["caught", "missed", "not reached"]
    first: Score | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """One series. `days` of event time were judged, from the end of the warm-up to the last record."""

    scores: int
    findings: list[Finding]
    false_alarms: int
    days: float

    @property
    def caught(self) -> int:
        return sum(finding.outcome == "caught" for finding in self.findings)

    @property
    def reached(self) -> int:
        return sum(finding.outcome != "not reached" for finding in self.findings)

    def __str__(self) -> str:
        if not self.days:
            return "still warming up: nothing to judge yet"
        unreached = len(self.findings) - self.reached
        more = f" ({unreached} not reached)" if unreached else ""
        return (
            f"{self.caught} of {self.reached} incidents caught{more}, "
            f"{self.false_alarms} false alarms in {self.days:.1f} days: {self.false_alarms_per_day:.2f} a day"
        )

    @property
    def false_alarms_per_day(self) -> float:
        return self.false_alarms / self.days if self.days > 0 else 0.0


def judge(incidents: Sequence[Incident], scores: Sequence[Score], close_after: int) -> Judgement:
    """Hold one key's scores, in the order of its log, against the incidents that are known.

    An incident is caught when a record inside its window is an anomaly. An episode that opens outside
    every window is a false alarm. An incident whose window begins after the last judged record, or ends
    before the first, was not reached.
    """
    judged = [score for score in scores if not score.warming_up]
    first_ms, last_ms = (judged[0].time_ms, judged[-1].time_ms) if judged else (0, -1)
    anomalies = [score for score in judged if score.is_anomaly]
    findings = []
    for incident in incidents:
        if incident.start_ms > last_ms or incident.end_ms < first_ms:
            findings.append(Finding(incident, "not reached"))
            continue
        inside = next((one for one in anomalies if _within(incident, one)), None)
        findings.append(Finding(incident, "missed" if inside is None else "caught", inside))
    false_alarms = sum(
        not any(_within(incident, opening) for incident in incidents)
        for opening in openings(judged, close_after)
    )
    return Judgement(len(scores), findings, false_alarms, max(0, last_ms - first_ms) / _DAY_MS)


def openings(scores: Sequence[Score], close_after: int) -> list[Score]:
    """The anomalies that open an episode: `close_after` records without one end the episode before."""
    found = []
    quiet = close_after
    for score in scores:
        if score.late:  # it moves no clock and no episode
            continue
        if score.is_anomaly:
            if quiet >= close_after:
                found.append(score)
            quiet = 0
        else:
            quiet += 1
    return found


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the results of a topic answer to its records."""

    written: int
    scored: int
    dead_lettered: int
    missing: int  # records without a result
    repeated: int  # results beyond the first of a record
    foreign: int  # results of records that are not there

    @property
    def exactly_once(self) -> bool:
        return self.missing == self.repeated == self.foreign == 0


def delivery(ends: Mapping[int, int], scored: Iterable[Place], dead_lettered: Iterable[Place]) -> Delivery:
    """Count the results of every offset from 0 up to each partition's end."""
    scored, dead_lettered = list(scored), list(dead_lettered)
    results = Counter([*scored, *dead_lettered])
    written = sum(ends.values())
    known = sum(0 <= offset < ends.get(partition, 0) for partition, offset in results)
    return Delivery(
        written=written,
        scored=len(scored),
        dead_lettered=len(dead_lettered),
        missing=written - known,
        repeated=results.total() - len(results),
        foreign=len(results) - known,
    )


def _within(incident: Incident, score: Score) -> bool:
    return incident.start_ms <= score.time_ms <= incident.end_ms
