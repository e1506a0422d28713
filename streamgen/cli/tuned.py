"""What the kinds of data that `streamgen tune` takes have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamgen.tuning.trial import Trial


@dataclass(frozen=True, slots=True)
class Matter:
    """What choices are tried on, and what there is to say of it."""

    trial: Trial
    facts: dict[str, Any]  # what a study may not mix
    data: list[str]  # the data in words
    judged: str  # the score in words
    name: str  # of the model
    best: Callable[[Mapping[str, Any]], str]  # changed settings as the content of a configuration file
    takers: str  # of that file
