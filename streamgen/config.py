"""The configuration: one YAML file, environment overrides, every key described here.

Only what changes learning enters a state's fingerprint (`InputConfig.fingerprint`); thresholds, budgets
and outputs change live.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaConfig(_Section):
    """How to reach the brokers. Security settings pass through to the client."""

    bootstrap_servers: str = Field("localhost:9092", description="Comma-separated host:port list.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism, with SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password; better from the environment.")
    ssl_cafile: str | None = Field(None, description="PEM file of the authority that signed the brokers.")
    ssl_certfile: str | None = Field(None, description="PEM file of this client's certificate (mutual TLS).")
    ssl_keyfile: str | None = Field(None, description="PEM file of this client's key (mutual TLS).")
    ssl_password: SecretStr | None = Field(None, description="Password of the key file.")
    ssl_check_hostname: bool = Field(True, description="Whether the broker's certificate must name its host.")


class KeyConfig(_Section):
    """Where a record's scope key comes from."""

    field: str | None = Field(
        None, description="Field (dotted path) that holds the key; absent: the record's own Kafka key."
    )


class TimestampConfig(_Section):
    """Where a record's event time comes from."""

    field: str | None = Field(
        None, description="Field (dotted path) that holds the time; absent: the record's Kafka timestamp."
    )
    unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        "auto", description="Unit of a numeric time; auto judges by its size."
    )
    timezone: str = Field("UTC", description="Time zone in which a time without one is read.")
    max_ahead: timedelta | None = Field(
        timedelta(days=1),
        description="A record further ahead of its own Kafka timestamp is dead-lettered; null: no limit.",
    )
    max_behind: timedelta | None = Field(
        None, description="A record further behind its own Kafka timestamp is dead-lettered; null: no limit."
    )


class WindowConfig(_Section):
    """What one training update looks at, per key."""

    length: int = Field(16, ge=2, le=1024, description="Records in a window (the chunk of one update).")
    stride: int | None = Field(None, ge=1, description="Records between windows; null: the length.")
    max_gap: timedelta | None = Field(
        None, description="Largest gap in event time that a window may span; null: no limit."
    )
    restart_after: int = Field(
        8, ge=1, description="After this many late records in a row the key's clock restarts there."
    )


class AnomalyConfig(_Section):
    """When a score is an anomaly. None of it changes learning."""

    alert_budget: float = Field(
        1.0, gt=0, description="Alerts a day (event time) and key that chance alone may cause."
    )
    warm_up: int = Field(256, ge=32, description="Scored records of a key before one may be an anomaly.")
    close_after: int = Field(8, ge=1, description="Records below the threshold that close an episode.")


class OutputConfig(_Section):
    """Topic names; null: derived from the input's."""

    scores: str | None = Field(None, description="Topic of the scores; null: <topic>.scores.")
    anomalies: str | None = Field(None, description="Topic of the episodes; null: <topic>.anomalies.")
    dlq: str | None = Field(None, description="Topic of the dead letters; null: <topic>.dlq.")


class InputConfig(_Section):
    """One input topic, and the model that learns it."""

    topic: str = Field(description="The topic to read.")
    format: str = Field("json", description="Record format: json or number.")
    features: list[str] | None = Field(
        None,
        description="Value fields (dotted paths); null: the numeric fields of the first usable record, pinned.",
    )
    key: KeyConfig = Field(KeyConfig(), description="Where the scope key comes from.")
    timestamp: TimestampConfig = Field(TimestampConfig(), description="Where the event time comes from.")
    window: WindowConfig = Field(WindowConfig(), description="What one training update looks at.")
    max_bytes: int = Field(1_000_000, ge=1, description="A larger record is dead-lettered.")
    start: str = Field("earliest", description="earliest, latest, or a time: where learning begins.")
    publish_from: str = Field(
        "first", description="first, now, or a time: learn silently before it, publish from it on."
    )
    model: dict[str, Any] = Field(
        {"name": "stream_ae"}, description="Model name and its settings (docs/models.md)."
    )
    anomaly: AnomalyConfig = Field(AnomalyConfig(), description="When a score is an anomaly.")
    outputs: OutputConfig = Field(OutputConfig(), description="Topic names.")

    @property
    def scores_topic(self) -> str:
        return self.outputs.scores or f"{self.topic}.scores"

    @property
    def anomalies_topic(self) -> str:
        return self.outputs.anomalies or f"{self.topic}.anomalies"

    @property
    def dlq_topic(self) -> str:
        return self.outputs.dlq or f"{self.topic}.dlq"

    def fingerprint(self, seed: int, features: tuple[str, ...]) -> str:
        """Names all that changes learning; a checkpoint of another fingerprint is refused."""
        learning = self.model_dump(
            mode="json",
            include={"format", "key", "timestamp", "window", "max_bytes", "model", "topic"},
        )
        learning["seed"], learning["features"] = seed, list(features)
        return hashlib.sha256(json.dumps(learning, sort_keys=True).encode()).hexdigest()[:16]


class StateConfig(_Section):
    """Checkpoints."""

    directory: str = Field("streamgen-state", description="Where checkpoints are kept, one folder a task.")
    every_records: int = Field(50_000, ge=1, description="Records of a task between checkpoints.")
    every_seconds: float = Field(60.0, gt=0, description="Seconds between checkpoints of a task.")


class MetricsConfig(_Section):
    """Prometheus metrics and health."""

    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int | None = Field(9464, ge=0, le=65535, description="Port; 0 picks a free one; null: no server.")


class Config(_Section):
    """The whole configuration of a worker."""

    application_id: str = Field(
        "streamgen", pattern=r"^[A-Za-z0-9._-]+$",
        description="Consumer group, and prefix of internal topics and transactional ids.",
    )
    kafka: KafkaConfig = Field(KafkaConfig(), description="How to reach the brokers.")
    inputs: list[InputConfig] = Field(min_length=1, description="The topics to learn.")
    seed: int = Field(0, ge=0, description="Seed of all noise; part of the state.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models live.")
    commit_interval_ms: int = Field(100, ge=0, description="The most that a result waits for its commit.")
    state: StateConfig = Field(StateConfig(), description="Checkpoints.")
    metrics: MetricsConfig = Field(MetricsConfig(), description="Prometheus metrics and health.")
