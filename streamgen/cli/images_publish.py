"""`streamgen images publish`: drawn images, to Kafka."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streamgen.cli.options import Application, Bootstrap, ConfigFile, MetricsPort, PublisherId, configuration


def publish(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="Topic that the images are like: its outputs name theirs.")
    ],
    state: Annotated[
        str, typer.Option("--state", metavar="PLACE", help="Folder of the training, or its URL.")
    ],
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="TIME", help="Time between images at a rate; else on request."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=200, help="Images each time.")] = 1,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    application_id: Application = None,
    metrics_port: MetricsPort = None,
    worker_id: PublisherId = None,
) -> None:
    """Publish images that a trained model draws, as PNG.

    On request, and at a rate if told so. It follows the newest checkpoint of the folder, and changes nothing
    there.
    """
    settings: dict[str, Any] = {} if application_id is None else {"application_id": application_id}
    if metrics_port is not None:
        settings["metrics"] = {"port": metrics_port}
    # The inputs of a file are the online workers'.
    settings["inputs"] = [{"topic": topic, "generate": {"every": every, "count": count}}]
    chosen = configuration(config, bootstrap, **settings)
    # Before the slow imports: a signal during the start must end it in order too.
    from producers.sending import stop_on_signals

    with stop_on_signals() as stop:
        from producers.images import run_image_publisher

        run_image_publisher(chosen, state, worker_id, lambda: stop.requested)
