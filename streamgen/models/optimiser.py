"""How a gradient moves one learner's weights: optimisers on flat vectors, clipped by norm.

    sgd        w ← w − η g                                              Robbins & Monro 1951
    momentum   m ← 0.9 m + g,  w ← w − η m                              Polyak 1964
    adam       moments of g and g², β = (0.9, 0.99)                     Kingma & Ba 2015, algorithm 1
    adamw      w ← (1 − η λ) w, then adam                               Loshchilov & Hutter 2019

The rate η may change with the number of updates, never with the length of a stream, which nobody knows:

    constant      η
    warmup        η min(1, s / S)                                       s-th update, S = `warm_up`
    inverse_sqrt  η min(s / S, √(S / s))                                Vaswani et al. 2017

With `start_from: shared` a new key begins with a mean of the weights of its task's keys, which all began with
the same ones: after each update of any key φ ← φ + ε (w − φ) (Reptile: Nichol et al. 2018, "On first-order
meta-learning algorithms").

Shapes: P parameters, padded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.optim.adamw import adamw

from streamgen.models import averaging
from streamgen.models.online import Learner
from streamgen.models.schedule import share
from streamgen.models.settings import ModelSettings
from streamgen.models.slab import Field as StateField
from streamgen.models.slab import Slab


class OptimiserSettings(ModelSettings):
    """Settings of the optimiser, which models have among their own."""

    optimizer: Literal["adam", "adamw", "sgd", "momentum"] = Field(
        "adam", description="How a gradient moves the weights."
    )
    learning_rate: float = Field(0.003, gt=0, le=1, description="The optimiser's step size.")
    schedule: Literal["constant", "warmup", "inverse_sqrt"] = Field(
        "constant", description="How the step size changes with the number of updates."
    )
    warm_up: int = Field(200, ge=1, description="Updates over which it grows, unless constant.")
    weight_decay: float = Field(
        0.01, ge=0, le=10, description="adamw: decay of the weights, times the step size."
    )
    clip_norm: float | None = Field(1.0, gt=0, description="Largest norm of a gradient; null: any.")
    scope: Literal["key", "task"] = Field(
        "key",
        description="Whose the weights are: each key's own, or those of all keys of a partition together.",
    )

    start_from: Literal["noise", "shared"] = Field(
        "noise",
        description="A new key's first weights: drawn from its name, or a mean of those that the keys of its "
        "partition have learned.",
    )

    @property
    def shared(self) -> bool:
        """Whether all keys of a task have the same weights."""
        return self.scope == "task"

    def drawn_by(self, learner: Learner) -> Learner:
        """Whose name the first weights are drawn from: shared ones are no key's."""
        return replace(learner, key=None) if self.shared or self.start_from == "shared" else learner

    def idle(self) -> dict[str, str]:
        idle = {} if self.optimizer == "adamw" else {"weight_decay": f"optimizer: {self.optimizer}"}
        idle |= {"start_from": "scope: task"} if self.shared else {}
        return idle | ({} if self.schedule != "constant" else {"warm_up": "schedule: constant"})


class Optimiser:
    """One step at a time, on a row's `weights_P` and the moments that the optimiser needs beside them."""

    # Few updates a learner: a shorter memory of the second moment than Adam's usual.
    BETAS = (0.9, 0.99)
    MOMENTUM = 0.9
    STAYS = 0.99  # 1 − ε, of the weights that new keys start from

    def __init__(self, settings: OptimiserSettings) -> None:
        self.settings = settings
        self._leads = settings.start_from == "shared"
        self._moments = {"sgd": (), "momentum": ("first_P",)}.get(settings.optimizer, ("first_P", "second_P"))

    def fields(self, size: int) -> Mapping[str, StateField]:
        """Weights, moments, and the number of updates; the weights that new keys start from, of how many
        updates they are, and whether the key has started."""
        shared = self.settings.shared
        vector = StateField((size,), dtype="float32", on_device=True, shared=shared)
        start = {
            "start_P": replace(vector, shared=True),
            "start_updates": StateField(dtype="int64", shared=True),
            "started": StateField(dtype="int64"),
        }
        return {
            **(start if self._leads else {}),
            "weights_P": vector,
            **dict.fromkeys(self._moments, vector),
            "updates": StateField(dtype="int64", shared=shared),
        }

    def begin(self, slab: Slab, row: int) -> None:
        """Called at each record of a learner, before it: at its first it takes the weights that new keys
        start from. (Not sooner: whose records came in between would depend on how the log was cut.)"""
        if not self._leads or slab.host("started")[row]:
            return
        slab.host("started")[row] = 1
        weights_P, start_P = slab.tensor("weights_P")[row], slab.tensor("start_P")[row]
        if not slab.host("start_updates")[row]:
            start_P.copy_(weights_P)
        weights_P.copy_(start_P)
        if "average_P" in slab.fields:
            slab.tensor("average_P")[row].copy_(start_P)

    def rate(self, step: int) -> float:
        """η of the `step`-th update, from 1."""
        now = self.settings
        return now.learning_rate * share(now.schedule, step, now.warm_up)

    def step(self, slab: Slab, row: int, gradient_P: Tensor) -> bool:
        """Update the row in place. Return False, and change nothing, when the gradient or the update is not
        finite (law: what is not finite never spreads)."""
        norm = float(torch.linalg.vector_norm(gradient_P))
        if not math.isfinite(norm):
            return False
        most = self.settings.clip_norm
        if most is not None and norm > most:
            gradient_P = gradient_P * (most / norm)
        step = int(slab.host("updates")[row]) + 1
        weights_P = slab.tensor("weights_P")[row]
        moments = [slab.tensor(name)[row] for name in self._moments]
        updated_P, *moved = self._moved(weights_P, moments, gradient_P, step)
        # One pass over the weights, where isfinite(…).all() takes four; both ends are NaN if any weight is.
        if not all(math.isfinite(float(end)) for end in torch.aminmax(updated_P)):
            return False
        weights_P.copy_(updated_P)
        for moment_P, moved_P in zip(moments, moved, strict=True):
            moment_P.copy_(moved_P)
        slab.host("updates")[row] = step
        if self._leads:
            updates = int(slab.host("start_updates")[row])
            averaging.take_in(slab.tensor("start_P")[row], weights_P, self.STAYS, updates)
            slab.host("start_updates")[row] = updates + 1
        return True

    def _moved(
        self, weights_P: Tensor, moments: list[Tensor], gradient_P: Tensor, step: int
    ) -> tuple[Tensor, ...]:
        """Weights and moments after the step."""
        rate = self.rate(step)
        if not moments:
            return (weights_P - rate * gradient_P,)
        if len(moments) == 1:
            velocity_P = self.MOMENTUM * moments[0] + gradient_P
            return weights_P - rate * velocity_P, velocity_P
        updated_P, first_P, second_P = weights_P.clone(), moments[0].clone(), moments[1].clone()
        decay = self.settings.weight_decay if self.settings.optimizer == "adamw" else 0.0
        before = torch.tensor(step - 1.0, device=weights_P.device)
        # One kernel over all weights: plain operations would read and write them a dozen times.
        adamw(
            [updated_P], [gradient_P], [first_P], [second_P], [], [before],
            fused=True, amsgrad=False, maximize=False, lr=rate, weight_decay=decay,
            beta1=self.BETAS[0], beta2=self.BETAS[1], eps=1e-8,
        )  # fmt: skip
        return updated_P, first_P, second_P
