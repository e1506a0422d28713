"""`streamgen detect`, `fit` and `generate`: without Kafka, over files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamgen.cli.options import Device, Model, Seed

if TYPE_CHECKING:
    from streamgen.config import InputConfig
    from streamgen.detect import Choice, Summary
    from streamgen.models.online import Kind

File = Annotated[Path, typer.Argument(metavar="FILE.csv", help="CSV file; its first line names the columns.")]
TimestampColumn = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of the event time; without it, found by its name."),
]
KeyColumn = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of the key; each key has a model of its own."),
]
ValueColumns = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Columns to learn; without it, all that hold only numbers."),
]
InputFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file; the settings of its first input."),
]

# All sequences are in memory at once, and beside each a window of what came before.
LONGEST = 1_000_000  # steps of a sequence
MOST = 100_000  # sequences
MOST_STEPS = 10_000_000  # of all sequences together


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(detect)
    app.command()(fit)
    app.command()(generate)


def detect(
    file: File,
    out: Annotated[
        Path, typer.Option("--out", metavar="SCORES.csv", help="Where the scores go; - is standard output.")
    ],
    timestamp_column: TimestampColumn = None,
    key_column: KeyColumn = None,
    value_columns: ValueColumns = None,
    model: Model = None,
    seed: Seed = 0,
    device: Device = "cpu",
    config: InputFile = None,
) -> None:
    """Score every row of a CSV file.

    One pass, no labels: each row is scored by what came before it, and then learned from.
    """
    from streamgen.detect import detect_file

    source, choice = file_input(config, model, timestamp_column, key_column, value_columns)
    with _progress(f"scoring {file.name}") as report:
        summary = detect_file(file, out, source, choice, seed, device, report)
    _tell(summary)


def fit(
    file: File,
    state: Annotated[Path, typer.Option("--state", metavar="DIR", help="Where the learned state is kept.")],
    timestamp_column: TimestampColumn = None,
    key_column: KeyColumn = None,
    value_columns: ValueColumns = None,
    model: Model = None,
    seed: Seed = 0,
    device: Device = "cpu",
    config: InputFile = None,
) -> None:
    """Learn a CSV file in one pass, to generate from it."""
    from streamgen.detect import fit_file

    source, choice = file_input(config, model, timestamp_column, key_column, value_columns)
    with _progress(f"learning {file.name}") as report:
        summary = fit_file(file, state, source, choice, seed, device, report)
    _tell(summary)


def generate(
    state: Annotated[
        Path, typer.Option("--state", metavar="DIR", help="State that fit, or a worker, has kept.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help=".npz, .csv or .jsonl; - is JSON lines to standard output."
        ),
    ],
    length: Annotated[int, typer.Option("--length", min=1, help="Steps of a sequence.")] = 100,
    count: Annotated[int, typer.Option("--count", min=1, help="Sequences.")] = 1,
    seed: Seed = 0,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Whose sequences; not needed where there is one learner."),
    ] = None,
    prior: Annotated[
        bool, typer.Option("--prior", help="What the stream could be then, whatever came before.")
    ] = False,
    quantiles: Annotated[
        str | None,
        typer.Option(
            "--quantiles",
            metavar="Q,…",
            help="In place of the sequences, these quantiles of them: 0.1,0.5,0.9.",
        ),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Generate sequences that go on where the stream stopped."""
    from streamgen.errors import InputError
    from streamgen.generation import check_shares, check_suffix, write_sequences
    from streamgen.generation import generate as generated
    from streamgen.generation import quantiles as quantiles_of

    check_suffix(out)
    shares = None if quantiles is None else _shares(quantiles)
    if shares is not None:
        check_shares(shares, count)
    if length > LONGEST or count > MOST or length * count > MOST_STEPS:
        raise InputError(
            f"{count:,} sequences of {length:,} steps are too many: at most {MOST:,} of at most {LONGEST:,}, "
            f"and {MOST_STEPS:,} steps together."
        )
    kind: Kind = "prior" if prior else "continue"
    x_SLD, columns = generated(state, length, count, seed, key, device, kind)
    if shares is not None:
        x_SLD = quantiles_of(x_SLD, shares)
    write_sequences(out, x_SLD, columns, shares)


def _shares(text: str) -> list[float]:
    from streamgen.errors import ConfigError

    try:
        return [float(share) for share in text.split(",")]
    except ValueError:
        raise ConfigError(f"--quantiles are numbers with commas between them, not {text!r}.") from None


def file_input(
    config: Path | None, model: str | None, timestamp: str | None, key: str | None, values: str | None
) -> tuple[InputConfig, Choice]:
    """What the options say, above what the first input of the file says."""
    from streamgen.cli.options import configuration, with_model
    from streamgen.detect import Choice

    chosen = configuration(config) if config is not None else configuration(None, topics=("file",))
    source = with_model(chosen, model).inputs[0]
    columns = Choice.of(source)
    listed = None if values is None else tuple(name.strip() for name in values.split(",") if name.strip())
    return source, Choice(
        timestamp or columns.timestamp, key or columns.key, listed or columns.values, columns.times
    )


@contextmanager
def _progress(what: str) -> Iterator[Callable[[float], None] | None]:
    """A bar on standard error where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _tell(summary: Summary) -> None:
    unusable = f", {summary.unusable} unusable" if summary.unusable else ""
    late = f", {summary.late} late" if summary.late else ""
    keys = f" of {summary.keys} keys" if summary.keys > 1 else ""
    print(f"{summary.rows} rows{keys}: {summary.anomalies} anomalies{unusable}{late}", file=sys.stderr)
