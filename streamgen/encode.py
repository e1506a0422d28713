"""Results to records: scores, episodes and dead letters as they are published.

A result goes to the partition that its record came from, with the record's own key and Kafka timestamp: the
broker took that one already (it refuses times far ahead of its clock), and deletes both at the same time. The
event time is in the body and in `ce_time`. Headers carry CloudEvents
attributes in binary mode; `ce_id` is a function of the record's place in the log, so that a reader can
recognise a result that it has seen. Bodies are JSON; a number that is not there is null.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from streamgen.config import InputConfig
from streamgen.learners.episodes import Episode, score_of
from streamgen.learners.task import Results
from streamgen.records import DeadLetter, Floats, Headers, Ints, OutputBatch, RawBatch, TopicPartition

_SCORE = ("score", "dev.streamgen.score.v1")
_EPISODE = ("episode", "dev.streamgen.episode.v1")


class Encoder:
    """Encodes one task's results. `application_id` and the source name each result."""

    def __init__(self, application_id: str, source: TopicPartition, config: InputConfig, model: str) -> None:
        self._source, self._model = source, model
        self._scores = TopicPartition(config.scores_topic, source.partition)
        self._anomalies = TopicPartition(config.anomalies_topic, source.partition)
        self._dlq = TopicPartition(config.dlq_topic, source.partition)
        self._json = msgspec.json.Encoder()
        self._place = f"{application_id}/{source.topic}/{source.partition}"
        self._ce_source = f"/streamgen/{self._place}".encode()

    def scores(self, raw: RawBatch, results: Results, features: Sequence[str], start: int) -> OutputBatch:
        """One record for each result whose row is at `start` or later."""
        columns, scores, verdicts = results.columns, results.scores, results.verdicts
        s = slice(start, None)
        encode, topic, partition = self._json.encode, self._source.topic, self._source.partition
        times, offsets = iso(columns.timestamp_N[s]), columns.offset_N[s].tolist()
        missing_ND = np.isnan(columns.value_ND[s])
        values: list[bytes | None] = [
            encode(
                {
                    "key": key,
                    "timestamp": time,
                    "score": score,
                    "p_value": p_value,
                    "nll": nll,
                    "is_anomaly": is_anomaly,
                    "threshold": threshold,
                    "warming_up": warming_up,
                    "late": late,
                    "expected": dict(zip(features, expected, strict=True)),
                    "interval": dict(zip(features, zip(low, high, strict=True), strict=True)),
                    "contributions": dict(zip(features, contributions, strict=True)),
                    "imputed": [f for f, gone in zip(features, missing, strict=True) if gone],
                    "model": self._model,
                    "step": step,
                    "source": {"topic": topic, "partition": partition, "offset": offset},
                }
            )
            for (
                key, time, score, p_value, nll, is_anomaly, threshold, warming_up, late, expected, low, high,
                contributions, missing, step, offset,
            ) in zip(
                columns.key[s], times, score_of(results.p_N[s]).tolist(), results.p_N[s].tolist(),
                scores.nll_N[s].tolist(), verdicts.is_anomaly_N[s].tolist(),
                score_of(np.maximum(verdicts.alpha_N[s], 1e-300)).tolist(), verdicts.warming_up_N[s].tolist(),
                results.ticks.late_N[s].tolist(), scores.expected_ND[s].tolist(), scores.low_ND[s].tolist(),
                scores.high_ND[s].tolist(), scores.contribution_ND[s].tolist(), missing_ND.tolist(),
                scores.step_N[s].tolist(), offsets, strict=True,
            )
        ]  # fmt: skip
        raw_N = columns.raw_N[s]
        keys = [raw.key[n] for n in raw_N.tolist()]
        headers = [self._headers(*_SCORE, offset, time) for offset, time in zip(offsets, times, strict=True)]
        return OutputBatch(self._scores, raw.timestamp_N[raw_N].tolist(), keys, values, headers)

    def episodes(self, raw: RawBatch, results: Results, features: Sequence[str], start: int) -> OutputBatch:
        """One record for each episode that a result at `start` or later opened or closed."""
        episodes = [episode for episode in results.verdicts.episodes if episode.n >= start]
        columns = results.columns
        batch = OutputBatch(self._anomalies, [], [], [], [])
        for episode in episodes:
            time, row = int(columns.timestamp_N[episode.n]), int(columns.raw_N[episode.n])
            batch.timestamp.append(int(raw.timestamp_N[row]))
            batch.key.append(raw.key[row])
            batch.value.append(self._json.encode(self._episode(episode, features)))
            name, kind = _EPISODE[0] + "." + episode.kind, _EPISODE[1]
            offset = int(columns.offset_N[episode.n])
            batch.headers.append(self._headers(name, kind, offset, one_iso(time)))
        return batch

    def dead_letters(self, raw: RawBatch, dead: Sequence[DeadLetter]) -> OutputBatch:
        """See `add_dead_letter`."""
        batch = OutputBatch(self._dlq, [], [], [], [])
        for n, reason, detail in dead:
            add_dead_letter(batch, raw, n, reason, detail)
        return batch

    def _episode(self, episode: Episode, features: Sequence[str]) -> dict[str, object]:
        order = np.argsort(-np.nan_to_num(episode.peak_contribution_D), kind="stable").tolist()
        return {
            "id": f"{self._place}/{episode.opened_offset}",
            "event": episode.kind,
            "key": episode.key,
            "opened": one_iso(episode.opened_ms),
            "closed": None if episode.closed_ms is None else one_iso(episode.closed_ms),
            "anomalies": episode.records,
            "peak": {
                "score": float(score_of(np.array([episode.peak_p]))[0]),
                "p_value": episode.peak_p,
                "timestamp": one_iso(episode.peak_ms),
                "value": _named(features, episode.peak_value_D),
                "expected": _named(features, episode.peak_expected_D),
                "contributions": _named(features, episode.peak_contribution_D),
            },
            "features": [features[d] for d in order],
            "model": self._model,
            "source": {
                "topic": self._source.topic,
                "partition": self._source.partition,
                "offset": episode.opened_offset,
            },
        }

    def _headers(self, name: str, kind: str, offset: int, time: str) -> Headers:
        return [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{self._place}/{offset}/{name}".encode()),
            ("ce_source", self._ce_source),
            ("ce_type", kind.encode()),
            ("ce_time", time.encode()),
            ("content-type", b"application/json"),
        ]


