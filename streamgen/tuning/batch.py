"""What is varied of an image model, which learns in batches: the model's settings."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from streamgen.errors import ConfigError
from streamgen.models.batch import settings
from streamgen.tuning.factors import Wanted, each, step_sizes


@dataclass(frozen=True, slots=True)
class Batch:
    """A `Subject`: the section `model` of an image training's configuration, and the steps of a trial."""

    model: Mapping[str, Any]
    steps: int

    def current(self, key: str) -> Any:
        """See `Subject`. The length of a training is the same for all."""
        if key == "name":
            raise ConfigError("The model itself cannot be varied: tune one, and then the other.")
        if key == "steps":
            raise ConfigError("steps cannot be varied: every choice is trained for as many (--steps).")
        now = settings(self.model)
        if key not in type(now).model_fields:
            settings({**self.model, key: None})  # refuses it, and names what is near
        return getattr(now, key)

    def applied(self, settings_: Mapping[str, Any], reduce: bool = False) -> Batch:
        """See `Subject`."""
        model = {**self.model, **settings_}
        idle = settings(model).idle()
        if reduce:
            return Batch({key: value for key, value in model.items() if key not in idle}, self.steps)
        for key in settings_:
            if key in idle:
                raise ConfigError(f"model.{key} changes nothing with {idle[key]}: leave it out.")
        return Batch(model, self.steps)

    def identity(self) -> str:
        """See `Subject`."""
        now = settings(self.model)
        idle = now.idle()
        seen = {key: value for key, value in now.model_dump(mode="json").items() if key not in idle}
        return json.dumps(seen, sort_keys=True)

    def idle(self) -> Collection[str]:
        """See `Subject`."""
        return settings(self.model).idle()

    def wanted(self) -> list[Wanted]:
        """See `Subject`. Full-batch descent is left to who asks for it: a step costs that of all images."""
        now: Any = settings(self.model)
        wanted: list[Wanted] = [
            (("normalisation",), each("none", "minmax", "standard", "robust", "whitening")),
            (("optimizer", "learning_rate"), step_sizes(now.learning_rate)),
            (("preset",), each("default", "paper")),
            (("width",), each(max(4, now.width // 2), now.width, 2 * now.width)),
            (("depth",), each(1, 2)),
            (("activation",), each("leaky_relu", "relu", "silu", "tanh")),
            (("latent",), each(max(2, now.latent // 2), now.latent, 2 * now.latent)),
            (("schedule",), each("constant", "warmup", "inverse_sqrt", "cosine")),
            (("clip_norm",), each(1.0, 10.0, 100.0)),
            (("ema",), each(0.0, 0.99, 0.999)),
            (("prior",), each("flow", "normal")),
            (("kl_weight",), each(0.3, 1.0, 3.0)),
            (("free_bits",), each(0.0, 0.02, 0.2)),
            (("loss",), each("relativistic", "standard")),
            (("gradient_penalty",), each(0.1, 0.5, 5.0)),
        ]
        return [(keys, values) for keys, values in wanted if all(hasattr(now, key) for key in keys)]
