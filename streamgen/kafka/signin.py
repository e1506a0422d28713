"""Whether a broker lets this user in: TLS, SASL and one question, spoken over a socket of our own.

The client takes a refused password for a lost connection, and a listener of another protocol for silence:
it tries again until its time is up and says that no broker answered. Here every answer is seen.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from kafka import errors
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from streamgen.config import KafkaConfig
from streamgen.errors import BrokerUnavailable, ConfigError, PermissionDenied
from streamgen.kafka.client import client_settings

TIMEOUT_S = 10.0  # of one answer; a broker that is starting may take some


def sign_in(kafka: KafkaConfig, host: str, port: int, connection: socket.socket) -> None:
    """Sign in over an open connection to host:port, and forget it.

    Raises `PermissionDenied` when the broker refuses the user, its password or its certificate, `ConfigError`
    when the settings of TLS and SASL are not what it speaks, and `BrokerUnavailable` when it does not answer.
    """
    server = f"{host}:{port}"
    connection.settimeout(TIMEOUT_S)
    if kafka.security_protocol.endswith("SSL"):
        connection = _encrypted(kafka, host, server, connection)
    with connection:
        try:
            if kafka.security_protocol.startswith("SASL"):
                _authenticate(kafka, server, connection)
            else:
                _Questions(connection).ask(MetadataRequest[4](topics=[], allow_auto_topic_creation=False))
        except ssl.SSLError as error:  # with TLS 1.3 a client's certificate is judged after the handshake
            raise _refused_certificate(server, error) from error
        except (OSError, errors.KafkaError) as error:
            raise BrokerUnavailable(
                f"The server at {server} does not answer as Kafka does over {kafka.security_protocol} "
                f"({error or type(error).__name__}): its listener may want another kafka.security_protocol."
            ) from error


def _encrypted(kafka: KafkaConfig, host: str, server: str, connection: socket.socket) -> ssl.SSLSocket:
    context = tls_context(kafka)
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            f"The certificate of {server} is not trusted ({error.verify_message}): set kafka.ssl_cafile to "
            "the authority that signed it, and kafka.bootstrap_servers to a host that it names."
        ) from error
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):
            raise _refused_certificate(server, error) from error
        raise ConfigError(
            f"The server at {server} does not speak TLS ({error.reason}): correct kafka.security_protocol "
            f"({kafka.security_protocol}) or the port."
        ) from error
    except OSError as error:
        raise BrokerUnavailable(
            f"The server at {server} ended the connection during the TLS handshake ({error}): correct "
            f"kafka.security_protocol ({kafka.security_protocol}) or the port."
        ) from error


def tls_context(kafka: KafkaConfig) -> ssl.SSLContext:
    """As the client will make it. Raises `ConfigError` for a file that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = kafka.ssl_check_hostname
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(kafka, name)
        try:
            if file is not None:
                Path(file).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"kafka.{name} names {file}, which cannot be read: {error.strerror}."
            ) from error
    try:
        if kafka.ssl_cafile is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(kafka.ssl_cafile)
    except ssl.SSLError as error:
        raise ConfigError(
            f"kafka.ssl_cafile names {kafka.ssl_cafile}, which holds no certificate in PEM form."
        ) from error
    if kafka.ssl_certfile is not None:
        # Without one the library asks for it on the terminal.
        password = kafka.ssl_password.get_secret_value() if kafka.ssl_password else ""
        try:
            context.load_cert_chain(kafka.ssl_certfile, kafka.ssl_keyfile, password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"The client's certificate ({kafka.ssl_certfile}) and key ({kafka.ssl_keyfile}) cannot be "
                "used: both must be PEM, belong together, and kafka.ssl_password must open the key."
            ) from error
    return context


def _refused_certificate(server: str, error: ssl.SSLError) -> PermissionDenied:
    return PermissionDenied(
        f"The broker at {server} refused this client's certificate, or that it has none ({error.reason}): "
        "set kafka.ssl_certfile and kafka.ssl_keyfile to ones that an authority of the broker's has signed."
    )


def _authenticate(kafka: KafkaConfig, server: str, connection: socket.socket) -> None:
    questions, name = _Questions(connection), kafka.sasl_mechanism
    answer = questions.ask(SaslHandshakeRequest[1](mechanism=name))
    if answer.error_code:
        offered = ", ".join(answer.mechanisms) or "none"
        raise ConfigError(
            f"The broker at {server} does not take kafka.sasl_mechanism {name}; it takes: {offered}."
        )
    mechanism = get_sasl_mechanism(name)(host=server, **client_settings(kafka))
    while not mechanism.is_done():
        answer = questions.ask(SaslAuthenticateRequest[0](mechanism.auth_bytes()))
        if answer.error_code:
            raise PermissionDenied(
                f"The broker at {server} refused the user {kafka.sasl_username} with {name} "
                f"({answer.error_message}): correct kafka.sasl_username, the password or the mechanism."
            )
        mechanism.receive(answer.auth_bytes)


class _Questions:
    """One at a time, each with its answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._protocol = connection, KafkaProtocol(client_id="streamgen")

    def ask(self, request: Any) -> Any:
        """Raises OSError, or the client's errors for what is no answer of Kafka's."""
        self._protocol.send_request(request)
        self._connection.sendall(self._protocol.send_bytes())
        while True:
            received = self._connection.recv(65_536)
            if not received:
                raise ConnectionError("it ended the connection")
            for _, answer in self._protocol.receive_bytes(received):
                return answer
