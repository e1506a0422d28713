"""Without Kafka: the same tasks over a CSV file, in a single pass, each row scored before it is learned.

N rows of a batch, D value columns.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from streamgen.config import InputConfig, TimestampConfig
from streamgen.csvfile import CsvBatch, CsvRows
from streamgen.errors import InputError
from streamgen.learners.episodes import score_of
from streamgen.learners.results import Results
from streamgen.learners.snapshot import Snapshot
from streamgen.learners.task import Task
from streamgen.models.device import use_device
from streamgen.output import as_text, whole_file
from streamgen.records import Bools, Columns, TopicPartition
from streamgen.state.checkpoint import LearnerState, Manifest
from streamgen.state.files import FileStore

# Not the file's name: a file that is renamed keeps its scores, whose noise is drawn by the source's name.
SOURCE = TopicPartition("file", 0)
ROWS = 1000  # processed at once
COPIED_AT_ONCE = 16  # learners on their way to the store
Report = Callable[[float], None]  # is told the share that is done, 0 to 1


@dataclass(frozen=True, slots=True)
class Choice:
    """Columns of a CSV file; None: found as `CsvRows` says (a file has no key unless one is named)."""

    timestamp: str | None = None
    key: str | None = None
    values: tuple[str, ...] | None = None
    times: TimestampConfig = field(default_factory=TimestampConfig)

    @classmethod
    def of(cls, config: InputConfig) -> Choice:
        """The columns that an input of a configuration file names as fields."""
        features = None if config.features is None else tuple(config.features)
        return cls(config.timestamp.field, config.key.field, features, config.timestamp)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a pass over a file met."""

    rows: int
    unusable: int
    late: int
    anomalies: int
    keys: int


def detect_file(
    path: Path,
    out: Path,
    config: InputConfig,
    choice: Choice | None = None,
    seed: int = 0,
    device: str = "cpu",
    report: Report | None = None,
    rows: int = ROWS,
) -> Summary:
    """Score every row of a CSV file and write the scores as CSV, one row for each, in the same order.

    Columns: `timestamp` and `key` as given (where the file has them), `score` (0 to 1), `p_value`,
    `is_anomaly` (true or false), and for each value column `expected_<column>` in its units and
    `contribution_<column>` in nats; an empty cell is a number that is not there. A row without a time or
    without any value has score 0 and teaches nothing. `rows` are processed at once and change no result.
    `out` `-` is standard output.

    Raises `InputError` for a file or column that cannot be used, and `ConfigError` for the model.
    """
    if out.exists() and path.exists() and out.samefile(path):
        raise InputError(f"The scores would replace their input {path}: choose another --out.")
    one_pass = _Pass(path, config, choice or Choice.of(config), seed, device, rows)
    with whole_file(out) as file, as_text(file) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(one_pass.header())
        for batch, used_N, results in one_pass.run(report):
            writer.writerows(one_pass.lines(batch, used_N, results))
    return one_pass.summary


def fit_file(
    path: Path,
    directory: Path | str,
    config: InputConfig,
    choice: Choice | None = None,
    seed: int = 0,
    device: str = "cpu",
    report: Report | None = None,
) -> Summary:
    """Learn a CSV file in one pass, as `detect_file` does, and store the state under `directory`.

    `directory` may be a URL of fsspec. Raises as `detect_file` does, and as `FileStore` and its `write` do.
    """
    store = FileStore(directory)  # what is wrong with it is said before the work
    one_pass = _Pass(path, config, choice or Choice.of(config), seed, device, ROWS)
    for _ in one_pass.run(report):
        pass
    task, summary = one_pass.task, one_pass.summary
    if summary.rows == summary.unusable:
        raise InputError(f"No row of {path} has a time and a value: there is nothing to learn.")
    if not summary.keys:
        raise InputError(
            f"No key of {path} has the {task.config.min_records} usable rows that a learner begins with "
            "(min_records): there is nothing to learn."
        )
    snapshot = task.snapshot(summary.rows, whole=True)
    manifest = Manifest(
        SOURCE,
        snapshot.offset,
        task.features,
        seed,
        task.config.model_dump(mode="json"),
        task.config.fingerprint(seed, task.features),
        facts=snapshot.facts,
    )
    # Nothing is read before: the state of another file is no fallback of this one's.
    store.claim(SOURCE).write(manifest, _all(snapshot), ())
    return summary


