"""`streamgen images run`: learns a topic of images, batch after batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from streamgen.cli.options import Application, Bootstrap, MetricsPort, configuration


def run(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG.yaml]", help="Configuration file with images:.", show_default=False),
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="TOPIC", help="Topic whose values are images.")
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="PLACE", help="Folder of the model, or its URL.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Model to learn with: vae or gan.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=100, help="Images that make a batch.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of a batch.")] = None,
    size: Annotated[
        int | None, typer.Option("--size", min=16, max=128, help="Pixels of a side, to scale images to.")
    ] = None,
    bootstrap: Bootstrap = None,
    application_id: Application = None,
    metrics_port: MetricsPort = None,
    worker_id: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of this process, kept over restarts; without it, one of this machine that is free.",
        ),
    ] = None,
) -> None:
    """Learn a topic of images while it grows, batch after batch.

    A model that a batch makes worse, by images that were held out, is not taken. `streamgen images publish`
    draws from the newest that was.
    """
    images: dict[str, Any] = {"topic": topic, "store": state, "batch": batch, "size": size}
    given = {name: value for name, value in {"name": model, "steps": steps}.items() if value is not None}
    images = {name: value for name, value in images.items() if value is not None}
    settings: dict[str, Any] = {"images": images | ({"model": given} if given else {})}
    if application_id is not None:
        settings["application_id"] = application_id
    if metrics_port is not None:
        settings["metrics"] = {"port": metrics_port}
    chosen = configuration(config, bootstrap, **settings)
    # Before the slow imports: a signal during the start must end it in order too.
    from producers.sending import stop_on_signals

    with stop_on_signals() as stop:
        from consumers.images import run_image_learner

        run_image_learner(chosen, worker_id, lambda: stop.requested)
