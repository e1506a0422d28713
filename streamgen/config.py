"""The configuration: one YAML file, environment overrides, every key described here.

Only what changes learning enters a state's fingerprint (`InputConfig.fingerprint`); thresholds, budgets
and outputs change live.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from streamgen.times import Duration, PositiveDuration, time_ms


def _zone(name: str) -> str:
    # ZoneInfo raises KeyError for an unknown name, ValueError for one that leaves the database's folder,
    # OSError for a folder ("America").
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        near = get_close_matches(name, available_timezones(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ", such as UTC or Europe/Berlin"
        raise ValueError(f"not a time zone of the IANA database{hint}") from None
    return name


Zone = Annotated[str, AfterValidator(_zone)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads true as 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("must not be true or false")
        return value


class KafkaConfig(_Section):
    """How to reach the brokers. Security settings pass through to the client."""

    bootstrap_servers: str = Field(default="localhost:9092", description="Comma-separated host:port list.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="How to talk to the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="SASL mechanism, with SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_username: str | None = Field(default=None, description="SASL user.")
    sasl_password: SecretStr | None = Field(
        default=None, description="SASL password; better from the environment."
    )
    ssl_cafile: str | None = Field(
        default=None, description="PEM file of the authority that signed the brokers."
    )
    ssl_certfile: str | None = Field(
        default=None, description="PEM file of this client's certificate (mutual TLS)."
    )
    ssl_keyfile: str | None = Field(default=None, description="PEM file of this client's key (mutual TLS).")
    ssl_password: SecretStr | None = Field(default=None, description="Password of the key file.")
    ssl_check_hostname: bool = Field(
        default=True, description="Whether the broker's certificate must name its host."
    )

    static_membership: bool = Field(
        default=False,
        description="Whether a worker that comes back within the session timeout under its --worker-id keeps "
        "its partitions without a rebalance (KIP-345).",
    )
    session_timeout_ms: int = Field(
        default=45_000,
        ge=1_000,
        description="A worker that is not heard of for so long loses its partitions.",
    )

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> Self:
        if self.security_protocol.startswith("SASL_"):
            needed = ("sasl_mechanism", "sasl_username", "sasl_password")
            absent = [name for name in needed if getattr(self, name) is None]
            if absent:
                raise ValueError(f"security_protocol {self.security_protocol} needs {', '.join(absent)} too")
        return self


class KeyConfig(_Section):
    """Where a record's scope key comes from."""

    field: str | None = Field(
        default=None,
        description="Field (dotted path) that holds the key; absent: the record's own Kafka key.",
    )


class TimestampConfig(_Section):
    """Where a record's event time comes from."""

    field: str | None = Field(
        default=None,
        description="Field (dotted path) that holds the time; absent: the record's Kafka timestamp.",
    )
    unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        default="auto", description="Unit of a numeric time; auto judges by its size."
    )
    timezone: Zone = Field(default="UTC", description="Time zone in which a time without one is read.")
    max_ahead: Duration | None = Field(
        default=timedelta(days=1),
        description="A record further ahead of its own Kafka timestamp is dead-lettered; null: no limit.",
    )
    max_behind: Duration | None = Field(
        default=None,
        description="A record further behind its own Kafka timestamp is dead-lettered; null: no limit.",
    )


class WindowConfig(_Section):
    """What one training update looks at, per key."""

    length: int = Field(
        default=16, ge=2, le=1024, description="Records in a window (the chunk of one update)."
    )
    stride: int | None = Field(
        default=None, ge=1, description="Records between windows, at most the length; null: the length."
    )
    max_gap: PositiveDuration | None = Field(
        default=None, description="Largest gap in event time that a window may span; null: no limit."
    )
    restart_after: int = Field(
        default=8, ge=1, description="After this many late records in a row the key's clock restarts there."
    )

    @model_validator(mode="after")
    def _no_record_between_windows(self) -> Self:
        if self.stride is not None and self.stride > self.length:
            raise ValueError(f"stride is {self.stride}; allowed: at most the length, {self.length}")
        return self


class AnomalyConfig(_Section):
    """When a score is an anomaly. None of it changes learning."""

    alert_budget: float = Field(
        default=1.0, gt=0, description="Alerts a day (event time) and key that chance alone may cause."
    )
    warm_up: int = Field(
        default=256, ge=32, description="Scored records of a key before one may be an anomaly."
    )
    close_after: int = Field(
        default=8, ge=1, description="Records below the threshold that close an episode."
    )


