"""`streamgen tune`: which settings of a model are good for one's own data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamgen.cli.files import KeyColumn, TimestampColumn, ValueColumns
from streamgen.cli.images import Array
from streamgen.cli.options import Bootstrap, Device, From, To

if TYPE_CHECKING:
    from streamgen.tuning.compare import Outcome
    from streamgen.tuning.factors import Factor, Search


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)


def tune(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="CSV file or topic of records; or folder, .npz, IDX of images."
        ),
    ],
    study: Annotated[
        Path,
        typer.Option(
            "--study", metavar="DIR", help="Where trials, report and best.yaml are; what is there goes on."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help="Model to tune: stream_ae or rvae; of images: vae or gan."
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="SETTING=A,B",
            help="Setting and its values; may be given again; else the usual.",
        ),
    ] = None,
    search: Annotated[
        str, typer.Option("--search", help="one (setting at a time), grid or halving.")
    ] = "one",
    seeds: Annotated[int, typer.Option("--seeds", min=2, max=100, help="Seeds that each is tried with.")] = 3,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Time to spend now, such as 30m or 2h.")
    ] = "10m",
    records: Annotated[
        int | None, typer.Option("--records", min=1, help="Only the newest so many; without it, all.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Images: steps of each training; without it, 1000.")
    ] = None,
    array: Array = None,
    first: From = "earliest",
    end: To = "latest",
    bootstrap: Bootstrap = None,
    timestamp_column: TimestampColumn = None,
    key_column: KeyColumn = None,
    value_columns: ValueColumns = None,
    device: Device = "cpu",
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Configuration file to begin with.")
    ] = None,
) -> None:
    """Compare settings of a model on your own data.

    Every choice goes once through the records with several seeds, each record scored before it is learned
    from; an image model is trained for as many steps with every choice, and judged on images held out. The
    same command again goes on where it ended.
    """
    from streamgen import __version__
    from streamgen.cli.tune_images import Pictures, are_images
    from streamgen.cli.tune_records import Records
    from streamgen.evaluation.page import check_pictures
    from streamgen.output import whole_file
    from streamgen.tuning.compare import compare
    from streamgen.tuning.effects import tables
    from streamgen.tuning.factors import parse, settings_of, to_try, usual
    from streamgen.tuning.report import BEST, write_page
    from streamgen.tuning.study import Study

    check_pictures()
    kind, seconds = _search(search, vary), _seconds(budget)
    columns = (timestamp_column, key_column, value_columns)
    given: Records | Pictures
    if are_images(source, model, config):
        _nothing(
            "not of images",
            {
                "--records": records, "--bootstrap": bootstrap, "--from": first != "earliest" or None,
                "--to": end != "latest" or None, "--timestamp-column": timestamp_column,
                "--key-column": key_column, "--value-columns": value_columns,
            },
        )  # fmt: skip
        given = Pictures(source, model, config, array, steps, device)
    else:
        _nothing("of images alone", {"--steps": steps, "--array": array})
        given = Records(source, model, config, bootstrap, columns, records, first, end, device)
    ours = given.subject
    factors = [parse(ours, text) for text in vary] if vary else usual(ours)
    choices = to_try(ours, factors, kind)
    known = Study(study, kind)
    try:
        matter = given.over(known)
        varied = {one.name: [two.label for two in one.variants] for one in factors}
        common = {
            "seeds": seeds,
            "search": kind,
            "settings to vary": varied,
            "version of streamgen": __version__,
        }
        known.agree(matter.facts | common)
        outcome = compare(known, matter.trial, choices, ours, factors, kind, seeds, seconds, _report)
    finally:
        known.close()
    shown = tables(kind, factors, outcome.tried, matter.trial.unit)
    said = [
        *matter.data,
        f"{matter.name}, {seeds} seeds: {matter.judged}, lower is better.",
        *_came_of_it(factors, outcome),
    ]
    print("\n\n".join(map(str, shown)))
    print("\n".join(said))
    with whole_file(study / BEST) as file:
        file.write(matter.best(settings_of(factors, outcome.best.choice)).encode())
    title = f"{matter.name} on {Path(source).name}"
    page = write_page(study, title, said, shown, kind, factors, outcome.tried, matter.trial)
    print(f"{page} has the curves; {study / BEST} is for {matter.takers}.")


def _nothing(why: str, options: Mapping[str, object]) -> None:
    """Raises `ConfigError` when one of these options is given."""
    from streamgen.errors import ConfigError

    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name} is {why}: leave it out.")


def _report(text: str) -> None:
    print(f"trying {text}", file=sys.stderr, flush=True)


def _came_of_it(factors: list[Factor], outcome: Outcome) -> list[str]:
    """What there is to say beside the tables."""
    from streamgen.tuning.effects import told

    failed = [one for one in outcome.tried if one.failure is not None]
    nothing = " Nothing was clearly better." if outcome.best is outcome.tried[0] else ""
    return [
        *(f"Failed: {told(factors, one.choice)}: {one.failure}." for one in failed),
        f"Best: {told(factors, outcome.best.choice)}.{nothing}",
        "All was tried."
        if outcome.complete
        else "The time is up: the same command again tries what is left.",
    ]


def _search(search: str, vary: list[str] | None) -> Search:
    from streamgen.errors import ConfigError
    from streamgen.tuning.factors import SEARCHES

    for one in SEARCHES:
        if one == search:
            if one == "grid" and not vary:
                raise ConfigError(
                    "--search grid needs --vary: of all the usual settings it would have no end."
                )
            return one
    raise ConfigError(f"--search is {search!r}; allowed: {', '.join(SEARCHES)}.")


def _seconds(budget: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from streamgen.errors import ConfigError
    from streamgen.times import PositiveDuration

    try:
        return float(TypeAdapter(PositiveDuration).validate_python(budget).total_seconds())
    except ValidationError:
        raise ConfigError(f"--budget is {budget!r}; allowed: a time such as 30m or 2h.") from None
