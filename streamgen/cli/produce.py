"""`streamgen replay` and `host`: the producers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamgen.cli.options import Bootstrap, ConfigFile, kafka_of

if TYPE_CHECKING:
    from producers.sending import Progress

Topic = Annotated[str, typer.Option("--topic", help="Topic to write to; it must exist.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="End after so many records.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(replay)
    app.command()(host)


def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV or JSON lines files.")],
    topic: Topic,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    timestamp_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column or field of the time; without it, found by its name."),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="One key for all records.")] = None,
    key_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column or field of the key.")
    ] = None,
    value_columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="Columns or fields to send; without it, all numbers.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option("--speed", metavar="FACTOR", help="As it once flowed, so many times faster."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", help="So many records a second.")
    ] = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Begin anew at the end, with the times going on.")
    ] = False,
    limit: Limit = None,
) -> None:
    """Send files to a topic as they once flowed.

    As fast as it goes without --speed or --rate. Several files are merged by their times, and the key of a
    record is then the name of its file.
    """
    from producers.replay import replay as send
    from producers.rows import Choice

    values = None if value_columns is None else tuple(part.strip() for part in value_columns.split(","))
    choice = Choice(timestamp_column, key, key_column, values)
    kafka = kafka_of(config, bootstrap, topic)
    with _progress(f"to {topic}") as report:
        sent = send(
            files, topic, kafka, choice=choice, speed=speed, rate=rate, loop=loop, limit=limit, report=report
        )
    print(f"{sent} records written to {topic}", file=sys.stderr)


def host(
    topic: Topic,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Key of the records; without it, this machine's name.")
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", help="Time between two records.")
    ] = 1.0,
    limit: Limit = None,
) -> None:
    """Send this machine's metrics to a topic until Ctrl-C.

    Processor, memory, load, disk and network, one record a second.
    """
    from producers.host import host as send

    kafka = kafka_of(config, bootstrap, topic)
    with _progress(f"to {topic}") as report:
        sent = send(topic, kafka, key=key, interval_s=interval, limit=limit, report=report)
    print(f"{sent} records written to {topic}", file=sys.stderr)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[Progress], None] | None]:
    """A line on standard error where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[sent]} records"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None, sent=0)

        def report(progress: Progress) -> None:
            known = progress.share is not None
            bar.update(
                task, total=1.0 if known else None, completed=progress.share or 0.0, sent=progress.sent
            )

        yield report
