"""The verdict on a run, printed and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten

from rich.console import Console
from rich.text import Text

from consumers.demo.judgement import Delivery, Finding
from consumers.demo.outcome import Outcome
from consumers.demo.screen import event_time, number
from consumers.demo.tail import Seen

_WHAT = 22  # characters; a line fits into 80
_STYLES = {"caught": "bold green", "missed": "bold red", "not reached": "dim"}


def report(console: Console, outcome: Outcome, output: Path) -> None:
    """Draw the plot into `output`, and print the summary."""
    from consumers.demo.plot import draw  # matplotlib takes a second to import

    picture = output / "demo.png"
    draw(picture, outcome)
    console.print()
    for line in _lines(outcome, picture, output / "demo.yaml"):
        console.print(line, soft_wrap=True)


def _lines(outcome: Outcome, picture: Path, config: Path) -> Iterator[Text | str]:
    for series in outcome.series:
        judgement = outcome.judgements[series.name]
        yield Text.assemble((series.name, "bold"), f"  {series.about}")
        for finding in judgement.findings:
            yield _finding(outcome.seen, finding)
        yield f"  {judgement}"
        yield ""
    yield Text("Forecasts, asked for on the way", style="bold")
    for series in outcome.series:
        yield f"  {series.name}: {_forecast(outcome, series.name)}"
    yield ""
    host = next((scores[-1] for scores in outcome.host.scores.values() if scores), None)
    latest = (
        "" if host is None else f"; the latest score {host.score:.2f}" + " (warming up)" * host.warming_up
    )
    yield Text("This machine's metrics", style="bold")
    yield f"  {outcome.host.written:,} records, {outcome.host.scored:,} scored{latest}"
    yield ""
    yield Text("Each record once", style="bold")
    yield f"  {_delivered(outcome.delivery)}"
    yield ""
    yield "An incident is caught when a record in its window is an anomaly; an episode that opens outside"
    yield (
        f"all windows is a false alarm. Read from the scores topic alone; the alert budget is "
        f"{outcome.source.anomaly.alert_budget:g} a day."
    )
    yield f"plot      {picture}"
    yield f"settings  {config}"
    yield f"metrics   {'  '.join(f'{address}/metrics' for address in outcome.metrics)}"
    yield f"scores    topic {outcome.source.scores_topic} of {outcome.bootstrap} (stays up with --keep)"


def _forecast(outcome: Outcome, name: str) -> str:
    if name in outcome.refusals:
        return f"none, {outcome.refusals[name]}"
    if name not in outcome.forecasts:
        return "none, the replay did not come so far"
    inside_N = outcome.forecasts[name].inside_N
    return f"{inside_N.sum()} of the {len(inside_N)} values that then came lie where 80 % were expected"


def _finding(seen: Seen, finding: Finding) -> Text:
    incident = finding.incident
    begin, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (incident.start_ms, incident.end_ms))
    what = shorten(incident.what or f"{begin:%Y-%m-%d} to {end:%m-%d}", _WHAT, placeholder=" …")
    line = Text.assemble("  ", (f"{finding.outcome:<13}", _STYLES[finding.outcome]), what)
    if finding.first is None:
        return line
    value = seen.values[finding.first.place]
    told = (f"{number(value[name])}, expected {number(e)}" for name, e in finding.first.expected.items())
    return line.append(f"{' ' * (_WHAT - len(what))}  {event_time(finding.first)}  {'; '.join(told)}")


def _delivered(delivery: Delivery) -> Text:
    line = (
        f"{delivery.written:,} records in, {delivery.scored:,} scored, "
        f"{delivery.dead_lettered:,} dead-lettered: "
    )
    if delivery.exactly_once:
        return Text(line + "every offset has exactly one result")
    return Text(line).append(
        f"{delivery.missing:,} without a result, {delivery.repeated:,} repeated, {delivery.foreign:,} of no "
        "record",
        "bold red",
    )
