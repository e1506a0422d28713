"""`streamgen tune`: which settings of a model are good for one's own data."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamgen.cli.files import KeyColumn, TimestampColumn, ValueColumns
from streamgen.cli.options import Bootstrap, Device, From, To

if TYPE_CHECKING:
    from streamgen.between import Bounds
    from streamgen.config import Config, InputConfig
    from streamgen.detect import Choice
    from streamgen.tuning.compare import Outcome
    from streamgen.tuning.factors import Factor, Search
    from streamgen.tuning.stream import Stream
    from streamgen.tuning.study import Study


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)


def tune(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="CSV file, or topic, whose records are learned.")
    ],
    study: Annotated[
        Path,
        typer.Option(
            "--study", metavar="DIR", help="Where trials, report and best.yaml are; what is there goes on."
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Model to tune: stream_ae or rvae.")
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

    Every choice goes once through the data with several seeds, each record scored before it is learned from.
    The same command again goes on where it ended.
    """
    from streamgen.evaluation.page import check_pictures
    from streamgen.models.device import use_device
    from streamgen.output import whole_file
    from streamgen.tuning.compare import compare
    from streamgen.tuning.effects import tables
    from streamgen.tuning.factors import applied, parse, settings_of, to_try, usual
    from streamgen.tuning.report import BEST, best_yaml, write_page
    from streamgen.tuning.study import Study
    from streamgen.tuning.trial import Prequential

    check_pictures()
    kind, seconds = _search(search, vary), _seconds(budget)
    columns = (timestamp_column, key_column, value_columns)
    chosen, ours, columns_of_file = _input(source, config, bootstrap, model, columns)
    factors = [parse(ours, text) for text in vary] if vary else usual(ours)
    choices = to_try(ours, factors, kind)
    known = Study(study, kind)
    try:
        stream, between = _stream(known, chosen, ours, source, columns_of_file, first, end)
        stream = stream.newest(records).checked(source)
        trial = Prequential(ours, stream, use_device(device))
        asked = {"seeds": seeds, "search": kind, "records wanted": records, "from": first, "to": end}
        known.agree(asked | _facts(ours, factors, stream, between))
        outcome = compare(known, trial, choices, ours, factors, kind, seeds, seconds, _report)
    finally:
        known.close()
    shown = tables(kind, factors, outcome.tried, trial.unit)
    said = _said(ours, factors, stream, between, outcome, seeds, trial.unit)
    print("\n\n".join(map(str, shown)))
    print("\n".join(said))
    best = applied(ours, settings_of(factors, outcome.best.choice), reduce=True)
    content = _content(config, bootstrap, ours, columns)
    with whole_file(study / BEST) as file:
        file.write(best_yaml(content, ours.topic, best).encode())
    title = f"{ours.model['name']} on {Path(source).name}"
    page = write_page(study, title, said, shown, kind, factors, outcome.tried, trial.unit)
    print(f"{page} has the curves; {study / BEST} is for streamgen run and fit --config.")


def _report(text: str) -> None:
    print(f"trying {text}", file=sys.stderr, flush=True)


def _facts(
    ours: InputConfig, factors: list[Factor], stream: Stream, between: Bounds | None
) -> dict[str, Any]:
    """What a study may not mix."""
    from streamgen import __version__

    learning = ours.learning(0, stream.features)
    return {
        "records": stream.fingerprint(),
        "between": between and [[number, *ends] for number, ends in between.items()],
        "configuration": {key: value for key, value in learning.items() if key != "topic"},
        "settings to vary": {one.name: [two.label for two in one.variants] for one in factors},
        "version of streamgen": __version__,
    }


def _said(
    ours: InputConfig, factors: list[Factor], stream: Stream, between: Bounds | None, outcome: Outcome,
    seeds: int, unit: str,
) -> list[str]:  # fmt: skip
    """What there is to say beside the tables."""
    from streamgen.tuning.effects import told

    left_out = f" ({stream.unusable} unusable left out)" if stream.unusable else ""
    where = ", ".join(f"{number}: {first} to {end}" for number, (first, end) in (between or {}).items())
    nothing = " Nothing was clearly better." if outcome.best is outcome.tried[0] else ""
    return [
        f"{len(stream)} records{left_out} of {', '.join(stream.features)}.",
        *([f"Offsets by partition: {where}."] if where else []),
        f"{ours.model['name']}, {seeds} seeds: {unit} in the data's own units, lower is better.",
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


def _input(
    source: str,
    config: Path | None,
    bootstrap: str | None,
    model: str | None,
    columns: tuple[str | None, str | None, str | None],
) -> tuple[Config, InputConfig, Choice | None]:
    """The configuration, the input that is tuned, and the columns when it is a file."""
    from streamgen.cli.files import file_input
    from streamgen.cli.options import configuration, with_model
    from streamgen.errors import ConfigError, InputError

    if Path(source).is_file():
        ours, choice = file_input(config, model, *columns)
        chosen = configuration(config) if config else configuration(None, topics=(_name(source),))
        return chosen, ours if config else ours.model_copy(update={"topic": _name(source)}), choice
    if source.endswith(".csv") or "/" in source:
        raise InputError(f"There is no file {source}.")
    if any(columns):
        raise ConfigError(
            "Columns are of a file: name a topic's fields in the configuration file (features)."
        )
    chosen = configuration(config, bootstrap) if config else configuration(None, bootstrap, (source,))
    chosen = with_model(chosen, model)
    for one in chosen.inputs:
        if one.topic == source:
            return chosen, one, None
    raise ConfigError(f"{config} has no input {source}: add it, or leave --config out.")


def _stream(
    known: Study, chosen: Config, ours: InputConfig, source: str, columns: Choice | None, first: str, end: str
) -> tuple[Stream, Bounds | None]:
    """The records, and of a topic between which offsets: those that the study was begun with."""
    from streamgen.between import bounds
    from streamgen.errors import ConfigError
    from streamgen.tuning.stream import of_file, of_topic

    if columns is not None:
        if (first, end) != ("earliest", "latest"):
            raise ConfigError("--from and --to are of a topic; --records N takes the newest N of a file.")
        return of_file(Path(source), columns), None
    kept = (known.facts or {}).get("between")
    between = {n: (a, b) for n, a, b in kept} if kept else bounds(chosen, ours, first, end)
    return of_topic(chosen, ours, between), between


def _content(
    config: Path | None,
    bootstrap: str | None,
    ours: InputConfig,
    columns: tuple[str | None, str | None, str | None],
) -> dict[str, Any]:
    """What the file of the best begins with: the configuration file, or the least that says the same."""
    from streamgen.yamlfile import read_yaml

    content: dict[str, Any] = read_yaml(config) if config else {"inputs": [{"topic": ours.topic}]}
    if bootstrap is not None:
        content["kafka"] = {**content.get("kafka", {}), "bootstrap_servers": bootstrap}
    timestamp, key, values = columns
    for one in content.get("inputs", []):
        if one.get("topic") == ours.topic:
            one |= {"timestamp": {**one.get("timestamp", {}), "field": timestamp}} if timestamp else {}
            one |= {"key": {"field": key}} if key else {}
            one |= {"features": [name.strip() for name in values.split(",")]} if values else {}
    return content


def _name(source: str) -> str:
    """A topic's name, of a file's."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(source).stem) or "file"
