"""From our configuration to the client's, and from the client's errors to ours."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import errors

from streamgen.config import KafkaConfig
from streamgen.errors import (
    BrokerUnavailable,
    ConfigError,
    Fenced,
    PermissionDenied,
    Rebalanced,
    StopError,
    StreamgenError,
    TopicError,
)

BOOTSTRAP_TIMEOUT_MS = 10_000

_DENIED = (errors.AuthorizationError, errors.SaslAuthenticationFailedError)
# The claim of this process on its partitions or on its transactional id is void.
_FENCED = (
    errors.ProducerFencedError,
    errors.InvalidProducerEpochError,
    errors.FencedInstanceIdError,
)
# The group moved on since the metadata was captured. Whether this member is still in it, and with which
# partitions, the next poll tells: what it keeps is still its own (KIP-429), and is sent again.
_REBALANCED = (
    errors.CommitFailedError,
    errors.UnknownMemberIdError,
    errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
)
_UNAVAILABLE = (errors.RetriableError, errors.BrokerNotAvailableError, errors.UnknownBrokerIdError)


def client_settings(kafka: KafkaConfig) -> dict[str, Any]:
    """Keyword arguments that every client of kafka-python takes; they hold secrets: never log them."""
    settings: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        # With the client's default of 30 s a worker stays away long after the broker is back.
        "reconnect_backoff_max_ms": 1000,
        "security_protocol": kafka.security_protocol,
        "ssl_check_hostname": kafka.ssl_check_hostname,
        "ssl_cafile": kafka.ssl_cafile,
        "ssl_certfile": kafka.ssl_certfile,
        "ssl_keyfile": kafka.ssl_keyfile,
        "ssl_password": kafka.ssl_password.get_secret_value() if kafka.ssl_password else None,
    }
    if kafka.security_protocol.startswith("SASL"):
        settings |= {
            "sasl_mechanism": kafka.sasl_mechanism or "PLAIN",
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        }
    return settings


def translate(error: errors.KafkaError, doing: str) -> StreamgenError:
    """Our error for the client's, by how one recovers; `doing` says what was tried ("reading orders")."""
    said = str(error)  # begins with the error's name
    if isinstance(error, _DENIED):
        return PermissionDenied(
            f"The broker refused {doing} ({said}). Check the user, its password and its rights (ACLs)."
        )
    if isinstance(error, _FENCED):
        return Fenced(f"Another worker took over while {doing} ({said}).")
    if isinstance(error, _REBALANCED):
        return Rebalanced(f"The group rebalanced while {doing} ({said}).")
    if isinstance(error, errors.UnknownTopicOrPartitionError | errors.InvalidTopicError):
        return TopicError(
            f"A topic does not exist, found when {doing} ({said}). Create it, or correct its name."
        )
    if isinstance(error, errors.InvalidSessionTimeoutError):
        return ConfigError(
            f"The broker takes no such kafka.session_timeout_ms ({said}). Choose one between its "
            "group.min.session.timeout.ms and group.max.session.timeout.ms."
        )
    # The bare error is what the client makes of a transactional request whose answer was lost.
    if isinstance(error, _UNAVAILABLE) or type(error) is errors.KafkaError:
        return BrokerUnavailable(
            f"No broker answered in time when {doing} ({said}). Check kafka.bootstrap_servers, the network, "
            "and with SASL whether the password was changed: the client takes a refused one for silence."
        )
    if isinstance(error, errors.KafkaConfigurationError):
        return ConfigError(f"The client refused its settings when {doing} ({said}).")
    return StopError(f"Kafka failed when {doing} ({said}).")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors for the client's inside the block."""
    try:
        yield
    except errors.KafkaError as error:
        raise translate(error, doing) from error
    except ssl.SSLError as error:
        raise ConfigError(f"TLS failed when {doing} ({error}). Check the kafka.ssl_* settings.") from error
    except FileNotFoundError as error:
        raise ConfigError(f"A file of the kafka.ssl_* settings is missing ({error.filename}).") from error
