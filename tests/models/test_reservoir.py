"""Which windows of the past a minibatch has: uniform ones, and such that were drawn by recency."""

from __future__ import annotations

import numpy as np
import pytest

from streamgen.models.online import Learner
from streamgen.models.reservoir import Reservoir
from streamgen.models.slab import Field, Slab

ME = Learner(seed=0, topic="t", key="k")
DRAWS = 40_000


def drawn(size: int, recent: float, windows: int) -> tuple[np.ndarray, np.ndarray]:
    """Which windows are kept, newest first, and which were drawn; windows are numbered from 1."""
    reservoir = Reservoir("m", size, recent, {"window_value_T": Field((1,))})
    slab = Slab({"window_value_T": Field((1,)), **reservoir.fields()})
    row = slab.add()
    for n in range(1, windows + 1):
        slab.host("window_value_T")[row] = n
        reservoir.keep(slab, row, ME)
    kept = np.sort(reservoir.kept(slab, row)[0][:, 0])[::-1]
    (batch_BT,) = reservoir.batch(slab, row, DRAWS + 1, np.random.default_rng(1))
    assert batch_BT[0, 0] == windows
    return kept, batch_BT[1:, 0]


@pytest.mark.parametrize("windows", [3, 20, 500])
@pytest.mark.parametrize("recent", [0.0, 0.5, 1.0])
def test_a_share_of_the_draws_is_by_recency(windows: int, recent: float) -> None:
    kept_R, drawn_B = drawn(20, recent, windows)
    count = min(windows, 20)
    assert len(kept_R) == count
    rank_R = np.arange(1, count + 1)
    chance_R = recent * np.log1p(1 / rank_R) / np.log(count + 1) + (1 - recent) / count
    found_R = np.array([(drawn_B == one).mean() for one in kept_R])
    assert found_R.sum() == pytest.approx(1.0)
    assert found_R == pytest.approx(chance_R, abs=5 * np.sqrt(0.25 / DRAWS))


def test_by_recency_each_window_is_drawn_about_as_often_in_the_end() -> None:
    """Uniform draws alone give the first tenth of a stream ten times as many as the last."""

    def total(recent: float) -> np.ndarray:
        reservoir = Reservoir("m", 400, recent, {"window_value_T": Field((1,))})
        slab = Slab({"window_value_T": Field((1,)), **reservoir.fields()})
        row, rng, times_N = slab.add(), np.random.default_rng(0), np.zeros(401)
        for n in range(1, 401):
            slab.host("window_value_T")[row] = n
            reservoir.keep(slab, row, ME)
            (batch_BT,) = reservoir.batch(slab, row, 65, rng)
            np.add.at(times_N, batch_BT[1:, 0].astype(int), 1)
        return times_N[1:361].reshape(9, 40).mean(axis=1)  # the newest tenth will be drawn later

    uniform_9, recent_9 = total(0.0), total(1.0)
    assert uniform_9.max() / uniform_9.min() > 10
    assert recent_9.max() / recent_9.min() < 3
