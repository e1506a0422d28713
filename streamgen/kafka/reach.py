"""Whether a broker can be reached and lets this user in, told within seconds.

The client tries again for long when nothing listens, or when it is refused, which is right for a worker that
runs and wrong for a person who mistyped a port or a password.
"""

from __future__ import annotations

import socket

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, ConfigError

TIMEOUT_S = 3.0


def reach(kafka: KafkaConfig) -> str:
    """The first of the bootstrap servers that accepts a connection and lets this user in, as host:port.

    Raises `BrokerUnavailable` when none accepts one, `PermissionDenied` when one refuses the user or its
    certificate, and `ConfigError` when one is not written as host:port or speaks another protocol.
    """
    from streamgen.kafka.signin import sign_in

    failures = []
    for server in (part.strip() for part in kafka.bootstrap_servers.split(",")):
        host, port = _split(server)
        try:
            connection = socket.create_connection((host, port), TIMEOUT_S)
        except OSError as error:
            failures.append(f"{server}: {error.strerror or error}")
            continue
        sign_in(kafka, host, port, connection)
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
