"""The series that ship with the project; `README.md` tells where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that is known to have happened between two times (ms, UTC, both inclusive)."""

    start_ms: int
    end_ms: int
    what: str | None


@dataclass(frozen=True, slots=True)
class Series:
    """A CSV file of `timestamp,value` rows; its name is the key under which it is replayed."""

    name: str
    path: Path
    about: str
    incidents: tuple[Incident, ...]


def shipped_series() -> list[Series]:
    """The series in this folder, in the order in which `incidents.json` names them."""
    folder = Path(__file__).parent
    known = json.loads((folder / "incidents.json").read_text())
    return [
        Series(
            name=name,
            path=folder / f"{name}.csv",
            about=entry["about"],
            incidents=tuple(
                Incident(_milliseconds(one["start"]), _milliseconds(one["end"]), one["what"])
                for one in entry["incidents"]
            ),
        )
        for name, entry in known.items()
    ]


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1000)
