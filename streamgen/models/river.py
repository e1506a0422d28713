"""river: a detector of the River library as a baseline, through the same registry.

Half-space trees (Tan, Ting & Liu 2011) over the features' running levels. The trees' splits are a function
of the learner's name and the seed; what is learned is the mass of each node, plain numbers that live in the
learner's row whenever the state is copied. River keeps live trees as objects (megabytes a learner): this is
a baseline for few keys.

Shapes: N records, D features, R trees of V nodes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from streamgen.config import WindowConfig
from streamgen.errors import InputError
from streamgen.models import scale
from streamgen.models.likelihood import Likelihood
from streamgen.models.noise import generator
from streamgen.models.online import Heed, Kind, Learner, Scores
from streamgen.models.scale import Scale
from streamgen.models.settings import ModelSettings
from streamgen.models.slab import Field as StateField
from streamgen.models.slab import Slab
from streamgen.records import Floats, Ints
from streamgen.windows import Ticks


class Settings(ModelSettings):
    """Settings of `river`."""

    model_config = ConfigDict(populate_by_name=True)

    name: Literal["river"]
    detector: Literal["anomaly.HalfSpaceTrees"] = Field(
        "anomaly.HalfSpaceTrees", alias="class", description="River's name of the detector."
    )
    n_trees: int = Field(10, ge=1, le=1000, description="Trees.")
    height: int = Field(8, ge=1, le=15, description="Height of a tree.")
    window_size: int = Field(250, ge=2, description="Records after which a tree's masses take effect.")


class RiverDetector:
    """Half-space trees per learner."""

    name = "river"
    kinds: tuple[Kind, ...] = ()
    cautious = False
    surprises = 1

    def __init__(self, settings: Settings, features: int, window: WindowConfig, device: str) -> None:
        self.settings, self.D = settings, features
        self._live: dict[int, Any] = {}  # row → River's detector; the row is written by `collect`

    def fields(self) -> Mapping[str, StateField]:
        """Scales, and the masses of every node: [R, V, 2] (of the last full window, of the open one)."""
        nodes = 2 ** (self.settings.height + 1) - 1
        return {
            **scale.fields(self.D),
            "updates": StateField(dtype="int64"),
            "mass_RV2": StateField((self.settings.n_trees, nodes, 2), dtype="float32"),
        }

    def start(self, slab: Slab, row: int, learner: Learner) -> None:
        """Trees whose splits are drawn from the learner's name."""
        self._live[row] = self._plant(learner)

    def run(
        self,
        slab: Slab,
        row_N: Ints,
        value_ND: Floats,
        ticks: Ticks,
        learners: Sequence[Learner],
        learn: bool = True,
        heed: Heed | None = None,
    ) -> Scores:
        """See `OnlineModel.run`. A missing feature is left out of River's record, as River has it."""
        scores = Scores.empty(len(value_ND), self.D, self.surprises)
        updates = slab.host("updates")
        for n, row in enumerate(row_N.tolist()):
            value_D = value_ND[n]
            there_D = ~np.isnan(value_D)
            now, trees = Scale.of(slab, row), self._live[row]
            unit_D = 0.5 + now.level(np.where(there_D, value_D, 0.0)) / 8.0
            record = {d: float(unit_D[d]) for d in np.flatnonzero(there_D).tolist()}
            scores.step_N[n] = updates[row]
            # River answers 0 until its first window is full: no opinion yet.
            if updates[row] >= self.settings.window_size:
                scores.surprise_NS[n] = trees.score_one(record)
                scores.contribution_ND[n, there_D] = scores.surprise_NS[n, 0] / there_D.sum()
            if ticks.late_N[n]:
                continue
            now.observe(value_D, there_D)
            if learn:
                trees.learn_one(record)
                updates[row] += 1
        return scores

    def collect(self, slab: Slab, row: int) -> None:
        """See `OnlineModel.collect`."""
        trees = self._live[row].trees
        slab.host("mass_RV2")[row] = [
            [(node.r_mass, node.l_mass) for node in tree.iter_dfs()] for tree in trees
        ]

    def adopt(self, slab: Slab, row: int, learner: Learner) -> None:
        """See `OnlineModel.adopt`."""
        updates = int(slab.host("updates")[row])
        trees = self._live[row] = self._plant(learner)
        for tree, mass_V2 in zip(trees.trees, slab.host("mass_RV2")[row].tolist(), strict=True):
            for node, (full, open_) in zip(tree.iter_dfs(), mass_V2, strict=True):
                node.r_mass, node.l_mass = int(full), int(open_)
        trees.counter = updates % self.settings.window_size
        trees._first_window = updates < self.settings.window_size

    def release(self, slab: Slab, row: int) -> None:
        """See `OnlineModel.release`."""
        del self._live[row]

    def generate(
        self,
        slab: Slab,
        row: int,
        learner: Learner,
        length: int,
        count: int,
        seed: int,
        kind: Kind = "continue",
        given_TD: Floats | None = None,
    ) -> Floats:
        """River's detectors have no distribution to draw from. Raises `InputError`."""
        raise InputError("The model river only detects; generate with stream_ae or rvae.")

    def likelihood(
        self, slab: Slab, row: int, learner: Learner, value_ND: Floats, ticks: Ticks, draws: int, seed: int
    ) -> Likelihood:
        """River's detectors have none. Raises `InputError`."""
        raise InputError("The model river has no likelihood: it only detects. Learn with stream_ae or rvae.")

    def _plant(self, learner: Learner) -> Any:
        from river import anomaly  # imports pandas-like weight: only where it is used

        noise = generator(learner.seed, learner.topic, learner.key, self.name, 0)
        s = self.settings
        trees = anomaly.HalfSpaceTrees(
            n_trees=s.n_trees, height=s.height, window_size=s.window_size, seed=int(noise.integers(2**31))
        )
        # River plants at the first record, from the features that it happens to have: plant from all.
        trees.learn_one(dict.fromkeys(range(self.D), 0.5))
        trees.rng = random.Random(0)
        for tree in trees.trees:
            for node in tree.iter_dfs():
                node.l_mass = 0
        trees.counter = 0
        return trees
