"""`streamgen demo`: all of it on this machine, in a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up until Ctrl-C after the summary, to look around.")
    ] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, metavar="N", help="End the replay after so many seconds.")
    ] = 60.0,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where the plot and the settings are written.")
    ] = Path("demo-output"),
) -> None:
    """Show streamgen at work: a real Kafka, real series with known incidents, this machine's metrics.

    Ends by itself after about a minute with what was caught, how often it was wrong, and a plot.
    """
    from consumers.demo.show import run_demo

    run_demo(seconds, keep, output)
