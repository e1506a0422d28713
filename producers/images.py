"""The publisher of images: on request, and at a rate. Wiring of library parts only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from consumers.identity import worker_name
from consumers.serving import serving
from streamgen.config import Config
from streamgen.configfile import secrets
from streamgen.health import Health
from streamgen.images.publisher import ImagePublisher
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.reach import reach
from streamgen.kafka.rights import check_image_publishing_rights
from streamgen.kafka.topics import ensure_publishing_topics
from streamgen.log import set_up_logging
from streamgen.metrics import PublisherMetrics
from streamgen.models.device import use_device
from streamgen.state.folder import open_folder

log = structlog.get_logger()


def run_image_publisher(
    config: Config, folder: str, worker_id: str | None, stopping: Callable[[], bool]
) -> None:
    """Publish images of the model in `folder` for the one input of `config`, until `stopping()`.

    Raises a `StreamgenError` when the publisher cannot start or go on; whatever ends it, what is not
    committed is answered by the next one.
    """
    set_up_logging(secrets=secrets(config))
    # A group of its own: publishers of sequences read other topics.
    group = f"{config.application_id}-images"
    with worker_name(Path(config.state.directory) / "images", worker_id) as name:
        reach(config.kafka)
        check_image_publishing_rights(config, group)
        made = ensure_publishing_topics(config, future=False)
        if made:
            log.info("topics made", topics=made)
        metrics, health = PublisherMetrics(), Health()
        device = use_device(config.device)
        with serving(config, metrics, health, "image publisher", name, device):
            mine = config.model_copy(update={"application_id": group})
            publisher = ImagePublisher(
                config,
                KafkaTransport(mine, [config.inputs[0].generate_topic], name),
                open_folder(folder),
                metrics,
                health,
                device,
            )
            publisher.run(stopping)
