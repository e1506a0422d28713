"""The publisher: generated sequences, on request and at a rate. Wiring of library parts only."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from consumers.identity import worker_name
from consumers.serving import serving
from streamgen.config import Config
from streamgen.configfile import secrets
from streamgen.health import Health
from streamgen.kafka.kafka_transport import KafkaTransport
from streamgen.kafka.reach import reach
from streamgen.kafka.rights import check_publishing_rights
from streamgen.kafka.tail import KafkaTail
from streamgen.kafka.topics import ensure_publishing_topics
from streamgen.log import set_up_logging
from streamgen.metrics import PublisherMetrics
from streamgen.models.device import use_device
from streamgen.publishing.publisher import Publisher
from streamgen.state.files import FileStore
from streamgen.state.reading import StateReader, StoreReader
from streamgen.state.tailing import KafkaStateReader

log = structlog.get_logger()


def group_of(config: Config) -> str:
    """The consumer group of an application's publishers: their requests are no input of its workers."""
    return f"{config.application_id}-generate"


def run_publisher(config: Config, worker_id: str | None, stopping: Callable[[], bool]) -> None:
    """Publish until `stopping()`.

    Raises a `StreamgenError` when the publisher cannot start or go on; whatever ends it, what is not
    committed is answered by the next one.
    """
    set_up_logging(secrets=secrets(config))
    # Names of their own: a worker of this machine has the first ones of the folder itself.
    with worker_name(Path(config.state.directory) / "generate", worker_id) as name:
        reach(config.kafka)
        check_publishing_rights(config, group_of(config))
        made = ensure_publishing_topics(config)
        if made:
            log.info("topics made", topics=made)
        metrics, health = PublisherMetrics(), Health()
        device = use_device(config.device)
        with serving(config, metrics, health, "publisher", name, device):
            asked = [source.generate_topic for source in config.inputs]
            mine = config.model_copy(update={"application_id": group_of(config)})
            states = open_states(config)
            publisher = Publisher(
                config,
                KafkaTransport(mine, asked, name),
                states,
                KafkaTail(config.kafka),
                metrics,
                health,
                device,
            )
            publisher.run(stopping)


def open_states(config: Config) -> StateReader:
    """The learners' checkpoints as they come. Raises `StateError` when the application never ran."""
    topics = [source.topic for source in config.inputs]
    if config.state.store == "kafka":
        return KafkaStateReader(config.kafka, config.application_id, topics)
    return StoreReader(FileStore(config.state.store), topics, time.monotonic)
