"""What the terminal shows while the demo runs; where it is no terminal, a line now and then."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from consumers.demo.judgement import Score
from consumers.demo.tail import Episode, Peak, Seen

_LINE_S = 5.0  # between two lines where there is no terminal
_RATE_S = 3.0  # over which rates are taken
_EPISODES = 8
_SPARKS = "▁▂▃▄▅▆▇█"


class Screen:
    """Draws `seen`; `replayed` is the topic of the replay and `total` the records that it will have."""

    def __init__(
        self, console: Console, seen: Mapping[str, Seen], replayed: str, total: int, footer: list[str]
    ) -> None:
        self._console, self._seen, self._replayed = console, seen, replayed
        self._total, self._footer = total, footer
        self._began = time.monotonic()
        self._counts: deque[tuple[float, int, int]] = deque()  # when, records in, records scored
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next_line = self._began + _LINE_S
        self._told: set[str] = set()

    def show(self, doing: str) -> None:
        """Draw what is seen by now; `doing` says in a word what goes on."""
        now, seen = time.monotonic(), self._seen[self._replayed]
        self._counts.append((now, seen.written, seen.scored))
        while self._counts[0][0] < now - _RATE_S:
            self._counts.popleft()
        if self._console.is_terminal:
            self._live.update(self._drawing(doing), refresh=True)
        elif now >= self._next_line:
            self._next_line = now + _LINE_S
            self._print_lines(doing)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    # --- a terminal

    def _drawing(self, doing: str) -> RenderableType:
        seen = self._seen[self._replayed]
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(no_wrap=True, justify="right")
        elapsed = time.monotonic() - self._began
        head.add_row(
            Text(doing, style="bold"),
            ProgressBar(total=self._total, completed=seen.written),
            f"{seen.written:,} of {self._total:,}  {self._share():4.0%}  {elapsed:3.0f} s",
        )
        written, scored = self._rates()
        numbers = Text.assemble(
            "records a second: ", (f"{written:,.0f}", "bold"), " in, ", (f"{scored:,.0f}", "bold"),
            " scored and learned   lag: ", (f"{seen.lag:,}", "bold"),
            "   dead letters: ", (f"{len(seen.dead_letters):,}", "bold"),
        )  # fmt: skip
        footer = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in self._footer]
        return Group(head, numbers, Text(), self._streams(), Text(), self._anomalies(), Text(), *footer)

    def _streams(self) -> Table:
        table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", pad_edge=False)
        table.add_column("stream", no_wrap=True, ratio=3)
        table.add_column("event time", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("expected", justify="right", no_wrap=True)
        table.add_column("records", justify="right", no_wrap=True)
        table.add_column("score", no_wrap=True)
        for seen in self._seen.values():
            for key, scores in sorted(seen.scores.items()):
                last = scores[-1]
                feature = next(iter(last.expected))
                name = key if len(last.expected) == 1 else f"{key}: {feature}"
                value = seen.values.get(last.place, {}).get(feature)
                table.add_row(
                    name, event_time(last), number(value), number(last.expected[feature]),
                    f"{len(scores):,}", _scores(scores),
                )  # fmt: skip
        return table

    def _anomalies(self) -> Table:
        table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", pad_edge=False)
        table.add_column("latest anomalies", no_wrap=True, ratio=3)
        table.add_column("event time", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("expected", justify="right", no_wrap=True)
        table.add_column("feature", justify="right", no_wrap=True)
        table.add_column("score", no_wrap=True)
        latest = [episode for seen in self._seen.values() for episode in seen.episodes.values()]
        for episode in latest[: -_EPISODES - 1 : -1]:
            feature = episode.features[0]
            table.add_row(
                episode.key, event_time(episode.peak), number(episode.peak.value[feature]),
                number(episode.peak.expected[feature]), feature,
                Text(f"{episode.peak.score:.2f}", "bold red"),
            )  # fmt: skip
        for _ in range(_EPISODES - len(latest)):
            table.add_row()
        return table

    # --- no terminal

    def _print_lines(self, doing: str) -> None:
        seen = self._seen[self._replayed]
        written, scored = self._rates()
        print = self._console.print
        print(
            f"{time.monotonic() - self._began:4.0f} s  {doing}: {seen.written:,} of {self._total:,} records "
            f"({self._share():.0%}); {written:,.0f}/s in, {scored:,.0f}/s scored, lag {seen.lag:,}",
            soft_wrap=True,
        )
        new = [
            one for seen in self._seen.values() for one in seen.episodes.values() if one.id not in self._told
        ]
        self._told.update(episode.id for episode in new)
        for episode in new[-2:]:
            print("        " + sentence(episode), soft_wrap=True)

    def _rates(self) -> tuple[float, float]:
        """Records in and scored a second, of late."""
        (then, written, scored), (now, written_now, scored_now) = self._counts[0], self._counts[-1]
        seconds = now - then
        if seconds <= 0:
            return 0.0, 0.0
        return (written_now - written) / seconds, (scored_now - scored) / seconds

    def _share(self) -> float:
        return self._seen[self._replayed].written / self._total


def sentence(episode: Episode) -> str:
    """An episode in a line."""
    feature, peak = episode.features[0], episode.peak
    return (
        f"anomaly: {episode.key}, {event_time(peak)}, {feature} {number(peak.value[feature])}, "
        f"expected {number(peak.expected[feature])}, score {peak.score:.2f}"
    )


def event_time(what: Score | Peak) -> str:
    """As a person reads it."""
    return f"{what.timestamp:%Y-%m-%d %H:%M}"


def number(value: object) -> str:
    """Few digits, whatever the size."""
    if not isinstance(value, int | float):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _scores(scores: list[Score]) -> Text:
    """The newest score, and the run of late; red where it is above the threshold."""
    last = scores[-1]
    text = Text()
    for score in scores[-14:]:
        bar = _SPARKS[min(int(score.score * len(_SPARKS)), len(_SPARKS) - 1)]
        text.append(bar, "bold red" if score.is_anomaly else "cyan")
    text.append(f" {last.score:.2f}", "dim" if last.warming_up else "bold")
    return text
