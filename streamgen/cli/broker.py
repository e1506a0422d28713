"""`streamgen broker` and `topics`: a Kafka to try things with, and the topics of an input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from streamgen.cli.options import Bootstrap, ConfigFile, configuration


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(broker)
    app.command()(topics)


def broker(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 picks a free one.")] = 9092,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Keep Kafka's data there; without it, gone at the end."),
    ] = None,
) -> None:
    """Run a real Kafka broker on this machine until Ctrl-C.

    The first time it is downloaded (45 MB). Prints the bootstrap servers when it answers, on
    127.0.0.1 only.
    """
    from producers.sending import Clock, stop_on_signals
    from streamgen.kafka.broker import EmbeddedBroker

    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    with stop_on_signals() as stop, EmbeddedBroker(port, data, progress=tell) as running:
        print(running.bootstrap_servers, flush=True)
        stop.wait_until(float("inf"), Clock())
        tell("stopping Kafka")


def topics(
    topic: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC]...", help="Input topics; or those of --config.")
    ] = None,
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, help="Partitions of an input topic that is made.")
    ] = 1,
    forever: Annotated[
        bool,
        typer.Option(
            "--forever",
            help="Make input topics that keep records of any age; else Kafka soon deletes old times.",
        ),
    ] = False,
    generated: Annotated[
        bool, typer.Option("--generated", help="Make the topics of streamgen publish too.")
    ] = False,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
) -> None:
    """Make input topics and their output topics.

    Those of scores, anomalies and dead letters have as many partitions as their input. What exists is never
    changed.
    """
    from streamgen.errors import ConfigError
    from streamgen.kafka.reach import reach
    from streamgen.kafka.topics import NewTopic, create_topics, ensure_publishing_topics, ensure_topics

    for name in topic or ():
        if Path(name).is_file():  # a topic may have such a name, but this one is meant to be read
            raise ConfigError(f"{name} is a file, and topics are made here by their names: --config {name}.")
    chosen = configuration(config, bootstrap, tuple(topic or ()))
    reach(chosen.kafka)
    settings = {"retention.ms": "-1"} if forever else {}
    inputs = [NewTopic(source.topic, partitions, settings=settings) for source in chosen.inputs]
    made = create_topics(chosen.kafka, inputs) + ensure_topics(chosen)
    made += ensure_publishing_topics(chosen) if generated else []
    for name in made:
        print(f"made {name}")
    if not made:
        print("all topics are there")
