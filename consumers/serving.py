"""Metrics and health over HTTP while a process works, and the lines that say when it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import structlog

from streamgen.config import Config
from streamgen.errors import ConfigError
from streamgen.health import Health, HealthServer
from streamgen.metrics import Metrics

log = structlog.get_logger()


@contextmanager
def serving(
    config: Config, metrics: Metrics, health: Health, what: str, worker: str, device: str
) -> Iterator[None]:
    """A server as `metrics` of the configuration says, none where it names no port. `what` and `worker` name
    the process in the log."""
    with _server(config, metrics, health) as server:
        address = None if server is None else f"http://{config.metrics.host}:{server.port}"
        log.info(f"{what} started", worker=worker, device=device, metrics=address)
        yield
        log.info(f"{what} ended", worker=worker)


def _server(
    config: Config, metrics: Metrics, health: Health
) -> AbstractContextManager[HealthServer] | AbstractContextManager[None]:
    host, port = config.metrics.host, config.metrics.port
    if port is None:
        return nullcontext()
    try:
        return HealthServer(host, port, metrics.registry, health)
    except ConfigError:
        if "port" in config.metrics.model_fields_set:
            raise
        # Nobody asked for this port, and another worker of this machine has it.
        log.warning("the usual metrics port is taken; another is used", port=port)
        return HealthServer(host, 0, metrics.registry, health)
