"""How models that learn online are judged: prequentially (Dawid 1984), by the mean negative log-likelihood of
every value, told before the record was learned from.

It is in nats per value of the data's own units, so that no choice of units is at an advantage.

N records, D features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from time import process_time
from typing import Any

import numpy as np

from streamgen import models
from streamgen.config import InputConfig
from streamgen.errors import ConfigError, InputError
from streamgen.learners.results import chosen
from streamgen.learners.task import Task
from streamgen.tuning.online import Online
from streamgen.tuning.stream import Stream
from streamgen.tuning.trial import PARTS, Point

ROWS = 500  # records between two looks at the time


class Prequential:
    """Models that learn online. Raises `ConfigError` for one that gives no likelihood."""

    unit = "nats per value"
    way = "data"
    points = PARTS

    def __init__(self, config: InputConfig, stream: Stream, device: str) -> None:
        if config.model["name"] == "river":
            raise ConfigError("The model river gives no likelihood to compare: tune stream_ae or rvae.")
        models.settings(config.model)
        self._config, self._stream, self._device = config, stream, device

    def __call__(self, settings: Mapping[str, Any], seed: int) -> Iterator[Point | None]:
        config = Online(self._config).applied(settings, reduce=True).config
        tasks = [
            Task(source, config, self._stream.features, seed, self._device)
            for source, _ in self._stream.parts
        ]
        nats, values, seconds = 0.0, 0, 0.0
        for part in range(PARTS):
            for task, (_, columns) in zip(tasks, self._stream.parts, strict=True):
                first, end = (len(columns) * n // PARTS for n in (part, part + 1))
                for n in range(first, end, ROWS):
                    began = process_time()
                    some = chosen(columns, np.arange(n, min(n + ROWS, end)))
                    scores = task.process(some).scores
                    seconds += process_time() - began
                    judged_N = ~np.isnan(scores.nll_N)
                    nats += float((scores.nll_N + scores.log_step_N)[judged_N].sum())
                    values += int((~np.isnan(some.value_ND[judged_N])).sum())
                    yield None
            yield Point(nats / values if values else math.nan, seconds)
        if not values:
            raise InputError(
                f"No key has the {config.min_records} records that a learner begins with (min_records): "
                "there is nothing to compare."
            )
