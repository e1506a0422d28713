"""The process that learns a topic of images, batch after batch. Wiring of library parts only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from consumers.identity import worker_name
from consumers.serving import serving
from streamgen.config import Config
from streamgen.configfile import secrets
from streamgen.errors import ConfigError
from streamgen.health import Health
from streamgen.images.rounds import Rounds
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.reach import reach
from streamgen.kafka.rights import check_image_rights
from streamgen.kafka.tail import KafkaTail
from streamgen.kafka.topics import ensure_image_topics
from streamgen.log import set_up_logging
from streamgen.metrics import ImageMetrics
from streamgen.models.batch import settings
from streamgen.models.device import use_device
from streamgen.state.folder import open_folder

log = structlog.get_logger()


def run_image_learner(config: Config, worker_id: str | None, stopping: Callable[[], bool]) -> None:
    """Learn `config.images` until `stopping()`.

    Raises a `StreamgenError` when the process cannot start or go on; whatever ends it, the next one goes on
    with the batch that it was at.
    """
    topic = config.images.topic
    if topic is None:
        raise ConfigError("There is no topic of images: name it, or set images.topic.")
    settings(config.images.model)  # raises for what it does not know
    set_up_logging(secrets=secrets(config))
    # A group of its own, for online workers and publishers read other topics.
    group = f"{config.application_id}-images-run"
    with worker_name(Path(config.state.directory) / "images-run", worker_id) as name:
        reach(config.kafka)
        check_image_rights(config, group)
        made = ensure_image_topics(config)
        if made:
            log.info("topics made", topics=made)
        metrics, health = ImageMetrics(), Health()
        device = use_device(config.device)
        with serving(config, metrics, health, "image learner", name, device):
            learner = Rounds(
                config,
                KafkaTransport(config.model_copy(update={"application_id": group}), [topic], name),
                KafkaTail(config.kafka),
                open_folder(config.images.store),
                metrics,
                health,
                device,
            )
            learner.run(stopping)
