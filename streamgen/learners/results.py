"""What a task says of a batch of records. N records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from streamgen.learners.episodes import Verdicts
from streamgen.models.online import Scores
from streamgen.records import Columns, Floats, Ints
from streamgen.windows import Ticks, time_features

Part = TypeVar("Part", Scores, Verdicts, Ticks)


@dataclass(frozen=True, slots=True)
class Results:
    """One result for each record of `columns`."""

    columns: Columns
    scores: Scores
    p_N: Floats
    verdicts: Verdicts
    ticks: Ticks

    @classmethod
    def without_learner(cls, columns: Columns, surprises: int) -> Results:
        """Of records whose keys have no learner: what one with no opinion says (p 1, nothing expected)."""
        N, D = columns.value_ND.shape
        zero_N, no_N = np.zeros(N), np.zeros(N, dtype=np.bool_)
        time_NC = time_features(columns.timestamp_N, zero_N, zero_N)
        return cls(
            columns,
            Scores.empty(N, D, surprises),
            np.ones(N),
            Verdicts(no_N.copy(), zero_N.copy(), ~no_N, []),
            Ticks(no_N.copy(), no_N.copy(), no_N.copy(), zero_N, time_NC, columns.timestamp_N.copy()),
        )

    @classmethod
    def together(cls, columns: Columns, parts: Iterable[tuple[Ints, Results]], surprises: int) -> Results:
        """Of all records, from the results of some (their rows in `columns`, in order); the others have no
        learner."""
        whole = cls.without_learner(columns, surprises)
        for row_n, part in parts:
            whole.p_N[row_n] = part.p_N
            _place(part.scores, whole.scores, row_n)
            _place(part.verdicts, whole.verdicts, row_n)
            _place(part.ticks, whole.ticks, row_n)
            whole.verdicts.episodes.extend(
                replace(episode, n=int(row_n[episode.n])) for episode in part.verdicts.episodes
            )
        return whole


def _place(part: Part, whole: Part, row_n: Ints) -> None:
    for name in (field.name for field in fields(part)):
        of, to = getattr(part, name), getattr(whole, name)
        if isinstance(of, np.ndarray):
            to[row_n] = of
        elif name != "episodes":  # each names a record
            to.extend(of)


def chosen(columns: Columns, row_n: Ints) -> Columns:
    """The records of some rows."""
    return Columns(
        columns.offset_N[row_n],
        columns.timestamp_N[row_n],
        [columns.key[row] for row in row_n.tolist()],
        columns.value_ND[row_n],
        columns.raw_N[row_n],
    )
