"""How the networks of a batch model are trained: the settings that all share, and one step of one network.

gd         w ← w − η g, g of all images                             Cauchy 1847
sgd        w ← w − η g, g of a batch                                Robbins & Monro 1951
momentum   m ← 0.9 m + g,  w ← w − η m                              Polyak 1964
adam       moments of g and g²                                      Kingma & Ba 2015
adamw      w ← (1 − η λ) w, then adam                               Loshchilov & Hutter 2019

constant      η
warmup        η min(1, s / S)                                       s-th step, S = `warm_up`
inverse_sqrt  η min(s / S, √(S / s))                                Vaswani et al. 2017
cosine        η min(1, s / S) (1 + cos(π s / steps)) / 2            Loshchilov & Hutter 2017
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from streamgen.models.image_parts import Activation
from streamgen.models.pixels import Normalisation
from streamgen.models.schedule import Schedule, share


class BatchSettings(BaseModel):
    """Settings that every batch model has. A preset changes defaults; what is given stands above it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    PAPER: ClassVar[Mapping[str, Any]] = {}

    preset: Literal["default", "paper"] = Field(
        "default", description="default: convolutions; paper: the survey's plain, fully connected networks."
    )
    normalisation: Normalisation = Field("minmax", description="Units in which the network sees pixels.")
    width: int = Field(16, ge=4, le=1024, description="Channels of the finest map.")
    depth: int = Field(1, ge=1, le=16, description="Residual blocks of each map.")
    activation: Activation = Field("leaky_relu", description="What follows each layer but the last.")
    latent: int = Field(64, ge=2, le=1024, description="Dimensions of the latent.")
    optimizer: Literal["adam", "adamw", "sgd", "momentum", "gd"] = Field(
        "adam", description="How a gradient moves the weights; gd takes that of all images."
    )
    learning_rate: float = Field(0.001, gt=0, le=10, description="The optimiser's step size.")
    schedule: Schedule = Field("warmup", description="How the step size changes with the number of steps.")
    warm_up: int = Field(200, ge=1, description="Steps over which it grows, unless constant.")
    weight_decay: float = Field(
        0.01, ge=0, le=10, description="adamw: decay of the weights, times the step size."
    )
    clip_norm: float = Field(10.0, gt=0, description="Largest norm of a gradient.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged weights that images come from.")
    batch: int = Field(64, ge=2, le=65536, description="Images of a step.")
    steps: int = Field(20000, ge=1, description="Steps of a whole training.")

    def idle(self) -> dict[str, str]:
        """The settings that change nothing beside the others, each with what makes it so."""
        found: dict[str, str] = {}
        if self.preset == "paper":
            found |= dict.fromkeys(("width", "depth"), "preset: paper")
        if self.schedule == "constant":
            found["warm_up"] = "schedule: constant"
        if self.optimizer != "adamw":
            found["weight_decay"] = f"optimizer: {self.optimizer}"
        if self.optimizer == "gd":
            found["batch"] = "optimizer: gd"
        return found

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("preset") == "paper":
            return {**cls.PAPER, **given}
        return given


class Descent:
    """Moves one network's weights; the gradient is in their `grad`, and is taken out of it."""

    def __init__(self, network: nn.Module, settings: BatchSettings, betas: tuple[float, float]) -> None:
        self._named = dict(network.named_parameters())
        self._weights = list(self._named.values())
        self.settings = settings
        self.updates = self.skipped = 0
        self.moved = False  # by the newest step
        rate = settings.learning_rate
        if settings.optimizer in ("adam", "adamw"):
            kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
            decay = settings.weight_decay if settings.optimizer == "adamw" else 0.0
            # One kernel over all weights; the plain loop of torch costs more than the convolutions.
            self._optimiser: torch.optim.Optimizer = kind(
                self._weights, rate, betas, eps=1e-8, weight_decay=decay, fused=True
            )
        else:
            momentum = 0.9 if settings.optimizer == "momentum" else 0.0
            self._optimiser = torch.optim.SGD(self._weights, rate, momentum)

    def step(self, loss: float) -> None:
        """Update; or count it, and change nothing, where the loss or the gradient is not finite."""
        norm = float(nn.utils.clip_grad_norm_(self._weights, self.settings.clip_norm))
        self.moved = math.isfinite(loss) and math.isfinite(norm)
        if self.moved:
            self.updates += 1
            for group in self._optimiser.param_groups:
                group["lr"] = self.rate(self.updates)
            self._optimiser.step()
        else:
            self.skipped += 1
        self._optimiser.zero_grad(set_to_none=True)

    def rate(self, step: int) -> float:
        """η of the `step`-th update, from 1."""
        now = self.settings
        return now.learning_rate * share(now.schedule, step, now.warm_up, now.steps)

    def state(self) -> dict[str, Tensor]:
        """The moments by weight, and the counts."""
        found = {"updates": torch.tensor(self.updates), "skipped": torch.tensor(self.skipped)}
        for name, weight in self._named.items():
            for key, value in self._optimiser.state.get(weight, {}).items():
                if isinstance(value, Tensor):
                    found[f"{name}.{key}"] = value
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`."""
        self.updates, self.skipped = int(state["updates"]), int(state["skipped"])
        self._optimiser.state.clear()
        for name, weight in self._named.items():
            keys = [key for key in state if key.rpartition(".")[0] == name]
            if keys:
                self._optimiser.state[weight] = {
                    key.rpartition(".")[2]: state[key].to(weight.device, copy=True) for key in keys
                }


def average(mean: nn.Module, newest: nn.Module, decay: float, updates: int) -> None:
    """Take the newest weights into their exponential mean (Polyak & Juditsky 1992).

    The first means are short: they must not remember the weights that were drawn.
    """
    share = 1.0 - min(decay, updates / (10.0 + updates))
    with torch.no_grad():
        for old, new in zip(mean.parameters(), newest.parameters(), strict=True):
            old.lerp_(new, share)
