"""Whether a broker can be reached at all, told within seconds.

The client tries again for long when nothing listens, which is right for a worker that runs and wrong for a
person who mistyped a port.
"""

from __future__ import annotations

import socket

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, ConfigError

TIMEOUT_S = 3.0


def reach(kafka: KafkaConfig) -> str:
    """The first of the bootstrap servers that accepts a connection, as host:port.

    Raises `BrokerUnavailable` when none does, and `ConfigError` when one is not written as host:port.
    """
    failures = []
    for server in (part.strip() for part in kafka.bootstrap_servers.split(",")):
        host, port = _split(server)
        try:
            socket.create_connection((host, port), TIMEOUT_S).close()
        except OSError as error:
            failures.append(f"{server}: {error.strerror or error}")
        else:
            return server
    raise BrokerUnavailable(
        f"No Kafka broker can be reached ({'; '.join(failures)}): start one (streamgen broker), or correct "
        "--bootstrap or kafka.bootstrap_servers."
    )


def _split(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"The bootstrap server {server!r} is not host:port, such as localhost:9092: correct --bootstrap "
            "or kafka.bootstrap_servers."
        )
    return host.strip("[]"), int(port)
