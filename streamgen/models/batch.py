"""The registry of models that learn in batches: a new one is a file beside this and a line in `_MODELS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamgen.models import gan, vae
from streamgen.models.batch_model import BatchModel
from streamgen.models.descent import BatchSettings
from streamgen.models.image_parts import Shape
from streamgen.models.validated import validated

_MODELS: dict[str, tuple[type[BatchSettings], Callable[[Any, Shape, str], BatchModel]]] = {
    "vae": (vae.Settings, vae.VAE),
    "gan": (gan.Settings, gan.GAN),
}


def names() -> list[str]:
    """The registered models."""
    return list(_MODELS)


def settings(model: Mapping[str, Any]) -> BatchSettings:
    """The validated settings of a model. Raises `ConfigError` that names what is unknown and the nearest."""
    kinds = {name: kind for name, (kind, _) in _MODELS.items()}
    return validated(kinds, model.get("name", "gan"), model, "image model")


def build(model: Mapping[str, Any], shape: Shape, device: str) -> BatchModel:
    """The model that a configuration names, for images of C, H, W. Raises `ConfigError`."""
    chosen = settings(model)
    _, make = _MODELS[chosen.name]  # type: ignore[attr-defined]
    return make(chosen, shape, device)
