"""Finished runs of a benchmark, in a file: none is made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Kept(dict[str, Any]):
    """Runs by name, as the file has them; what a run is must have a form in JSON."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(json.loads(path.read_text()) if path.exists() else {})
        self._path = path

    def keep(self, name: str, run: Any) -> None:
        """Have a run, and write all."""
        self[name] = run
        print(name, run, flush=True)
        self._path.write_text(json.dumps(self, indent=1, sort_keys=True) + "\n")
