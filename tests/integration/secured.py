"""A Kafka that trusts nobody: TLS, three ways to sign in, and rights (ACLs) that must be granted one by one.

Certificates are made here, so that no other program is needed. On the broker's plain listener, which only
the tests know, everybody is a super user.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from streamgen.config import KafkaConfig
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.client import client_settings

PASSWORD = "correct-Horse-battery-$tqple"  # to be recognised wherever it must not be
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
# One user for each way to sign in, so that rights of one cannot help another.
USERS = {"PLAIN": "user-plain", "SCRAM-SHA-256": "user-256", "SCRAM-SHA-512": "user-512"}
CERTIFIED = "user-tls"  # the common name of the client's certificate

_LOGIN = "org.apache.kafka.common.security"
_PROPERTIES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",  # whoever speaks on the plain listeners
    "sasl.enabled.mechanisms": ",".join(USERS),
    "listener.name.sasl_ssl.plain.sasl.jaas.config": (
        f'{_LOGIN}.plain.PlainLoginModule required user_{USERS["PLAIN"]}="{PASSWORD}";'
    ),
    **{
        f"listener.name.sasl_ssl.{mechanism.lower()}.sasl.jaas.config": (
            f"{_LOGIN}.scram.ScramLoginModule required;"
        )
        for mechanism in SCRAM
    },
    "listener.name.ssl.ssl.client.auth": "required",
    "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
}


class Secured:
    """The running broker, and how its users reach it."""

    def __init__(self, broker: EmbeddedBroker, folder: Path) -> None:
        self.broker, self.folder = broker, folder
        self.inner = KafkaConfig(bootstrap_servers=broker.bootstrap_servers)  # a super user

    def sasl(self, mechanism: str = "SCRAM-SHA-512", **changes: object) -> KafkaConfig:
        """As one of `USERS`, over TLS."""
        settings: dict[str, object] = {
            "bootstrap_servers": self.broker.address("SASL_SSL"),
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_username": USERS[mechanism],
            "sasl_password": PASSWORD,
            "ssl_cafile": str(self.folder / "ca.pem"),
        }
        return KafkaConfig.model_validate(settings | changes)

    def mutual_tls(self, **changes: object) -> KafkaConfig:
        """As `CERTIFIED`, by a certificate."""
        settings: dict[str, object] = {
            "bootstrap_servers": self.broker.address("SSL"),
            "security_protocol": "SSL",
            "ssl_cafile": str(self.folder / "ca.pem"),
            "ssl_certfile": str(self.folder / "client.pem"),
            "ssl_keyfile": str(self.folder / "client.key"),
            "ssl_password": PASSWORD,
        }
        return KafkaConfig.model_validate(settings | changes)

    @contextmanager
    def granted(self, acls: list[ACL]) -> Iterator[None]:
        """These rights inside the block, and none after it."""
        with KafkaAdminClient(**client_settings(self.inner)) as admin:
            assert not admin.create_acls(acls)["failed"]
        try:
            yield
        finally:
            self.take_away(acls)

    def take_away(self, acls: list[ACL]) -> None:
        with KafkaAdminClient(**client_settings(self.inner)) as admin:
            admin.delete_acls(acls)

    def read(self, topic: str) -> list[Any]:
        """`read_committed_values`, as a super user."""
        return read_committed_values(self.inner, topic)

    def send(self, topic: str, count: int) -> None:
        """Records `{"a": 0}`, `{"a": 1}`, …, as a super user."""
        producer = KafkaProducer(**client_settings(self.inner))
        for n in range(count):
            producer.send(topic, value=b'{"a": %d}' % n)
        producer.close()


def read_committed_values(kafka: KafkaConfig, topic: str) -> list[Any]:
    """Partition by partition as they come; none when there is no topic."""
    consumer = KafkaConsumer(
        **client_settings(kafka), isolation_level="read_committed", enable_auto_commit=False
    )
    try:
        partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
        if not partitions:
            return []
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        end, found = consumer.end_offsets(partitions), []
        while any(consumer.position(partition) < end[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=50).values():
                found += [record.value for record in records]
        return found
    finally:
        consumer.close()


def acl(user: str, resource: str, name: str, pattern: str, operation: str) -> ACL:
    """One right, its parts as the kafka-acls tool names them (Topic, orders, literal, Read)."""
    kind = "TRANSACTIONAL_ID" if resource == "TransactionalId" else resource.upper()
    snake = "".join(f"_{c}" if c.isupper() and n else c for n, c in enumerate(operation)).upper()
    return ACL(
        principal=f"User:{user}",
        host="*",
        operation=ACLOperation[snake],
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(ResourceType[kind], name, ACLResourcePatternType[pattern.upper()]),
    )


@contextmanager
def secured_broker(folder: Path) -> Iterator[Secured]:
    """A running one, its certificates in `folder`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(server.private_key_pem.bytes(), None)
    # Java reads keys in this form only.
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(pkcs8 + b"".join(pem.bytes() for pem in server.cert_chain_pems))
    client = authority.issue_cert("client@localhost", common_name=CERTIFIED)
    client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
    key = load_pem_private_key(client.private_key_pem.bytes(), None)
    locked = BestAvailableEncryption(PASSWORD.encode())
    (folder / "client.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    stores = {
        "ssl.keystore.location": str(folder / "server.pem"),
        "ssl.truststore.location": str(folder / "ca.pem"),
    }
    users = [f"{mechanism}=[name={USERS[mechanism]},password={PASSWORD}]" for mechanism in SCRAM]
    options = [part for user in users for part in ("--add-scram", user)]
    with EmbeddedBroker(
        properties=_PROPERTIES | stores, protocols=("SASL_SSL", "SSL"), format_options=options
    ) as broker:
        yield Secured(broker, folder)
