"""What the settings of every model have in common: presets, and a word for what would change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class ModelSettings(BaseModel):
    """Settings of a model. The defaults are those of the preset `light`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # What a preset sets where nothing else is said.
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _above_its_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {**cls.presets.get(str(given.get("preset")), {}), **given}

    def idle(self) -> dict[str, str]:
        """The settings that change nothing beside the others, each with what makes it so: who gives one has
        meant something else, so it is refused (`models.settings`)."""
        return {}
