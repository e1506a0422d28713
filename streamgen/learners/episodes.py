"""From p-values to anomalies and episodes: what a person or a pager gets.

A record is an anomaly when its p-value is at most α = `alert_budget` × (usual time between the key's records,
in days): by chance alone a key then alerts `alert_budget` times a day of event time. Consecutive anomalies
are one episode, open until `close_after` records in a row are none. N records, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from streamgen.config import AnomalyConfig
from streamgen.models.online import Scores
from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Columns, Floats, Ints
from streamgen.windows import Ticks

_DAY_MS = 86_400_000.0
LARGEST_ALPHA = 0.01  # a slow stream (a record a day) would otherwise alert on every record


def score_of(p_N: Floats) -> Floats:
    """Score in 0–1 of a p-value: L / (L + 3) with L = −log10 p. 0.5 is one in a thousand, and every factor
    of ten raises it; it never saturates, so that the rarest still rank."""
    rarity_N = 0.0 - np.log10(p_N)  # not -0.0 where p is 1
    return np.asarray(rarity_N / (rarity_N + 3.0))


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode when it opens or closes. Its peak is its most surprising record so far."""

    kind: Literal["opened", "closed"]
    n: int  # row in the batch of the record that opened or closed it
    key: str | None
    opened_offset: int  # names the episode together with topic and partition
    opened_ms: int
    closed_ms: int | None
    records: int  # anomalies in it
    peak_p: float
    peak_ms: int
    peak_value_D: Floats
    peak_expected_D: Floats
    peak_contribution_D: Floats


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`alpha_N` is each record's threshold on the p-value."""

    is_anomaly_N: Bools
    alpha_N: Floats
    warming_up_N: Bools
    episodes: list[Episode]


class Episodes:
    """Judges records and keeps each key's open episode."""

    def __init__(self, config: AnomalyConfig) -> None:
        self._config = config

    @staticmethod
    def fields(D: int) -> dict[str, Field]:
        """The open episode of a key; `episode_records` 0 means that none is open."""
        return {
            "episode_records": Field(dtype="int64"),
            "episode_quiet": Field(dtype="int64"),  # records since its last anomaly
            "episode_offset": Field(dtype="int64"),
            "episode_opened": Field(dtype="int64"),
            "episode_peak_p": Field(),
            "episode_peak_time": Field(dtype="int64"),
            "episode_peak_3D": Field((3, D)),  # value, expected, contribution
        }

    def judge(
        self,
        slab: Slab,
        row_N: Ints,
        columns: Columns,
        scores: Scores,
        p_N: Floats,
        ranked_N: Ints,
        ticks: Ticks,
    ) -> Verdicts:
        """Say which records are anomalies, and which episodes they open and close."""
        alpha_N = np.minimum(self._config.alert_budget * ticks.gap_N / _DAY_MS, LARGEST_ALPHA)
        warming_up_N = ranked_N < self._config.warm_up
        is_anomaly_N = (p_N <= alpha_N) & ~warming_up_N & ~ticks.late_N
        open_N = slab.host("episode_records")[row_N] > 0
        episodes: list[Episode] = []
        # Only records of a key with an open episode, or that are anomalies, change anything.
        if is_anomaly_N.any() or open_N.any():
            for n, row in enumerate(row_N.tolist()):
                if not ticks.late_N[n]:
                    episode = self._step(slab, row, n, columns, scores, p_N, bool(is_anomaly_N[n]))
                    episodes += [] if episode is None else [episode]
        return Verdicts(is_anomaly_N, alpha_N, warming_up_N, episodes)

    def _step(
        self, slab: Slab, row: int, n: int, columns: Columns, scores: Scores, p_N: Floats, anomaly: bool
    ) -> Episode | None:
        records, quiet = slab.host("episode_records"), slab.host("episode_quiet")
        if anomaly:
            opens = records[row] == 0
            records[row] += 1
            quiet[row] = 0
            if opens:
                slab.host("episode_offset")[row] = columns.offset_N[n]
                slab.host("episode_opened")[row] = columns.timestamp_N[n]
            if opens or p_N[n] < slab.host("episode_peak_p")[row]:
                slab.host("episode_peak_p")[row] = p_N[n]
                slab.host("episode_peak_time")[row] = columns.timestamp_N[n]
                slab.host("episode_peak_3D")[row] = np.stack(
                    [columns.value_ND[n], scores.expected_ND[n], scores.contribution_ND[n]]
                )
            return self._event(slab, row, n, columns, "opened") if opens else None
        if records[row] == 0:
            return None
        quiet[row] += 1
        if quiet[row] < self._config.close_after:
            return None
        closed = self._event(slab, row, n, columns, "closed")
        records[row] = quiet[row] = 0
        return closed

    @staticmethod
    def _event(slab: Slab, row: int, n: int, columns: Columns, kind: Literal["opened", "closed"]) -> Episode:
        value_D, expected_D, contribution_D = np.array(slab.host("episode_peak_3D")[row])
        return Episode(
            kind=kind,
            n=n,
            key=columns.key[n],
            opened_offset=int(slab.host("episode_offset")[row]),
            opened_ms=int(slab.host("episode_opened")[row]),
            closed_ms=int(columns.timestamp_N[n]) if kind == "closed" else None,
            records=int(slab.host("episode_records")[row]),
            peak_p=float(slab.host("episode_peak_p")[row]),
            peak_ms=int(slab.host("episode_peak_time")[row]),
            peak_value_D=value_D,
            peak_expected_D=expected_D,
            peak_contribution_D=contribution_D,
        )