def _all(snapshot: Snapshot) -> Iterator[LearnerState]:
    """What a whole snapshot has, a few learners in memory at a time."""
    while taken := snapshot.take(COPIED_AT_ONCE):
        yield from taken


def file_columns(rows: CsvRows, at_once: int = ROWS) -> Iterator[tuple[CsvBatch, Bools, Columns]]:
    """Batches of a file, which rows `[N]` are usable, and those as a task takes them."""
    first = 0
    for batch in rows.batches(at_once):
        used_N = np.asarray(~np.isnan(batch.value_ND).all(axis=1))
        if batch.timestamp is not None and any(cell.column == rows.timestamp_column for cell in batch.bad):
            used_N &= np.array([rows.time_ms(cell) is not None for cell in batch.timestamp])
        row_N = np.flatnonzero(used_N).astype(np.int64)
        columns = Columns(
            offset_N=first + row_N,
            timestamp_N=batch.time_ms_N[row_N],
            key=[batch.key[n] for n in row_N.tolist()],
            value_ND=batch.value_ND[row_N],
            raw_N=row_N,
        )
        first += len(batch)
        yield batch, used_N, columns


class _Pass:
    """One pass of one task over one file."""

    def __init__(
        self, path: Path, config: InputConfig, choice: Choice, seed: int, device: str, rows: int
    ) -> None:
        self._rows = CsvRows(path, choice.timestamp, choice.key, choice.values, choice.times)
        self._at_once = rows
        # The topic is part of the fingerprint, and a file has none: all have the same.
        config = InputConfig.model_validate({**config.model_dump(), "topic": SOURCE.topic, "outputs": {}})
        self.task = Task(SOURCE, config, self._rows.columns, seed, use_device(device))
        self.summary = Summary(0, 0, 0, 0, 0)

    def run(self, report: Report | None) -> Iterator[tuple[CsvBatch, Bools, Results]]:
        """Batches with which rows `[N]` were usable and the results of those, `summary` kept on the way."""
        for batch, used_N, columns in file_columns(self._rows, self._at_once):
            results = self.task.process(columns)
            before = self.summary
            self.summary = replace(
                before,
                rows=before.rows + len(batch),
                unusable=before.unusable + len(batch) - len(columns),
                late=before.late + int(results.ticks.late_N.sum()),
                anomalies=before.anomalies + int(results.verdicts.is_anomaly_N.sum()),
                keys=len(self.task.keys),
            )
            if report is not None:
                report(self._rows.bytes_read / self._rows.total_bytes)
            yield batch, used_N, results

    def header(self) -> list[str]:
        """Names of the columns of the scores."""
        names = ["timestamp"] if self._rows.timestamp_column else []
        names += ["key"] if self._rows.key_column else []
        names += ["score", "p_value", "is_anomaly"]
        names += [f"expected_{column}" for column in self._rows.columns]
        return names + [f"contribution_{column}" for column in self._rows.columns]

    def lines(self, batch: CsvBatch, used_N: Bools, results: Results) -> Iterator[list[object]]:
        """The cells of every row of a batch; csv writes a float so that it reads back as the same."""
        empty = [None] * (2 * len(self._rows.columns))
        scored = zip(
            score_of(results.p_N).tolist(),
            results.p_N.tolist(),
            results.verdicts.is_anomaly_N.tolist(),
            results.scores.expected_ND.tolist(),
            results.scores.contribution_ND.tolist(),
            strict=True,
        )
        for n, used in enumerate(used_N.tolist()):
            given = [] if batch.timestamp is None else [batch.timestamp[n]]
            given += [] if self._rows.key_column is None else [batch.key[n] or ""]
            if not used:
                yield [*given, 0.0, 1.0, "false", *empty]
                continue
            score, p_value, is_anomaly, expected, contributions = next(scored)
            # NaN is the one number that differs from itself: nothing is expected yet.
            known = [value if value == value else None for value in expected]
            yield [*given, score, p_value, "true" if is_anomaly else "false", *known, *contributions]
