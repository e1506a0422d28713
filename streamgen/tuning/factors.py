"""What is varied: settings by factor, and which choices of one variant of each are tried.

A setting is named by its key in the model's section, or by a name of the kind of model (`window.length`). A
factor varies one setting, or several together: a step size belongs to its optimiser.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np

from streamgen.errors import ConfigError

Choice = Mapping[str, str]  # a variant's label, by factor
# How choices are made: each setting by itself, and then those that were clearly better added up; all
# combinations in an order that is drawn, so that whenever it ends it has seen a fair sample; or the same, but
# what is not among the best third early on is given up.
Search = Literal["one", "grid", "halving"]
SEARCHES: tuple[Search, ...] = get_args(Search)
Wanted = tuple[tuple[str, ...], list[tuple[Any, ...]]]  # settings that go together, and values of them
_LISTED = 100_000  # combinations that are put in order; of more, some are drawn


class Subject(Protocol):
    """What is tuned: a kind of model, as it is configured."""

    def current(self, key: str) -> Any:
        """The value of a setting. Raises `ConfigError` for one that there is not, or that no score sees."""

    def applied(self, settings: Mapping[str, Any], reduce: bool = False) -> Self:
        """The same with other settings. Raises `ConfigError` for what cannot be, and, unless it is to be left
        out (`reduce`), for what would change nothing."""

    def identity(self) -> str:
        """What two choices have in common that come to the same."""

    def idle(self) -> Collection[str]:
        """The settings that change nothing beside the others."""

    def wanted(self) -> list[Wanted]:
        """What is worth a try around it, the settings that matter most first."""


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
    def of(cls, subject: Subject, keys: Sequence[str], values: Iterable[Sequence[Any]]) -> Factor:
        """The given values of the settings `keys`, behind those that they have now. Raises `ConfigError`."""
        now = tuple(subject.current(key) for key in keys)
        others = [value for value in dict.fromkeys(map(tuple, values)) if value != now]
        variants = [Variant(_label(one), dict(zip(keys, one, strict=True))) for one in others]
        return cls("+".join(keys), (Variant(_label(now), {}), *variants))


def parse(subject: Subject, text: str) -> Factor:
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
    factor = Factor.of(subject, keys, values)
    if len(factor.variants) == 1:
        raise ConfigError(f"--vary {text} has no value but the one that is configured: name others.")
    return factor


def usual(subject: Subject) -> list[Factor]:
    """What is worth a try around what is configured, the factors that matter most first."""
    return list(_possible(subject))


def _possible(subject: Subject) -> Iterator[Factor]:
    idle = subject.idle()
    for keys, values in subject.wanted():
        if any(key in idle for key in keys):
            continue
        able = [value for value in values if _works(subject, dict(zip(keys, value, strict=True)))]
        factor = Factor.of(subject, keys, able)
        if len(factor.variants) > 1:
            yield factor


def _works(subject: Subject, settings: Mapping[str, Any]) -> bool:
    try:
        subject.applied(settings)
    except ConfigError:
        return False
    return True


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


def one_at_a_time(subject: Subject, factors: Sequence[Factor]) -> list[dict[str, str]]:
    """As it is, and then each other variant beside what all else is. Raises `ConfigError` for one that cannot
    be, or that changes nothing."""
    base = as_it_is(factors)
    choices = [base]
    for factor in factors:
        for variant in factor.variants[1:]:
            if subject.applied(variant.settings, reduce=True).identity() == subject.identity():
                subject.applied(variant.settings)  # says why
                raise ConfigError(f"{factor.name}: {variant.label} changes nothing: leave it out.")
            choices.append({**base, factor.name: variant.label})
    return choices


def combinations(subject: Subject, factors: Sequence[Factor]) -> Iterator[dict[str, str]]:
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
            same = subject.applied(settings_of(factors, choice), reduce=True).identity()
        except ConfigError:
            continue
        if same not in seen:
            seen.add(same)
            yield choice


def to_try(subject: Subject, factors: Sequence[Factor], search: Search) -> Iterable[dict[str, str]]:
    """The choices of a search, as it is first. Raises `ConfigError` for what cannot be varied like that."""
    keys = [key for factor in factors for key in factor.name.split("+")]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{key} is varied twice: name each setting in one --vary.")
    return one_at_a_time(subject, factors) if search == "one" else combinations(subject, factors)


def step_sizes(rate: float) -> list[tuple[Any, ...]]:
    """Optimisers with step sizes around one of Adam's."""
    rates = [("adam", rate / 3), ("adam", rate), ("adam", 3 * rate), ("adamw", rate)]
    rates += [("momentum", 3 * rate), ("momentum", 30 * rate), ("sgd", 30 * rate), ("sgd", 300 * rate)]
    return [(kind, min(float(f"{one:.2g}"), 1.0)) for kind, one in rates]


def each(*values: Any) -> list[tuple[Any, ...]]:
    """Values of one setting."""
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