class OutputConfig(_Section):
    """Topic names; null: derived from the input's."""

    scores: str | None = Field(default=None, description="Topic of the scores; null: <topic>.scores.")
    anomalies: str | None = Field(default=None, description="Topic of the episodes; null: <topic>.anomalies.")
    dlq: str | None = Field(default=None, description="Topic of the dead letters; null: <topic>.dlq.")
    generated: str | None = Field(
        default=None, description="Topic of generated sequences; null: <topic>.generated."
    )
    generate: str | None = Field(
        default=None, description="Topic of requests for sequences; null: <topic>.generate."
    )
    generate_dlq: str | None = Field(
        default=None, description="Topic of requests that cannot be answered; null: <topic>.generate.dlq."
    )


class GenerateConfig(_Section):
    """Sequences that `streamgen publish` publishes at a rate."""

    every: PositiveDuration | None = Field(
        default=None, description="Time between them; null: only on request."
    )
    kind: Literal["continue", "prior"] = Field(
        default="continue", description="Sequences that go on from now, or of any time."
    )
    length: int = Field(default=100, ge=1, le=10_000, description="Records of a sequence.")
    count: int = Field(default=1, ge=1, le=1_000, description="Sequences of each key.")
    keys: list[str] | None = Field(
        default=None, min_length=1, description="Whose; null: of every key that has a learner."
    )

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if self.length * self.count > 100_000:
            raise ValueError(
                f"length times count is {self.length * self.count} records; allowed: at most 100000"
            )
        return self


class InputConfig(_Section):
    """One input topic, and the model that learns it."""

    topic: str = Field(min_length=1, description="The topic to read.")
    format: str = Field(default="json", description="Record format: json or number.")
    features: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Value fields (dotted paths); null: the numeric fields of the first usable record, kept.",
    )
    key: KeyConfig = Field(default=KeyConfig(), description="Where the scope key comes from.")
    timestamp: TimestampConfig = Field(
        default=TimestampConfig(), description="Where the event time comes from."
    )
    window: WindowConfig = Field(default=WindowConfig(), description="What one training update looks at.")
    min_records: int = Field(
        default=4, ge=1, le=1000, description="A key gets a learner with this record of it, not before."
    )
    key_ttl: PositiveDuration | None = Field(
        default=None, description="A key silent for longer, in event time, is forgotten; null: never."
    )
    max_resident: int | None = Field(
        default=None, ge=1, description="Learners of a partition in memory, others on disk; null: all."
    )
    max_bytes: int = Field(default=1_000_000, ge=1, description="A larger record is dead-lettered.")
    start: str = Field(default="earliest", description="earliest, latest, or a time: where learning begins.")
    publish_from: str = Field(
        default="first", description="first, now, or a time: learn silently before it, publish from it on."
    )
    on_log_gap: Literal["fail", "continue"] = Field(
        default="fail",
        description="When the topic no longer has records that are needed (retention, or it was made anew): "
        "stop and say what is lost, or go on without them.",
    )
    model: dict[str, Any] = Field(
        default={"name": "stream_ae"}, description="Model name and its settings (docs/models.md)."
    )
    anomaly: AnomalyConfig = Field(default=AnomalyConfig(), description="When a score is an anomaly.")
    outputs: OutputConfig = Field(default=OutputConfig(), description="Topic names.")
    generate: GenerateConfig = Field(
        default=GenerateConfig(), description="Sequences that are published at a rate."
    )

    @field_validator("features")
    @classmethod
    def _features_differ(cls, features: list[str] | None) -> list[str] | None:
        for name in features or ():
            if features and features.count(name) > 1:
                raise ValueError(f"the feature {name!r} is named twice")
        return features

    @field_validator("model")
    @classmethod
    def _model_has_name(cls, model: dict[str, Any]) -> dict[str, Any]:
        return {"name": "stream_ae", **model}

    @model_validator(mode="after")
    def _times_are_times(self) -> Self:
        for key, words in (("start", ("earliest", "latest")), ("publish_from", ("first", "now"))):
            text = getattr(self, key)
            if text not in words and time_ms(text, self.timestamp.timezone) is None:
                raise ValueError(
                    f"{key} is {text!r}; allowed: {', '.join(words)}, or an ISO 8601 time "
                    "such as 2024-05-01T00:00:00Z"
                )
        return self

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        # A worker that reads what it writes would never come to an end of it.
        names = [self.topic, self.scores_topic, self.anomalies_topic, self.dlq_topic]
        names += [self.generated_topic, self.generate_topic, self.generate_dlq_topic]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the topic {name!r} has two uses; the input and its outputs must differ")
        return self

    @property
    def scores_topic(self) -> str:
        return self.outputs.scores or f"{self.topic}.scores"

    @property
    def anomalies_topic(self) -> str:
        return self.outputs.anomalies or f"{self.topic}.anomalies"

    @property
    def dlq_topic(self) -> str:
        return self.outputs.dlq or f"{self.topic}.dlq"

    @property
    def generated_topic(self) -> str:
        return self.outputs.generated or f"{self.topic}.generated"

    @property
    def generate_topic(self) -> str:
        return self.outputs.generate or f"{self.topic}.generate"

    @property
    def generate_dlq_topic(self) -> str:
        return self.outputs.generate_dlq or f"{self.topic}.generate.dlq"

    def learning(self, seed: int, features: tuple[str, ...]) -> dict[str, Any]:
        """All that changes learning, as JSON: what the state of one configuration is worth to another."""
        changes = {
            "format",
            "key",
            "timestamp",
            "window",
            "max_bytes",
            "model",
            "topic",
            "min_records",
            "key_ttl",
        }
        kept = self.model_dump(mode="json", include=changes)
        return {**kept, "seed": seed, "features": list(features)}

    def fingerprint(self, seed: int, features: tuple[str, ...]) -> str:
        """A hash of `learning`; a checkpoint of another fingerprint is refused."""
        learning = json.dumps(self.learning(seed, features), sort_keys=True)
        return hashlib.sha256(learning.encode()).hexdigest()[:16]


