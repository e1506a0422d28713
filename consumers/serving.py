"""Metrics and health over HTTP while a process works."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import structlog

from streamgen.config import Config
from streamgen.errors import ConfigError
from streamgen.health import Health, HealthServer
from streamgen.metrics import Metrics

log = structlog.get_logger()


def serving(
    config: Config, metrics: Metrics, health: Health
) -> AbstractContextManager[HealthServer] | AbstractContextManager[None]:
    """A server as `metrics` of the configuration says, None where it names no port."""
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
