"""Answers to requests, as records: sequences in the input's own schema, and dead letters.

Shapes: S sequences of T records, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np
import structlog

from streamgen.config import InputConfig
from streamgen.encode import add_dead_letter, iso
from streamgen.errors import StateError, StreamgenError
from streamgen.formats import FORMATS
from streamgen.formats.eventtime import LATEST_MS
from streamgen.models.device import is_out_of_memory
from streamgen.publishing.following import Followed
from streamgen.publishing.requests import (
    MOST_VALUES,
    Refusal,
    Refused,
    Request,
    correlation_id,
    given,
)
from streamgen.records import Floats, Headers, OutputBatch, RawBatch, TopicPartition

log = structlog.get_logger()

TYPE = b"dev.streamgen.generated.v1"  # CloudEvents


@dataclass(frozen=True, slots=True)
class Answer:
    """Sequences, as records and as values [S, T, D]; when the state that they come from was stored (seconds
    since 1970), and the event time after which they go on, ms."""

    batch: OutputBatch
    drawn_STD: Floats
    written: float
    newest_ms: int


def answer(
    application_id: str,
    config: InputConfig,
    followed: Followed,
    request: Request,
    key: str | None,
    seed: int,
    id: str | None,
) -> Answer:
    """The sequences that `request` asks for, of the key's learner as it is at the partition's end.

    A function of the arguments and of the log up to `followed.next_offset`. Raises `Refused`.
    """
    with failures_are_refusals(followed.source):
        task, checkpoint = followed.learner(key)
        kind, source, manifest = request.checked_kind, followed.source, checkpoint.manifest
        if kind not in task.model.kinds:
            can = ", ".join(task.model.kinds) or "none: it only detects"
            raise Refused(
                Refusal.UNSUPPORTED,
                f"the model {task.model.name} gives no {kind} sequences, but {can}",
            )
        values = request.records * request.count * len(task.features)
        if values > MOST_VALUES:
            raise Refused(
                Refusal.TOO_LARGE,
                f"length times count times {len(task.features)} columns is {values}; allowed: at most "
                f"{MOST_VALUES}",
            )
        given_TD = given(request, task.config.format, task.features)
        standing, notation = task.standing(key), followed.notation
        first = 1 - request.records if kind == "impute" else 1
        times = notation.times(standing.newest_ms, standing.gap_ms, first, request.records)
        if times[-1] >= LATEST_MS or times[0] < 0:
            raise Refused(Refusal.BAD_LENGTH, "the sequence would leave the years 1970 to 2199")
        drawn_STD = task.generate(key, request.records, request.count, seed, kind, given_TD)
        if not np.isfinite(drawn_STD).all():
            raise Refused(Refusal.FAILED, "the model gave values that are not finite")
        kafka_key, whole_D = notation.kafka_key(key), standing.whole_D
        if given_TD is not None:
            # What is given may be something that the feature never was.
            whole_D = whole_D & (np.isnan(given_TD) | (np.round(given_TD) == given_TD)).all(0)
        headers: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_source", f"/streamgen/{application_id}/{source.topic}/{source.partition}".encode()),
            ("ce_type", TYPE),
            ("content-type", b"application/json" if FORMATS[config.format].named else b"text/plain"),
            ("streamgen_generated", b"true"),
            ("streamgen_kind", kind.encode()),
            ("streamgen_model", task.model.name.encode()),
            ("streamgen_step", b"%d" % standing.step),
            ("streamgen_count", b"%d" % len(drawn_STD)),
            ("streamgen_length", b"%d" % len(times)),
            ("streamgen_seed", b"%d" % seed),
            ("streamgen_state_offset", b"%d" % manifest.offset),
            ("streamgen_from_offset", b"%d" % followed.next_offset),
        ]
        if id is not None:
            headers.append(("streamgen_correlation_id", id.encode("utf-8", "replace")))
        place = f"{application_id}/{source.topic}/{source.partition}/{followed.next_offset}"
        # Not the id itself: it may be long, and there is one name a record.
        asked = hashlib.blake2b(msgspec.json.encode([request.digest, seed, id]), digest_size=12).hexdigest()
        name = f"{place}/generated/{manifest.offset}/{asked}"
        batch = OutputBatch(TopicPartition(config.generated_topic, source.partition), [], [], [], [])
        named = list(zip(times, iso(np.array(times)), strict=True))
        for s, drawn_TD in enumerate(drawn_STD):
            for t, (time_ms, time) in enumerate(named):
                batch.timestamp.append(notation.kafka_time(time_ms))
                batch.key.append(kafka_key)
                batch.value.append(notation.write(key, time_ms, drawn_TD[t], whole_D))
                batch.headers.append(
                    [
                        *headers,
                        ("ce_id", f"{name}/{s}/{t}".encode("utf-8", "replace")),
                        ("ce_time", time.encode()),
                        ("streamgen_sequence", b"%d" % s),
                        ("streamgen_record", b"%d" % t),
                    ]
                )
        return Answer(batch, drawn_STD, manifest.written, standing.newest_ms)


@contextmanager
def failures_are_refusals(source: TopicPartition) -> Iterator[None]:
    """What a model raises is an answer, and stops nothing; what is the machine's fault goes through.

    Too little memory is the request's fault: it says how much is drawn. Were it to end the publisher, the
    next one would end by the same request, and none behind it would ever be answered. Nor does a state of one
    partition that cannot be used, as that of another version, stop the requests of others.
    """
    try:
        yield
    except StateError as error:
        log.warning("a state cannot be used", source=str(source), reason=str(error))
        raise Refused(Refusal.NO_STATE, str(error)[:1000]) from error
    except (Refused, StreamgenError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            log.exception("a request did not fit into memory", source=str(source))
            raise Refused(
                Refusal.TOO_LARGE, "what was asked for did not fit into memory: ask for fewer or shorter ones"
            ) from None
        if isinstance(error, RuntimeError) and "CUDA" in str(error):  # torch has no type of its own for these
            raise
        log.exception("a request failed", source=str(source))
        raise Refused(Refusal.FAILED, f"the model failed: {type(error).__name__}: {error}"[:1000]) from error


def dead_letter(raw: RawBatch, n: int, target: TopicPartition, refused: Refused) -> OutputBatch:
    """A request as it came, and why it is not answered."""
    letter = OutputBatch(target, [], [], [], [])
    add_dead_letter(letter, raw, n, refused.reason, refused.detail)
    if (id := correlation_id(raw.value[n])) is not None:
        letter.headers[0].append(("streamgen_correlation_id", id.encode("utf-8", "replace")))
    return letter
