"""What is varied: settings by factor, and what a choice of one variant of each makes of a configuration.

A setting is named by its key in the model's section, or as `window.length` and `window.stride`. A factor
varies one setting, or several together: a step size belongs to its optimiser.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any, Literal, get_args

import numpy as np
from pydantic import ValidationError

from streamgen import models
from streamgen.config import InputConfig
from streamgen.errors import ConfigError

Choice = Mapping[str, str]  # a variant's label, by factor
# How choices are made: each setting by itself, and then those that were clearly better added up; all
# combinations in an order that is drawn, so that whenever it ends it has seen a fair sample; or the same, but
# what is not among the best third early on is given up.
Search = Literal["one", "grid", "halving"]
SEARCHES: tuple[Search, ...] = get_args(Search)
WINDOW = ("window.length", "window.stride")
# What no score sees: these weigh sequences alone.
UNSCORED = ("ema",)
_LISTED = 100_000  # combinations that are put in order; of more, some are drawn


@dataclass(frozen=True, slots=True)
class Variant:
    """Values of a factor's settings; none: as the configuration has them."""

    label: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Factor:
    """The first variant is the one that the configuration has."""

    name: str
    variants: tuple[Variant, ...]

    @classmethod
    def of(cls, config: InputConfig, keys: Sequence[str], values: Iterable[Sequence[Any]]) -> Factor:
        """The given values of the settings `keys`, behind those that they have now. Raises `ConfigError`."""
        now = tuple(current(config, key) for key in keys)
        others = [value for value in dict.fromkeys(map(tuple, values)) if value != now]
        variants = [Variant(_label(one), dict(zip(keys, one, strict=True))) for one in others]
        return cls("+".join(keys), (Variant(_label(now), {}), *variants))


def current(config: InputConfig, key: str) -> Any:
    """The value of a setting. Raises `ConfigError` for one that there is not, or that no score sees."""
    if key == "window.length":
        return config.window.length
    if key == "window.stride":
        return config.window.stride or config.window.length
    if key in UNSCORED:
        raise ConfigError(
            f"{key} changes generated sequences alone and no score: compare those with streamgen evaluate."
        )
    settings = models.settings(config.model)
    if key == "name":
        raise ConfigError("The model itself cannot be varied: tune one, and then the other.")
    if key not in type(settings).model_fields:
        models.settings({**config.model, key: None})  # refuses it, and names what is near
    return getattr(settings, key)


def parse(config: InputConfig, text: str) -> Factor:
    """The factor of `setting=value,value` or `setting+setting=value+value,value+value`. Raises
    `ConfigError`."""
    names, equals, listed = text.partition("=")
    keys = [key.strip() for key in names.split("+")]
    values = [[_scalar(one.strip()) for one in value.split("+")] for value in listed.split(",")]
    if not equals or any(len(value) != len(keys) for value in values):
        raise ConfigError(
            f"--vary {text} is not understood: write hidden=16,32,64, or optimizer+learning_rate=adam+0.003,"
            "sgd+0.1 for settings that go together."
        )
    factor = Factor.of(config, keys, values)
    if len(factor.variants) == 1:
        raise ConfigError(f"--vary {text} has no value but the one that is configured: name others.")
    return factor