def iso(time_N: Ints) -> list[str]:
    """Milliseconds since 1970 as RFC 3339 in UTC."""
    texts: list[str] = np.datetime_as_string(time_N.astype("datetime64[ms]"), timezone="UTC").tolist()
    return texts


def one_iso(time: int) -> str:
    """`iso` of one time."""
    return iso(np.array([time]))[0]


def _named(features: Sequence[str], value_D: Floats) -> dict[str, float]:
    return dict(zip(features, value_D.tolist(), strict=True))


def add_dead_letter(batch: OutputBatch, raw: RawBatch, n: int, reason: str, detail: str) -> None:
    """Row `n` as it came, and why it cannot be used in headers named as by KIP-1034."""
    why: Headers = [
        ("__streams.errors.exception", str(reason).encode()),
        ("__streams.errors.message", detail.encode("utf-8", "replace")),
        ("__streams.errors.topic", raw.source.topic.encode()),
        ("__streams.errors.partition", b"%d" % raw.source.partition),
        ("__streams.errors.offset", b"%d" % int(raw.offset_N[n])),
    ]
    batch.timestamp.append(max(int(raw.timestamp_N[n]), 0))
    batch.key.append(raw.key[n])
    batch.value.append(raw.value[n])
    batch.headers.append([*raw.headers[n], *why])
