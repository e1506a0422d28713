"""The settings of a model as its section of a configuration has them, checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from streamgen.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseModel)


def validated(
    kinds: Mapping[str, type[Settings]], name: str, model: Mapping[str, Any], what: str = "model"
) -> Settings:
    """The settings of the model `name`. Raises `ConfigError` that names what is unknown, and the nearest."""
    if name not in kinds:
        near = difflib.get_close_matches(str(name), kinds, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"model.name: there is no {what} {name!r}{hint} Known: {', '.join(kinds)}.")
    kind = kinds[name]
    try:
        return kind.model_validate({"name": name, **model})
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            if not problem["loc"]:  # of several settings together: it names them
                problems.append(f"model.{problem['ctx']['error']}")
                continue
            key = ".".join(str(part) for part in problem["loc"])
            near = difflib.get_close_matches(key, kind.model_fields, n=1)
            hint = f" (did you mean {near[0]}?)" if near and key not in kind.model_fields else ""
            problems.append(f"model.{key}: {problem['msg']}{hint}")
        raise ConfigError("; ".join(problems) + f". Settings of {name}: docs/models.md.") from None
