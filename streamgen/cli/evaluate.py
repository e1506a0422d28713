"""`streamgen evaluate`: generated sequences against the file that they should look like, and that file's rows
against a learned state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamgen.cli.files import File, KeyColumn, TimestampColumn

if TYPE_CHECKING:
    from streamgen.records import Floats


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    file: File,
    generated: Annotated[
        Path | None,
        typer.Argument(metavar="GENERATED.npz", help="Sequences, as streamgen generate writes them."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="DIR",
            help="State that fit, or a worker, has kept, to be judged by rows that it has not learned.",
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            "--train",
            metavar="FILE.csv",
            help="Rows that were learned, to find copies of them; FILE.csv is then of rows that were not.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Random halves that are compared.")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave the judges out that are networks and take minutes.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the figures and pictures there, as a page and as PNG files."),
    ] = None,
    timestamp_column: TimestampColumn = None,
    key_column: KeyColumn = None,
) -> None:
    """Judge generated sequences against real ones, or a learned state by rows that it has not learned.

    The file is cut into windows as long as the sequences, which do not overlap. Every figure stands beside
    its null, which is what real windows give against real ones. With --train, copies of what was learned are
    found. With --state it also says how likely the file's rows are to what was learned, beside a prediction
    of the last value.
    """
    from streamgen.errors import ConfigError

    if generated is None and state is None:
        raise ConfigError("There is nothing to judge: name a file of sequences, or a state with --state.")
    if page is not None and generated is None:
        raise ConfigError("The page is of generated sequences: name a file of them.")
    if train is not None and generated is None:
        raise ConfigError("Copies are found among generated sequences: name a file of them.")
    if page is not None:
        from streamgen.evaluation.page import check_page

        check_page(page)
    if state is not None:
        _judge_state(file, state, timestamp_column, key_column)
    if generated is not None:
        _judge_sequences(file, generated, train, seeds, quick, page, timestamp_column, key_column)


def _judge_state(file: Path, state: Path, timestamp: str | None, key: str | None) -> None:
    from streamgen.heldout import held_out

    found = held_out(file, state, timestamp, key)
    left_out = [
        f"{rows} {why}"
        for rows, why in (
            (found.learned, "no later than what was learned"),
            (found.unknown, "of keys without a learner"),
        )
        if rows
    ]
    windows = f", {found.windows} windows of {found.length}" if found.windows else ""
    print(f"{found.rows} rows that were not learned{windows}; left out: {', '.join(left_out) or 'none'}")
    width = max(map(len, found.figures))
    print(f"{'log likelihood, higher is better':{width}}  nats per value")
    for name, value in found.figures.items():
        print(f"{name:{width}}  {value:+.4f}")


def _judge_sequences(
    file: Path, path: Path, train: Path | None, seeds: int, quick: bool, page: Path | None,
    timestamp: str | None, key: str | None,
) -> None:  # fmt: skip
    from streamgen.evaluation import QUICK
    from streamgen.evaluation import evaluate as judged
    from streamgen.evaluation.report import judges, lines

    generated_MTD, columns = _sequences(path)
    length = generated_MTD.shape[1]
    real_NTD = _windows(file, length, length, columns, timestamp, key)
    # A copy may begin at any record.
    training_KTD = None if train is None else _windows(train, length, 1, columns, timestamp, key)
    measures = QUICK if quick else (*QUICK, judges)
    figures = judged(real_NTD, generated_MTD, seeds, measures, training_KTD)
    learned = "" if training_KTD is None else f"; {len(training_KTD)} that were learned"
    print(f"{len(real_NTD)} real and {len(generated_MTD)} generated windows of {length} records{learned}")
    print("\n".join(lines(figures)))
    if page is not None:
        from streamgen.evaluation.pictures import write_page

        title = f"{path.name} beside {file.name}"
        print(write_page(page, real_NTD, generated_MTD, columns, figures, title))


def _sequences(path: Path) -> tuple[Floats, tuple[str, ...]]:
    """[M, T, D] and the columns' names. Raises `InputError`."""
    import zipfile
    import zlib

    import numpy as np

    from streamgen.errors import InputError

    damaged = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
    try:
        with path.open("rb") as file:
            held = np.load(file)  # without pickles
            if isinstance(held, np.ndarray):
                raise ValueError("it holds one array without a name")
            if held["x"].dtype.kind not in "fiub":
                raise ValueError("its x are no numbers")
            x_MTD = np.asarray(held["x"], dtype=np.float64)
            columns = tuple(str(name) for name in held["columns"])
    except (OSError, ValueError, KeyError, TypeError, *damaged) as error:
        why = str(error) or "it ends too soon"
        raise InputError(
            f"{path} is no file of sequences ({why}): make one with streamgen generate --out FILE.npz."
        ) from None
    if x_MTD.ndim != 3 or x_MTD.shape[2] != len(columns):
        raise InputError(
            f"{path} holds x of shape {x_MTD.shape} and {len(columns)} columns: it is no such file."
        )
    return x_MTD, columns


def _windows(
    path: Path, length: int, stride: int, columns: tuple[str, ...], timestamp: str | None, key: str | None
) -> Floats:
    """[N, length, D] windows of each key's rows, one every `stride` of them, less those with a missing value.
    Raises `InputError`."""
    import numpy as np

    from streamgen.csvfile import CsvRows
    from streamgen.errors import InputError
    from streamgen.evaluation import cut

    rows: dict[str | None, list[Floats]] = {}
    for batch in CsvRows(path, timestamp, key, columns):
        for name, value_D in zip(batch.key, batch.value_ND, strict=True):
            rows.setdefault(name, []).append(value_D)
    long = [np.array(found) for found in rows.values() if len(found) >= length]
    whole = [cut(series_LD, length, stride) for series_LD in long]
    kept = [windows[np.isfinite(windows).all(axis=(1, 2))] for windows in whole]
    if not any(map(len, kept)):
        raise InputError(f"{path} has no whole window of {length} records: generate shorter sequences.")
    return np.concatenate(kept)
