"""How far a learner's forecasts fan out: corrected by how often its own earlier ones were right.

A model that is right one record ahead may still be too sure of the day after: small errors of its mean add
up. So it makes a forecast now and then, waits for the records, and sees which lie in its central 80 %; the
next one begins a drawn number of records later, at another hour of the day. κ is added to the log scales of
the step that is h ahead, of A:

    κ_h = a + b φ_h,   φ_h = log h / log A
    a ← a + P RATE (share outside − 0.2),   b ← b + P RATE (share outside − 0.2) φ_h

Whatever the model and the stream, the mean share outside comes to 0.2 (adaptive conformal inference: Gibbs &
Candès 2021), unless it would take more than `MOST`: what is drawn far beyond anything that the learner saw is
no forecast, however wide. P is the longest pause between two forecasts, in windows of A records: the rarer
they are, the more each teaches. The share is of a record's features; features that move together go on doing
so, since κ is the same for all.

Shapes: A records ahead, D features, M forecasts, C time features.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from streamgen.models.noise import generator
from streamgen.models.online import Learner
from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats
from streamgen.windows import steady_times

DRAWS = 64  # M
RATE = 0.01
MOST = 1.0
OUTSIDE = 0.2


def fields(ahead: int, D: int) -> dict[str, Field]:
    """a and b, and the forecast that waits for its records."""
    return {
        "fan_2": Field((2,)),
        "fan_low_AD": Field((ahead, D)),
        "fan_high_AD": Field((ahead, D)),
        "fan_left": Field(dtype="int64"),  # its records that are still to come; below 0: until the next one
        "fan_pause": Field(dtype="int64"),  # records between it and the next
        "fan_count": Field(dtype="int64"),  # forecasts that ever were: keys their noise
    }


def widening(slab: Slab, row: int, step: int) -> float:
    """κ of the step so many records ahead, from 1; beyond A it is that of A."""
    a, b = slab.host("fan_2")[row].tolist()
    return float(a + b * _far(step, len(slab.host("fan_low_AD")[row])))


def due(slab: Slab, row: int) -> bool:
    """Whether it is time for a forecast: none before the learner has learned."""
    return bool(slab.host("fan_left")[row] == 0 and slab.host("updates")[row] > 0)


def forecast(
    slab: Slab,
    row: int,
    name: str,
    learner: Learner,
    newest: int,
    gap: float,
    ahead: Callable[[np.random.Generator, Floats, int], Floats],
    pause: int = 1,
) -> None:
    """Forecasts of the next A records, by which the fan is corrected when they are there.

    The row's clock is at the end of the batch: the newest record's time and the usual step are given. `ahead`
    draws [M, A, D] for times [A, C], with noise of the model `name`.
    """
    slab.host("fan_count")[row] += 1
    made = int(slab.host("fan_count")[row])
    noise = generator(learner.seed, learner.topic, learner.key, f"{name}.fan", made)
    time_AC = steady_times(newest, np.arange(1, len(slab.host("fan_low_AD")[row]) + 1), gap)
    begin(slab, row, ahead(noise, time_AC, DRAWS), noise, pause)


def begin(slab: Slab, row: int, drawn_MAD: Floats, noise: np.random.Generator, pause: int = 1) -> None:
    """Wait for the records that these forecasts are of; `noise` draws how many, below `pause` times as many,
    the next one is off after them."""
    # So that a new record is as likely in each of the M + 1 parts between draws.
    low_AD, high_AD = np.quantile(drawn_MAD, [OUTSIDE / 2, 1 - OUTSIDE / 2], axis=0, method="weibull")
    slab.host("fan_low_AD")[row], slab.host("fan_high_AD")[row] = low_AD, high_AD
    slab.host("fan_left")[row] = len(low_AD)
    slab.host("fan_pause")[row] = noise.integers(pause * len(low_AD))


def observe(slab: Slab, row: int, value_D: Floats, there_D: Bools, pause: int = 1) -> None:
    """Compare the next record, if one is waited for."""
    left = int(slab.host("fan_left")[row])
    low_AD, high_AD = slab.host("fan_low_AD")[row], slab.host("fan_high_AD")[row]
    if left <= 0:
        slab.host("fan_left")[row] = min(left + 1, 0)
        return
    slab.host("fan_left")[row] = left - 1 if left > 1 else -int(slab.host("fan_pause")[row])
    if not there_D.any():
        return
    step = len(low_AD) - left + 1
    outside_D = (value_D < low_AD[step - 1]) | (value_D > high_AD[step - 1])
    wrong = float(outside_D[there_D].mean()) - OUTSIDE
    fan_2 = slab.host("fan_2")[row]
    fan_2 += pause * RATE * wrong * np.array([1.0, _far(step, len(low_AD))])
    np.clip(fan_2, -MOST, MOST, out=fan_2)


def drop(slab: Slab, row: int) -> None:
    """The stream broke off: what was forecast will not come. The next one is as far off as it would have
    been, or a stream of short bursts would have little else."""
    left = int(slab.host("fan_left")[row])
    if left > 0:
        slab.host("fan_left")[row] = -(left + int(slab.host("fan_pause")[row]))


def _far(step: int, ahead: int) -> float:
    return math.log(min(step, ahead)) / math.log(ahead)
