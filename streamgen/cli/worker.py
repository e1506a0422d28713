"""`streamgen run`: the online worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streamgen.cli.options import Bootstrap, MetricsPort, Model, configuration, with_model


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Configuration file.", show_default=False)
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="TOPIC", help="Topic to learn; may be given again."),
    ] = None,
    bootstrap: Bootstrap = None,
    model: Model = None,
    application_id: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Consumer group, and prefix of internal topics."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="PLACE", help="Where checkpoints are: kafka, a folder or a URL."),
    ] = None,
    metrics_port: MetricsPort = None,
    worker_id: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of this worker, kept over restarts; without it, one of this machine that is free.",
        ),
    ] = None,
    from_state: Annotated[
        Path | None,
        typer.Option(
            "--from-state",
            metavar="DIR",
            help="Go on from state that was exported; ignored once that is done.",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the whole configuration, secrets masked, and end.")
    ] = False,
) -> None:
    """Score topics and learn from them while they flow.

    Start it again elsewhere and the workers share the partitions. SIGTERM or Ctrl-C ends it in order: what
    is in hand is committed and stored.
    """
    from streamgen.errors import ConfigError

    if config is not None and topic:
        raise ConfigError("The inputs come from a file or from --input, not from both: leave one out.")
    settings: dict[str, Any] = {} if application_id is None else {"application_id": application_id}
    if state is not None:
        settings["state"] = {"store": state}
    if metrics_port is not None:
        settings["metrics"] = {"port": metrics_port}
    chosen = with_model(configuration(config, bootstrap, tuple(topic or ()), **settings), model)
    if print_config:
        from streamgen.configfile import print_config as as_yaml

        print(as_yaml(chosen), end="")
        return
    # Before the slow imports: a signal during the start must end it in order too.
    from producers.sending import stop_on_signals

    with stop_on_signals() as stop:
        from consumers.online import run_worker

        run_worker(chosen, worker_id, lambda: stop.requested, from_state)
