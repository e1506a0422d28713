"""What `streamgen tune` compares over records: of a CSV file, or of a topic between two positions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamgen.cli.tuned import Matter

if TYPE_CHECKING:
    from streamgen.between import Bounds
    from streamgen.config import Config, InputConfig
    from streamgen.detect import Choice
    from streamgen.tuning.online import Online
    from streamgen.tuning.stream import Stream
    from streamgen.tuning.study import Study

Columns = tuple[str | None, str | None, str | None]  # of the time, of the key, of the values


class Records:
    """What is tuned, and over which records: those are read when a study is there to say which."""

    def __init__(
        self,
        source: str,
        model: str | None,
        config: Path | None,
        bootstrap: str | None,
        columns: Columns,
        records: int | None,
        first: str,
        end: str,
        device: str,
    ) -> None:
        """Raises `ConfigError` and `InputError` for what cannot be."""
        from streamgen.tuning.online import Online

        self._source, self._config, self._bootstrap, self._columns = source, config, bootstrap, columns
        self._records, self._first, self._end, self._device = records, first, end, device
        self._chosen, self._ours, self._of_file = _input(source, config, bootstrap, model, columns)
        self.subject: Online = Online(self._ours)

    def over(self, known: Study) -> Matter:
        """Read the records, of a topic those that the study was begun with."""
        from streamgen.models.device import use_device
        from streamgen.tuning.prequential import Prequential

        ours, source = self._ours, self._source
        stream, between = _stream(known, self._chosen, ours, source, self._of_file, self._first, self._end)
        stream = stream.newest(self._records).checked(source)
        trial = Prequential(ours, stream, use_device(self._device))
        asked = {"records wanted": self._records, "from": self._first, "to": self._end}
        return Matter(
            trial=trial,
            facts=asked | _facts(ours, stream, between),
            data=_told(stream, between),
            judged=f"{trial.unit} in the data's own units",
            name=str(ours.model["name"]),
            best=self._best,
            takers="streamgen run and fit --config",
        )

    def _best(self, changed: Mapping[str, Any]) -> str:
        from streamgen.tuning.report import best_yaml

        content = _content(self._config, self._bootstrap, self._ours, self._columns)
        return best_yaml(content, self._ours.topic, self.subject.applied(changed, reduce=True).config)


def _facts(ours: InputConfig, stream: Stream, between: Bounds | None) -> dict[str, Any]:
    """What a study may not mix."""
    learning = ours.learning(0, stream.features)
    return {
        "records": stream.fingerprint(),
        "between": between and [[number, *ends] for number, ends in between.items()],
        "configuration": {key: value for key, value in learning.items() if key != "topic"},
    }


def _told(stream: Stream, between: Bounds | None) -> list[str]:
    """The data in words."""
    left_out = f" ({stream.unusable} unusable left out)" if stream.unusable else ""
    where = ", ".join(f"{number}: {first} to {end}" for number, (first, end) in (between or {}).items())
    return [
        f"{len(stream)} records{left_out} of {', '.join(stream.features)}.",
        *([f"Offsets by partition: {where}."] if where else []),
    ]


def _input(
    source: str,
    config: Path | None,
    bootstrap: str | None,
    model: str | None,
    columns: Columns,
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
    columns: Columns,
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
