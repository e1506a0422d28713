"""The registry of models that learn in batches: a new one is a file beside this and a line in `_MODELS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from streamgen.errors import ConfigError
from streamgen.models import gan, vae
from streamgen.models.batch_model import BatchModel
from streamgen.models.descent import BatchSettings
from streamgen.models.image_parts import Shape

_MODELS: dict[str, tuple[type[BatchSettings], Callable[[Any, Shape, str], BatchModel]]] = {
    "vae": (vae.Settings, vae.VAE),
    "gan": (gan.Settings, gan.GAN),
}


def names() -> list[str]:
    """The registered models."""
    return list(_MODELS)


def settings(model: Mapping[str, Any]) -> BatchSettings:
    """The validated settings of a model. Raises `ConfigError` that names what is unknown and the nearest."""
    name = model.get("name", "gan")
    if name not in _MODELS:
        near = difflib.get_close_matches(str(name), _MODELS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"model.name: there is no image model {name!r}{hint} Known: {', '.join(_MODELS)}.")
    kind, _ = _MODELS[name]
    try:
        return kind.model_validate({"name": name, **model})
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            near = difflib.get_close_matches(key, kind.model_fields, n=1)
            hint = f" (did you mean {near[0]}?)" if near and key not in kind.model_fields else ""
            problems.append(f"model.{key}: {problem['msg']}{hint}")
        raise ConfigError("; ".join(problems) + f". Settings of {name}: docs/models.md.") from None


def build(model: Mapping[str, Any], shape: Shape, device: str) -> BatchModel:
    """The model that a configuration names, for images of C, H, W. Raises `ConfigError`."""
    validated = settings(model)
    _, make = _MODELS[validated.name]  # type: ignore[attr-defined]
    return make(validated, shape, device)
