"""The registry of models that learn online: a new one is a file beside this and a line in `_MODELS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamgen.config import WindowConfig
from streamgen.errors import ConfigError
from streamgen.models import river, rvae, stream_ae, stream_ae_full
from streamgen.models.online import OnlineModel
from streamgen.models.settings import ModelSettings
from streamgen.models.validated import validated


def _stream_ae(settings: stream_ae.Settings, features: int, window: WindowConfig, device: str) -> OnlineModel:
    make = stream_ae_full.StreamAEFull if settings.preset == "full" else stream_ae.StreamAE
    return make(settings, features, window, device)


_MODELS: dict[str, tuple[type[ModelSettings], Callable[[Any, int, WindowConfig, str], OnlineModel]]] = {
    "stream_ae": (stream_ae.Settings, _stream_ae),
    "rvae": (rvae.Settings, rvae.RVAE),
    "river": (river.Settings, river.RiverDetector),
}


def names() -> list[str]:
    """The registered models."""
    return list(_MODELS)


def settings(model: Mapping[str, Any]) -> ModelSettings:
    """The validated settings of a model. Raises `ConfigError` that names what is unknown and the nearest, or
    what would change nothing."""
    chosen = _validated(model)
    idle = [f"model.{key} changes nothing with {why}" for key, why in chosen.idle().items() if key in model]
    if idle:
        name = model.get("name", "stream_ae")
        raise ConfigError("; ".join(idle) + f": leave it out. Settings of {name}: docs/models.md.")
    return chosen


def without_idle(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model less the settings that would change nothing beside the others. Raises `ConfigError`."""
    idle = _validated(model).idle()
    return {key: value for key, value in model.items() if key not in idle}


def _validated(model: Mapping[str, Any]) -> ModelSettings:
    return validated(
        {name: kind for name, (kind, _) in _MODELS.items()}, model.get("name", "stream_ae"), model
    )


def build(model: Mapping[str, Any], features: int, window: WindowConfig, device: str) -> OnlineModel:
    """The model that a configuration names, for `features` values a record.

    Raises `ConfigError` for an unknown model or setting.
    """
    chosen = settings(model)
    _, make = _MODELS[chosen.name]  # type: ignore[attr-defined]
    return make(chosen, features, window, device)
