"""`streamgen publish`: generated sequences, to Kafka."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streamgen.cli.options import (
    Application,
    Bootstrap,
    Inputs,
    LastConfig,
    MetricsPort,
    PublisherId,
    configuration,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(publish)


def publish(
    config: LastConfig = None,
    topic: Inputs = None,
    bootstrap: Bootstrap = None,
    application_id: Application = None,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="PLACE", help="Where checkpoints are: kafka, a folder or a URL."),
    ] = None,
    metrics_port: MetricsPort = None,
    worker_id: PublisherId = None,
) -> None:
    """Publish generated sequences of the streams that an application's workers learn.

    On request, and at a rate where the configuration says so. It takes the workers' own configuration, reads
    what they have stored, and changes none of it.
    """
    from streamgen.errors import ConfigError

    if config is not None and topic:
        raise ConfigError("The inputs come from a file or from --input, not from both: leave one out.")
    settings: dict[str, Any] = {} if application_id is None else {"application_id": application_id}
    if state is not None:
        settings["state"] = {"store": state}
    if metrics_port is not None:
        settings["metrics"] = {"port": metrics_port}
    chosen = configuration(config, bootstrap, tuple(topic or ()), **settings)
    # Before the slow imports: a signal during the start must end it in order too.
    from producers.sending import stop_on_signals

    with stop_on_signals() as stop:
        from producers.generator import run_publisher

        run_publisher(chosen, worker_id, lambda: stop.requested)
