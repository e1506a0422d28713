"""How likely a stored learner finds the rows of a file that it has not learned: nats per value, in the file's
own units (`models.likelihood`).

N rows, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamgen.csvfile import CsvRows
from streamgen.errors import InputError
from streamgen.generation import restored, stored
from streamgen.learners.results import chosen
from streamgen.learners.task import Task
from streamgen.records import Columns, Ints
from streamgen.state.checkpoint import Checkpoint

DRAWS = 64  # of a window's latent


@dataclass(slots=True)
class HeldOut:
    """What is known of all rows so far, as sums; the figures are per value.

    `learned` rows are not after the newest one that the state has seen, `unknown` ones are of keys without a
    learner: neither is judged. `windows` are of `length` rows; 0: the model has no latent of a window.
    """

    rows: int = 0
    learned: int = 0
    unknown: int = 0
    windows: int = 0
    length: int = 0
    values: int = 0
    _window_values: int = 0
    _log_p: float = 0.0
    _last_value: float = 0.0
    _elbo: float = 0.0
    _importance: float = 0.0

    @property
    def figures(self) -> dict[str, float]:
        """By name, nats per value; higher is better."""
        found = {
            "one step ahead": self._log_p / self.values,
            "one step ahead, last value": self._last_value / self.values,
        }
        if self.windows:
            found["windows, evidence lower bound"] = self._elbo / self._window_values
            found["windows, importance-weighted"] = self._importance / self._window_values
        return found

    def add(self, task: Task, key: str | None, columns: Columns, draws: int, seed: int) -> None:
        """Judge the rows of a key that follow its newest."""
        new_n = np.flatnonzero(columns.timestamp_N > task.standing(key).newest_ms)
        self.learned += len(columns) - len(new_n)
        self.rows += len(new_n)
        found = task.likelihood(key, chosen(columns, new_n), draws, seed)
        self.values += int(found.values_N.sum())
        self._log_p += float(found.log_p_N.sum())
        self._last_value += float(found.last_value_N.sum())
        if found.bounds is not None:
            self.windows += len(found.bounds.elbo_B)
            self.length = task.config.window.length
            self._window_values += int(found.bounds.values_B.sum())
            self._elbo += float(found.bounds.elbo_B.sum())
            self._importance += float(found.bounds.importance_B.sum())


def held_out(
    path: Path,
    directory: Path | str,
    timestamp_column: str | None = None,
    key_column: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    device: str = "cpu",
) -> HeldOut:
    """Judge the rows of a CSV file by the newest state under `directory`, each by its key's learner.

    The rows of a file without times follow what was learned. Without `key_column` all are of the learner of
    records without a key, or of the only one there is. `draws` are of the latent of each window.

    Raises `InputError` for a file or column that cannot be used, a model without a likelihood, or when there
    is nothing to judge, and `StateError` for a state that cannot be read.
    """
    states = stored(directory)
    topics = sorted({source.topic for source, _ in states})
    if len(topics) > 1:
        raise InputError(f"There are states of {len(topics)} topics under {directory}: {', '.join(topics)}.")
    found, features = HeldOut(), states[0][1].manifest.features
    rows = _rows(path, timestamp_column, key_column, features, max(_newest(one) for _, one in states))
    for source, checkpoint in states:
        learners = checkpoint.learners
        if key_column is None and None not in learners and len(learners) == len(states) == 1:
            rows = {next(iter(learners)): columns for columns in rows.values()}
        mine = [key for key in rows if key in learners]
        task = restored(source, checkpoint, mine, device)
        for key in mine:
            found.add(task, key, rows.pop(key), draws, seed)
    found.unknown = sum(map(len, rows.values()))
    if not found.values:
        raise InputError(
            f"No row of {path} can be judged by the state under {directory}: {found.learned} are not later "
            f"than what it has learned, and {found.unknown} are of keys without a learner."
        )
    return found


def _newest(checkpoint: Checkpoint) -> int:
    return int(checkpoint.manifest.facts.get("stream_time") or 0)


def _rows(
    path: Path, timestamp: str | None, key: str | None, features: tuple[str, ...], newest_ms: int
) -> dict[str | None, Columns]:
    """The rows with a value, by key."""
    file = CsvRows(path, timestamp, key, features)
    # Without times a row's is its number in seconds: it goes on where the file that was learned ended.
    later_ms = newest_ms + 1000 if file.timestamp_column is None else 0
    by_key: dict[str | None, list[int]] = {}
    keys: list[str | None] = []
    batches = list(file)
    value_ND = np.concatenate([batch.value_ND for batch in batches])
    time_N: Ints = np.concatenate([batch.time_ms_N for batch in batches]) + later_ms
    for batch in batches:
        keys.extend(batch.key)
    for n in np.flatnonzero(~np.isnan(value_ND).all(axis=1)).tolist():
        by_key.setdefault(keys[n], []).append(n)
    offset_N = np.arange(len(keys))
    whole = Columns(offset_N, time_N, keys, value_ND, offset_N)
    return {name: chosen(whole, np.array(mine)) for name, mine in by_key.items()}