def usual(config: InputConfig) -> list[Factor]:
    """What is worth a try around a configuration, the factors that matter most first."""
    now: Any = models.settings(config.model)
    T, rate = config.window.length, getattr(now, "learning_rate", 0.0)
    rates = [("adam", rate / 3), ("adam", rate), ("adam", 3 * rate), ("adamw", rate)]
    rates += [("momentum", 3 * rate), ("momentum", 30 * rate), ("sgd", 30 * rate), ("sgd", 300 * rate)]
    wanted: list[tuple[tuple[str, ...], list[tuple[Any, ...]]]] = [
        (("normalisation",), _each("none", "minmax", "standard", "robust", "whitening")),
        (("optimizer", "learning_rate"), [(kind, min(float(f"{one:.2g}"), 1.0)) for kind, one in rates]),
        (("preset",), _each("light", "full", "paper")),
        (("hidden",), _each(*(max(1, getattr(now, "hidden", 2) * times // 2) for times in (1, 2, 4)))),
        (("layers",), _each(1, 2)),
        (("activation",), _each("tanh", "leaky_relu", "silu")),
        (("schedule",), _each("constant", "warmup", "inverse_sqrt")),
        (("clip_norm",), _each(0.3, 1.0, None)),
        (("kl_weight",), _each(0.1, 0.3, 1.0)),
        (("free_bits",), _each(0.0, 0.02, 0.2)),
        (("reservoir",), _each(0, 128, 1024)),
        (("updates",), _each(1, 2, 4)),
        (("window.stride",), _each(T, max(1, T // 4))),
        (("window.length",), _each(max(4, T // 2), T, 2 * T)),
    ]
    return list(_possible(config, now, wanted))


def _possible(
    config: InputConfig, now: Any, wanted: list[tuple[tuple[str, ...], list[tuple[Any, ...]]]]
) -> Iterator[Factor]:
    for keys, values in wanted:
        known = all(key in WINDOW or (hasattr(now, key) and key not in now.idle()) for key in keys)
        if not known:
            continue
        able = [value for value in values if _works(config, dict(zip(keys, value, strict=True)))]
        factor = Factor.of(config, keys, able)
        if len(factor.variants) > 1:
            yield factor


def _works(config: InputConfig, settings: Mapping[str, Any]) -> bool:
    try:
        applied(config, settings)
    except ConfigError:
        return False
    return True


def applied(config: InputConfig, settings: Mapping[str, Any], reduce: bool = False) -> InputConfig:
    """The configuration with other settings. Raises `ConfigError` for what cannot be, and, unless it is to
    be left out (`reduce`), for what would change nothing."""
    model = {**config.model, **{key: value for key, value in settings.items() if key not in WINDOW}}
    window = config.window.model_dump()
    window |= {key.removeprefix("window."): value for key, value in settings.items() if key in WINDOW}
    if reduce:
        model = models.without_idle(model)
    models.settings(model)
    try:
        return InputConfig.model_validate({**config.model_dump(), "model": model, "window": window})
    except ValidationError as error:
        raise ConfigError(f"window: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None


def settings_of(factors: Iterable[Factor], choice: Choice) -> dict[str, Any]:
    """What a choice changes."""
    changed: dict[str, Any] = {}
    for factor in factors:
        (variant,) = (one for one in factor.variants if one.label == choice[factor.name])
        changed |= variant.settings
    return changed


def as_it_is(factors: Iterable[Factor]) -> dict[str, str]:
    """The choice that changes nothing."""
    return {factor.name: factor.variants[0].label for factor in factors}


def one_at_a_time(config: InputConfig, factors: Sequence[Factor]) -> list[dict[str, str]]:
    """As it is, and then each other variant beside what all else is. Raises `ConfigError` for one that cannot
    be, or that changes nothing."""
    base = as_it_is(factors)
    choices = [base]
    for factor in factors:
        for variant in factor.variants[1:]:
            if identity(applied(config, variant.settings, reduce=True)) == identity(config):
                applied(config, variant.settings)  # says why
                raise ConfigError(f"{factor.name}: {variant.label} changes nothing: leave it out.")
            choices.append({**base, factor.name: variant.label})
    return choices


def combinations(config: InputConfig, factors: Sequence[Factor]) -> Iterator[dict[str, str]]:
    """As it is, and then all combinations that can be, in an order that is drawn, and no two that come to the
    same. Of too many to list, some."""
    sizes = [len(factor.variants) for factor in factors]
    total = prod(sizes)
    rng = np.random.default_rng(0)
    drawn = iter(lambda: int(rng.integers(min(total, 2**62))), None)
    order: Iterable[int] = rng.permutation(total).tolist() if total <= _LISTED else islice(drawn, _LISTED)
    seen: set[str] = set()
    for number in (0, *order):
        digits = np.unravel_index(number, sizes)
        choice = {
            factor.name: factor.variants[int(digit)].label
            for factor, digit in zip(factors, digits, strict=True)
        }
        try:
            same = identity(applied(config, settings_of(factors, choice), reduce=True))
        except ConfigError:
            continue
        if same not in seen:
            seen.add(same)
            yield choice


def identity(config: InputConfig) -> str:
    """What two choices have in common that come to the same."""
    window = {"length": config.window.length, "stride": config.window.stride or config.window.length}
    return json.dumps([models.settings(config.model).model_dump(mode="json"), window], sort_keys=True)


def to_try(config: InputConfig, factors: Sequence[Factor], search: Search) -> Iterable[dict[str, str]]:
    """The choices of a search, as it is first. Raises `ConfigError` for what cannot be varied like that."""
    keys = [key for factor in factors for key in factor.name.split("+")]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{key} is varied twice: name each setting in one --vary.")
    return one_at_a_time(config, factors) if search == "one" else combinations(config, factors)


def _each(*values: Any) -> list[tuple[Any, ...]]:
    return [(value,) for value in values]


def _label(values: Iterable[Any]) -> str:
    return "+".join("null" if one is None else str(one) for one in values)


def _scalar(text: str) -> Any:
    words = {"null": None, "true": True, "false": False}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
