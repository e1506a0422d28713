"""`streamgen watch`: the newest scores, live."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamgen.cli.options import Bootstrap, ConfigFile, kafka_of

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from streamgen.config import KafkaConfig

KEYS = 10_000  # remembered; the ones heard of least recently are forgotten
ROWS = 15  # keys shown
ANOMALIES = 8  # shown
RATE_S = 5.0  # over which records are counted for the rate
REDRAW_S = 0.25


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(watch)


def watch(
    topic: Annotated[str, typer.Argument(help="Topic of scores, or the input topic that they are of.")],
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0, metavar="SECONDS", help="End after that long.")
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the oldest score, not with the next one.")
    ] = False,
) -> None:
    """Show the newest score of each key, live, until Ctrl-C.

    With the latest anomalies and the records a second.
    """
    from rich.console import Console
    from rich.live import Live

    from producers.sending import stop_on_signals

    kafka = kafka_of(config, bootstrap, topic)
    scores = _scores_topic(kafka, topic)
    seen = Seen(scores)
    end = None if seconds is None else time.monotonic() + seconds
    console = Console()
    with (
        stop_on_signals() as stop,
        Reader(kafka, scores, from_start) as reader,
        Live(seen.table(), console=console, auto_refresh=False) as live,
    ):
        drawn = time.monotonic()
        while not stop.requested and (end is None or time.monotonic() < end):
            for value in reader.values():
                seen.add(value, time.monotonic())
            if time.monotonic() - drawn >= REDRAW_S:
                drawn = time.monotonic()
                live.update(seen.table(), refresh=True)
        live.update(seen.table(), refresh=True)
    if not console.is_terminal:
        console.print()  # Live ends without the end of its last line there


def _scores_topic(kafka: KafkaConfig, topic: str) -> str:
    from streamgen.errors import PermissionDenied, TopicError
    from streamgen.kafka.topics import partition_count

    refused = None
    for name in (f"{topic}.scores", topic):
        try:
            if partition_count(kafka, name) is not None:
                return name
        except PermissionDenied as error:  # who may read one of the two need not know of the other
            refused = refused or error
    if refused is not None:
        raise refused
    raise TopicError(
        f"There is neither a topic {topic} nor {topic}.scores: start a worker for it (streamgen run), or "
        "correct the name."
    )


class Reader:
    """The values of a topic's committed records, as they come."""

    def __init__(self, kafka: KafkaConfig, topic: str, from_start: bool) -> None:
        from kafka import KafkaConsumer, TopicPartition

        from streamgen.kafka.client import client_settings, translated

        self._topic, self._translated = topic, translated
        with translated(f"reading {topic}"):
            self._consumer = KafkaConsumer(
                **client_settings(kafka), isolation_level="read_committed", enable_auto_commit=False
            )
            partitions = [TopicPartition(topic, n) for n in self._consumer.partitions_for_topic(topic) or ()]
            self._consumer.assign(partitions)
            go_to = self._consumer.seek_to_beginning if from_start else self._consumer.seek_to_end
            go_to(*partitions)
            for partition in partitions:  # else "the end" is looked up when the first record came already
                self._consumer.position(partition)

    def values(self) -> list[bytes]:
        """What came within a moment."""
        with self._translated(f"reading {self._topic}"):
            polled = self._consumer.poll(timeout_ms=100)
        return [record.value for records in polled.values() for record in records if record.value]

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *ended: object) -> None:
        self._consumer.close()


@dataclass
class Seen:
    """What the scores said so far."""

    topic: str
    records: int = 0
    anomalies: int = 0
    unreadable: int = 0
    newest: OrderedDict[str | None, dict[str, Any]] = field(default_factory=OrderedDict)
    latest: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=ANOMALIES))
    came: deque[float] = field(default_factory=deque)

    def add(self, value: bytes, now: float) -> None:
        """Take in one record; `now` in seconds from anywhere on."""
        import msgspec

        try:
            score = msgspec.json.decode(value)
            key, anomaly = score["key"], score["is_anomaly"]
        except (ValueError, TypeError, KeyError):
            self.unreadable += 1
            return
        self.records += 1
        self.came.append(now)
        while self.came[0] < now - RATE_S:
            self.came.popleft()
        self.newest[key] = score
        self.newest.move_to_end(key)
        if len(self.newest) > KEYS:
            self.newest.popitem(last=False)
        if anomaly:
            self.anomalies += 1
            self.latest.append(score)

    def rate(self) -> float:
        """Records a second lately."""
        while self.came and self.came[0] < time.monotonic() - RATE_S:
            self.came.popleft()
        return len(self.came) / RATE_S

    def table(self) -> Group:
        """All of it, for a terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        unreadable = f", {self.unreadable} that are no scores" if self.unreadable else ""
        head = Text(
            f"{self.topic}: {self.rate():.0f} records/s, {self.records} records, {len(self.newest)} keys, "
            f"{self.anomalies} anomalies{unreadable}"
        )
        keys = Table("key", "time", "score", "p-value", "expected", title="newest", title_justify="left")
        for score in list(reversed(self.newest.values()))[:ROWS]:
            keys.add_row(*_cells(score), _expected(score), style="bold red" if score["is_anomaly"] else "")
        parts: list[RenderableType] = [head, keys]
        if self.latest:
            found = Table("key", "time", "score", "p-value", "by", title="anomalies", title_justify="left")
            for score in reversed(self.latest):
                found.add_row(*_cells(score), _cause(score))
            parts.append(found)
        return Group(*parts)


def _cells(score: dict[str, Any]) -> tuple[str, str, str, str]:
    key = score["key"]
    time_text = str(score.get("timestamp", ""))
    warming_up = " (warming up)" if score.get("warming_up") else ""
    return (
        "(none)" if key is None else str(key),
        time_text,
        f"{_number(score.get('score'))}{warming_up}",
        _number(score.get("p_value")),
    )


def _expected(score: dict[str, Any]) -> str:
    expected = score.get("expected") or {}
    shown = [f"{name} {_number(value)}" for name, value in list(expected.items())[:3]]
    return ", ".join(shown) + (" …" if len(expected) > 3 else "")


def _cause(score: dict[str, Any]) -> str:
    """The feature that contributed most."""
    parts = {name: value for name, value in (score.get("contributions") or {}).items() if value is not None}
    return max(parts, key=lambda name: parts[name], default="")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
