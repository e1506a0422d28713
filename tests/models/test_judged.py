"""The interval of an imputed value is its own: two columns that are one, of which one is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamgen.config import InputConfig, WindowConfig
from streamgen.learners.task import Task
from streamgen.records import Columns, TopicPartition

MODELS: dict[str, dict[str, Any]] = {
    "stream_ae": {"name": "stream_ae", "hidden": 8, "learning_rate": 0.01},
    "stream_ae full": {"name": "stream_ae", "preset": "full", "hidden": 8, "reservoir": 50},
    "rvae": {"name": "rvae", "hidden": 8, "latent": 2, "learning_rate": 0.005},
}


@pytest.mark.parametrize("model", MODELS)
def test_an_imputed_value_lies_in_an_interval_that_is_narrower_than_before_the_record(model: str) -> None:
    config = InputConfig(topic="t", model=MODELS[model], window=WindowConfig(length=16))
    task = Task(TopicPartition("t", 0), config, ("a", "b"), 0, "cpu")
    rng = np.random.default_rng(0)
    N, M = 1200, 200
    whole_ND = rng.normal(size=(N, 1)).cumsum(0) + 0.05 * rng.normal(size=(N, 2))
    value_ND = whole_ND.copy()
    missing_N = np.arange(N) % 4 == 3
    value_ND[missing_N, 1] = np.nan
    offset_N = np.arange(N)
    scores = task.process(Columns(offset_N, offset_N * 60_000, ["k"] * N, value_ND, offset_N)).scores
    last = missing_N & (offset_N >= N - M)
    low_M, high_M, expected_M = (
        part[last, 1] for part in (scores.low_ND, scores.high_ND, scores.expected_ND)
    )
    assert ((low_M <= expected_M) & (expected_M <= high_M)).all()
    inside = ((low_M <= whole_ND[last, 1]) & (whole_ND[last, 1] <= high_M)).mean()
    assert inside > 0.75
    # What was not missing could not be known so well: the other column was not there before it.
    before = scores.high_ND[last, 0] - scores.low_ND[last, 0]
    assert np.median(high_M - low_M) < 0.7 * np.median(before)
