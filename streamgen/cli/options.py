"""Options that several commands have, and what they mean together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamgen.errors import ConfigError

if TYPE_CHECKING:
    from streamgen.config import Config, KafkaConfig

Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", metavar="HOST:PORT", help="Kafka's bootstrap servers, comma-separated."),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file, for TLS and SASL for example."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Model to learn with: stream_ae or rvae or river."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all noise.")]
Device = Annotated[str, typer.Option("--device", help="Where the model lives: auto, cpu or cuda.")]


Application = Annotated[
    str | None,
    typer.Option("--application-id", metavar="NAME", help="Consumer group, and prefix of internal topics."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="TOPIC", help="Topic that is learned; may be given again."),
]
LastConfig = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Configuration file.", show_default=False)
]
From = Annotated[
    str,
    typer.Option(
        "--from", metavar="WHERE", help="Topic: first record; earliest, a time, or PARTITION:OFFSET,…."
    ),
]
To = Annotated[
    str,
    typer.Option("--to", metavar="WHERE", help="Topic: where to end; latest, a time, or PARTITION:OFFSET,…."),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, metavar="PORT", help="Port of /metrics and /readyz; 0 picks a free one."),
]
PublisherId = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of this publisher, kept over restarts; without it, one of this machine that is free.",
    ),
]


def configuration(
    file: Path | None, bootstrap: str | None = None, topics: tuple[str, ...] = (), **settings: Any
) -> Config:
    """The configuration of a file, the environment, and what the command line says above both.

    `topics` replace the inputs. Raises `ConfigError`.
    """
    from streamgen.configfile import load_config

    overrides: dict[str, Any] = {**settings}
    if bootstrap is not None:
        overrides["kafka"] = {"bootstrap_servers": bootstrap}
    if topics:
        overrides["inputs"] = [{"topic": topic} for topic in topics]
    return load_config(file, overrides)


def state_configuration(
    file: Path | None,
    bootstrap: str | None,
    topics: list[str] | None,
    application_id: str | None,
    stand_in: bool = False,
) -> Config:
    """The configuration of a command of `streamgen state`, which needs what `run` needs.

    `stand_in`: which inputs there are does not matter to the command. Raises `ConfigError`, and
    `BrokerUnavailable` within seconds when nothing listens there.
    """
    from streamgen.configfile import secrets
    from streamgen.kafka.reach import reach
    from streamgen.log import set_up_logging

    if file is not None and topics:
        raise ConfigError("The inputs come from a file or from --input, not from both: leave one out.")
    settings = {} if application_id is None else {"application_id": application_id}
    named = tuple(topics or ()) or (("any",) if stand_in and file is None else ())
    chosen = configuration(file, bootstrap, named, **settings)
    set_up_logging("warning", secrets(chosen))
    if not stand_in or chosen.state.store == "kafka":
        reach(chosen.kafka)
    return chosen


def kafka_of(file: Path | None, bootstrap: str | None, topic: str) -> KafkaConfig:
    """How to reach the brokers, for a command that needs no more of the configuration.

    Raises `ConfigError`, and `BrokerUnavailable` within seconds when nothing listens there.
    """
    from streamgen.kafka.reach import reach

    kafka = configuration(file, bootstrap, (topic,)).kafka
    reach(kafka)
    return kafka


def with_model(config: Config, model: str | None) -> Config:
    """The same configuration with this model for every input, in its default settings."""
    if model is None:
        return config
    inputs = [source.model_copy(update={"model": {"name": model}}) for source in config.inputs]
    return config.model_copy(update={"inputs": inputs})