class ImagesConfig(_Section):
    """A topic of images that `streamgen images run` learns, batch after batch."""

    topic: str | None = Field(
        default=None, min_length=1, description="The topic to read: each value is an image file; null: none."
    )
    model: dict[str, Any] = Field(
        default={"name": "vae"},
        description="Model name and its settings (docs/models.md); steps: of a batch.",
    )
    size: int | None = Field(
        default=None, ge=16, le=128, description="Pixels of a side; null: those of the topic's first image."
    )
    colours: Literal["auto", "grey", "colour"] = Field(
        default="auto", description="auto: grey if every image of the first batch is, else colour."
    )
    batch: int = Field(default=2000, ge=100, le=1_000_000, description="Images that make a batch.")
    checkpoint_steps: int = Field(
        default=500, ge=1, description="Steps after which a training is looked at and stored."
    )
    store: str = Field(
        default="streamgen-images", description="Folder or fsspec URL (file://, s3://) of the model."
    )
    dlq: str | None = Field(default=None, description="Topic of what is no image; null: <topic>.dlq.")
    on_log_gap: Literal["fail", "continue"] = Field(
        default="fail", description="When records that come next are gone: stop, or go on without them."
    )

    @field_validator("model")
    @classmethod
    def _model_has_name(cls, model: dict[str, Any]) -> dict[str, Any]:
        return {"name": "vae", **model}

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        if self.topic == self.dlq_topic:
            raise ValueError(f"the topic {self.topic!r} has two uses; the input and its dlq must differ")
        return self

    @property
    def dlq_topic(self) -> str:
        return self.dlq or f"{self.topic}.dlq"


class StateConfig(_Section):
    """Checkpoints."""

    store: str = Field(
        default="kafka",
        description="kafka: the compacted topic <application_id>-state; or a directory or fsspec URL "
        "(file://, s3://) that all workers share.",
    )
    directory: str = Field(
        default="streamgen-state",
        description="Local folder in which workers of this machine hold names.",
    )
    every_records: int = Field(default=50_000, ge=1, description="Records of a task between checkpoints.")
    every_seconds: float = Field(default=60.0, gt=0, description="Seconds between checkpoints of a task.")


class MetricsConfig(_Section):
    """Prometheus metrics and health."""

    host: str = Field(default="127.0.0.1", description="Address to bind.")
    port: int | None = Field(
        default=9464, ge=0, le=65535, description="Port; 0 picks a free one; null: no server."
    )


class Config(_Section):
    """The whole configuration of a worker."""

    application_id: str = Field(
        default="streamgen",
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Consumer group, and prefix of internal topics and transactional ids.",
    )
    kafka: KafkaConfig = Field(default=KafkaConfig(), description="How to reach the brokers.")
    inputs: list[InputConfig] = Field(default=[], description="The topics to learn.")
    images: ImagesConfig = Field(default=ImagesConfig(), description="A topic of images.")
    seed: int = Field(default=0, ge=0, description="Seed of all noise; part of the state.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where models live.")
    commit_interval_ms: int = Field(
        default=100, ge=0, description="The most that a result waits for its commit."
    )
    state: StateConfig = Field(default=StateConfig(), description="Checkpoints.")
    metrics: MetricsConfig = Field(default=MetricsConfig(), description="Prometheus metrics and health.")

    @field_validator("inputs")
    @classmethod
    def _topics_differ(cls, inputs: list[InputConfig]) -> list[InputConfig]:
        topics = [one.topic for one in inputs]
        for topic in topics:
            if topics.count(topic) > 1:
                raise ValueError(f"the topic {topic!r} is listed twice; give each topic one entry")
        return inputs

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.inputs and self.images.topic is None:
            raise ValueError("inputs is missing: name at least one topic")
        return self
