"""What is varied and what is tried: parsed, usual, one at a time, all together."""

from __future__ import annotations

from itertools import islice, product
from typing import Any

import pytest

from streamgen.config import InputConfig
from streamgen.errors import ConfigError
from streamgen.tuning.factors import (
    as_it_is,
    parse,
    settings_of,
    to_try,
    usual,
)
from streamgen.tuning.online import Online

WINDOW = {"length": 8}


def config(**model: Any) -> Online:
    model = {"name": "stream_ae", **model}
    return Online(InputConfig(topic="t", model=model, window=WINDOW))  # type: ignore[arg-type]


def test_values_are_read_as_yaml_would_and_what_is_comes_first() -> None:
    factor = parse(config(), "clip_norm=0.5,null,1.0,0.5")
    assert (factor.name, [one.label for one in factor.variants]) == ("clip_norm", ["1.0", "0.5", "null"])
    assert [dict(one.settings) for one in factor.variants] == [{}, {"clip_norm": 0.5}, {"clip_norm": None}]
    both = parse(config(), "optimizer+learning_rate=sgd+0.1,adam+0.01")
    assert [one.label for one in both.variants] == ["adam+0.002", "sgd+0.1", "adam+0.01"]
    assert both.variants[1].settings == {"optimizer": "sgd", "learning_rate": 0.1}
    assert [one.label for one in parse(config(), "window.stride=2,8,4").variants] == ["8", "2", "4"]


@pytest.mark.parametrize(
    ("given", "text", "said"),
    [
        ({}, "hidden", "is not understood: write hidden=16,32,64"),
        ({}, "optimizer+learning_rate=sgd", "is not understood"),
        ({}, "hiden=3", r"model\.hiden.*did you mean hidden"),
        ({}, "name=rvae", "The model itself cannot be varied"),
        ({}, "anomaly.warm_up=3", r"model\.anomaly\.warm_up"),
        ({}, "hidden=32", "no value but the one that is configured"),
        ({"preset": "full"}, "ema=0.5", "ema changes generated sequences alone"),
    ],
)
def test_what_cannot_be_varied_is_refused_by_name(given: dict[str, Any], text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(config(**given), text)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["hidden=abc"], r"model\.hidden: Input should be a valid integer"),
        (["normalisation=whitening"], "whitening needs preset: full"),
        (["warm_up=3"], r"model\.warm_up changes nothing with schedule: constant"),
        (["window.length=0"], "window: Input should be greater than or equal to 2"),
        (["window.stride=9"], "window: stride is 9; allowed: at most the length, 8"),
        (["learning_rate=0.1", "optimizer+learning_rate=sgd+0.1"], "learning_rate is varied twice"),
    ],
)
def test_one_at_a_time_refuses_what_cannot_be_or_changes_nothing(texts: list[str], said: str) -> None:
    ours = config()
    with pytest.raises(ConfigError, match=said):
        to_try(ours, [parse(ours, text) for text in texts], "one")


def test_one_at_a_time_is_each_variant_beside_what_is() -> None:
    ours = config()
    factors = [parse(ours, "hidden=4,8"), parse(ours, "layers=2")]
    told = [settings_of(factors, choice) for choice in to_try(ours, factors, "one")]
    assert told == [{}, {"hidden": 4}, {"hidden": 8}, {"layers": 2}]


def test_combinations_are_all_that_differ_each_once() -> None:
    """Against the whole product: what cannot be, and what comes to the same, is left out."""
    ours = config()
    factors = [
        parse(ours, text) for text in ("preset=full,paper", "normalisation=standard,whitening", "updates=1,3")
    ]
    expected = set()
    for labels in product(*[[one.label for one in factor.variants] for factor in factors]):
        choice = dict(zip([factor.name for factor in factors], labels, strict=True))
        if choice["normalisation"] != "whitening" or choice["preset"] == "full":
            expected.add(ours.applied(settings_of(factors, choice), reduce=True).identity())
    choices = list(to_try(ours, factors, "grid"))
    found = [ours.applied(settings_of(factors, choice), reduce=True).identity() for choice in choices]
    assert choices[0] == as_it_is(factors)
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert choices == list(to_try(ours, factors, "halving"))  # the same order every time
    assert choices[1:] != sorted(choices[1:], key=str)


@pytest.mark.parametrize("name", ["stream_ae", "rvae"])
@pytest.mark.parametrize("preset", ["light", "full", "paper"])
def test_the_usual_can_all_be_tried_and_changes_something(name: str, preset: str) -> None:
    ours = config(name=name, preset=preset)
    factors = usual(ours)
    choices = list(to_try(ours, factors, "one"))
    assert len(choices) == 1 + sum(len(factor.variants) - 1 for factor in factors)
    names = {factor.name for factor in factors}
    expected = {
        "normalisation", "optimizer+learning_rate", "preset", "hidden", "layers", "activation", "schedule",
        "clip_norm", "window.stride", "window.length",
        *(("kl_weight", "free_bits") if name == "rvae" else ()),
        *(("reservoir", "updates") if preset == "full" else ()),
    }  # fmt: skip
    assert names == expected
    drawn = list(islice(to_try(ours, factors, "halving"), 50))  # of too many to list
    assert len(drawn) == 50


def test_what_is_given_and_then_idle_is_left_out_of_the_chosen_model() -> None:
    ours = config(optimizer="adamw", weight_decay=0.1)
    best = ours.applied({"optimizer": "sgd", "learning_rate": 0.1}, reduce=True)
    assert best.config.model == {"name": "stream_ae", "optimizer": "sgd", "learning_rate": 0.1}
