"""A preset is what is not said otherwise; a setting that would change nothing is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamgen import models
from streamgen.config import WindowConfig
from streamgen.errors import ConfigError
from streamgen.models.online import Learner
from streamgen.models.slab import Slab
from streamgen.windows import Clock

ME = Learner(seed=0, topic="t", key="k")
WINDOW = WindowConfig(length=4, stride=2)
# All that makes other settings idle.
CASES: list[dict[str, Any]] = [
    {"name": name, "preset": preset, **more}
    for name in ("stream_ae", "rvae")
    for preset in ("light", "full", "paper")
    for more in (
        {}, {"optimizer": "adamw", "schedule": "warmup"}, *([{"reservoir": 0}] if preset == "full" else []),
        *([{"kl_weight": 0.0}] if name == "rvae" else []),
    )
]  # fmt: skip


def result(model: dict[str, Any]) -> bytes:
    """What a learner says and draws, bit by bit; nothing is refused."""
    kind, make = models._MODELS[model["name"]]
    small = {"hidden": 4, "dense": 3, **({"latent": 2} if model["name"] == "rvae" else {}), **model}
    one = make(kind.model_validate(small), 2, WINDOW, "cpu")
    slab = Slab({**one.fields(), **Clock.FIELDS})
    one.start(slab, slab.add(), ME)
    value_ND = np.random.default_rng(0).normal(size=(30, 2)).cumsum(0)
    row_N = np.zeros(len(value_ND), dtype=np.int64)
    ticks = Clock(WINDOW).advance(slab, row_N, np.arange(len(value_ND)) * 60_000)
    scores = one.run(slab, row_N, value_ND, ticks, [ME])
    return scores.surprise_NS.tobytes() + one.generate(slab, 0, ME, 3, 2, 0).tobytes()


@pytest.mark.parametrize("model", CASES, ids=str)
def test_what_is_idle_changes_nothing_and_is_refused(model: dict[str, Any]) -> None:
    chosen = models.settings(model)
    before = result(model)
    for key, why in chosen.idle().items():
        value = getattr(chosen, key)
        other = value / 2 + 0.1 if isinstance(value, float) else value + 1
        assert result({**model, key: other}) == before, key
        with pytest.raises(ConfigError, match=rf"model\.{key} changes nothing with {why}: leave it out"):
            models.settings({**model, key: value})


def test_nothing_that_is_given_and_matters_is_refused() -> None:
    given = {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "warmup", "warm_up": 10}
    full = {"preset": "full", "reservoir": 3, "updates": 1, "batch": 2, "ema": 0.5}
    for name in ("stream_ae", "rvae"):
        chosen = models.settings({"name": name, **given, **full})
        assert {key: getattr(chosen, key) for key in {**given, **full}} == {**given, **full}


@pytest.mark.parametrize("name", ["stream_ae", "rvae"])
def test_a_preset_is_below_what_is_given(name: str) -> None:
    plain: Any = models.settings({"name": name, "preset": "paper"})
    assert (plain.hidden, plain.dense, plain.activation, plain.clip_norm) == (128, 64, "leaky_relu", None)
    assert plain.normalisation == "standard"
    narrow: Any = models.settings({"name": name, "preset": "paper", "hidden": 5, "normalisation": "minmax"})
    assert (narrow.hidden, narrow.dense, narrow.normalisation) == (5, 64, "minmax")


def test_whitening_of_the_network_that_has_none_is_refused_by_name() -> None:
    for preset in ("light", "paper"):
        with pytest.raises(ConfigError, match=r"model\.normalisation: whitening needs preset: full"):
            models.settings({"name": "stream_ae", "preset": preset, "normalisation": "whitening"})
