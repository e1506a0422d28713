"""The online worker: scores and learns topics while they flow. Wiring of library parts only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from consumers.identity import worker_name
from consumers.restore_bar import restore_bar
from consumers.serving import serving
from streamgen.config import Config
from streamgen.configfile import secrets
from streamgen.formats.decode import Decoder
from streamgen.health import Health
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.pins import KafkaPins
from streamgen.kafka.reach import reach
from streamgen.kafka.rights import check_rights
from streamgen.kafka.topics import ensure_state_topic, ensure_topics, retention_s
from streamgen.log import set_up_logging
from streamgen.loop import Loop
from streamgen.metrics import Metrics
from streamgen.models import settings
from streamgen.models.device import use_device
from streamgen.moving import start_from
from streamgen.state.places import open_store

log = structlog.get_logger()


def check(config: Config) -> None:
    """Raises `ConfigError` for what the configuration's own types cannot tell: models and formats."""
    for source in config.inputs:
        settings(source.model)
        Decoder(source, tuple(source.features or ("value",)))


def run_worker(
    config: Config, worker_id: str | None, stopping: Callable[[], bool], from_state: Path | None = None
) -> None:
    """Work until `stopping()`, then finish the batch, commit, checkpoint and leave the group.

    `worker_id` None: the first name that is free on this machine. `from_state`: a folder whose state an
    application that has none begins with, see `streamgen.moving.start_from`. Raises a `StreamgenError` when
    the worker cannot start or go on; whatever ends it, an open transaction is aborted and nothing is lost.
    """
    check(config)
    set_up_logging(secrets=secrets(config))
    with worker_name(Path(config.state.directory), worker_id) as name:
        reach(config.kafka)
        check_rights(config)
        made = ensure_topics(config) + ensure_state_topic(config)
        if made:
            log.info("topics made", topics=made)
        if from_state is not None:
            start_from(config, from_state)
        device = use_device(config.device)
        metrics, health = Metrics(), Health()
        with serving(config, metrics, health, "worker", name, device):
            loop = Loop(
                config,
                KafkaTransport(config, [source.topic for source in config.inputs], name),
                KafkaPins(config.kafka, config.application_id),
                open_store(config),
                metrics,
                health,
                device,
                retention_s=retention_s(config.kafka, [source.topic for source in config.inputs]),
            )
            with restore_bar(health):
                loop.run(stopping)
