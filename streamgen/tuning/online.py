"""What is varied of a model that learns online: the model's settings, and the window's length and stride."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from streamgen import models
from streamgen.config import InputConfig
from streamgen.errors import ConfigError
from streamgen.tuning.factors import Wanted, each, step_sizes

WINDOW = ("window.length", "window.stride")
# What no score sees: these weigh sequences alone.
UNSCORED = ("ema",)


@dataclass(frozen=True, slots=True)
class Online:
    """A `Subject`: one input of a configuration."""

    config: InputConfig

    def current(self, key: str) -> Any:
        """See `Subject`. What no score sees is refused, too."""
        window = self.config.window
        if key == "window.length":
            return window.length
        if key == "window.stride":
            return window.stride or window.length
        if key in UNSCORED:
            raise ConfigError(
                f"{key} changes generated sequences alone and no score: compare those with streamgen "
                "evaluate."
            )
        settings = models.settings(self.config.model)
        if key == "name":
            raise ConfigError("The model itself cannot be varied: tune one, and then the other.")
        if key not in type(settings).model_fields:
            models.settings({**self.config.model, key: None})  # refuses it, and names what is near
        return getattr(settings, key)

    def applied(self, settings: Mapping[str, Any], reduce: bool = False) -> Online:
        """See `Subject`."""
        config = self.config
        model = {**config.model, **{key: value for key, value in settings.items() if key not in WINDOW}}
        window = config.window.model_dump()
        window |= {key.removeprefix("window."): value for key, value in settings.items() if key in WINDOW}
        if reduce:
            model = models.without_idle(model)
        models.settings(model)
        try:
            return Online(
                InputConfig.model_validate({**config.model_dump(), "model": model, "window": window})
            )
        except ValidationError as error:
            raise ConfigError(f"window: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None

    def identity(self) -> str:
        """See `Subject`."""
        window = self.config.window
        shape = {"length": window.length, "stride": window.stride or window.length}
        settings = models.settings(self.config.model).model_dump(mode="json")
        return json.dumps([settings, shape], sort_keys=True)

    def idle(self) -> Collection[str]:
        """See `Subject`."""
        return models.settings(self.config.model).idle()

    def wanted(self) -> list[Wanted]:
        """See `Subject`."""
        now: Any = models.settings(self.config.model)
        T, rate = self.config.window.length, getattr(now, "learning_rate", 0.0)
        wanted: list[Wanted] = [
            (("normalisation",), each("none", "minmax", "standard", "robust", "whitening")),
            (("optimizer", "learning_rate"), step_sizes(rate)),
            (("preset",), each("light", "full", "paper")),
            (("hidden",), each(*(max(1, getattr(now, "hidden", 2) * times // 2) for times in (1, 2, 4)))),
            (("layers",), each(1, 2)),
            (("activation",), each("tanh", "leaky_relu", "silu")),
            (("schedule",), each("constant", "warmup", "inverse_sqrt")),
            (("clip_norm",), each(0.3, 1.0, None)),
            (("kl_weight",), each(0.1, 0.3, 1.0)),
            (("free_bits",), each(0.0, 0.02, 0.2)),
            (("reservoir",), each(0, 128, 1024)),
            (("updates",), each(1, 2, 4)),
            (("window.stride",), each(T, max(1, T // 4))),
            (("window.length",), each(max(4, T // 2), T, 2 * T)),
        ]
        return [(keys, values) for keys, values in wanted if all(self._has(now, key) for key in keys)]

    @staticmethod
    def _has(now: Any, key: str) -> bool:
        return key in WINDOW or hasattr(now, key)
