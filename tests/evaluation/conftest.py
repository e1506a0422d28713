"""The judges that are networks, with a few iterations instead of thousands."""

from __future__ import annotations

from functools import partial

import pytest

from streamgen.evaluation import context_fid, discriminative_score, predictive_score, report
from streamgen.records import Floats


@pytest.fixture
def short_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(
        real: Floats, generated: Floats, seed: int, units: int | None = None, iterations: int = 0
    ) -> float:
        return discriminative_score(real, generated, seed, units, 10)

    monkeypatch.setattr(report, "discriminative_score", told)
    monkeypatch.setattr(report, "predictive_score", partial(predictive_score, iterations=10))
    monkeypatch.setattr(report, "context_fid", partial(context_fid, iterations=5))
