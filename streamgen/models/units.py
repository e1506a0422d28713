"""In which units a sequence model sees a stream: the setting `normalisation`.

| | a level is | a step is |
|---|---|---|
| none | x | x − x before |
| minmax | (x − least) / (most − least) | (x − x before) / (most − least) |
| standard | (x − mean) / standard deviation | (x − x before) / its root mean square |
| robust | (x − mean) / mean absolute deviation | (x − x before) / its mean size |
| whitening | as robust, and then uncorrelated (`whitening`) | the same |

All run with the stream. Least and most are of all records; the others are means with the memory of `scale`.
D features; values are float64 in input units.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from streamgen.models import span
from streamgen.models.scale import MEMORY, Scale
from streamgen.models.slab import Field, Slab
from streamgen.models.span import Span
from streamgen.records import Floats

Normalisation = Literal["none", "minmax", "standard", "robust", "whitening"]
_LARGEST = 1e150  # its square is finite


def fields(D: int, kind: Normalisation) -> dict[str, Field]:
    """The state of a kind, and of the `span`, beside that of `scale`."""
    squares = {"level_square_D": Field((D,)), "step_square_D": Field((D,))}
    return {**span.fields(D), **(squares if kind == "standard" else {})}


def observe(slab: Slab, row: int, kind: Normalisation, value_D: Floats, step_D: Floats) -> None:
    """Take in one record, after `scale` has; `step_D` is NaN where there is no step."""
    now = Scale.of(slab, row)
    Span.of(slab, row).observe(value_D, step_D)
    if kind == "standard":
        for name, away_D, count_D in (
            ("level_square_D", value_D - now.mean_D, now.count_D),
            ("step_square_D", step_D, now.count_D - 1),
        ):
            mean_D = slab.host(name)[row]
            square_D = np.clip(away_D, -_LARGEST, _LARGEST) ** 2
            new_D = mean_D + (square_D - mean_D) / np.clip(count_D, 1, MEMORY)
            mean_D[:] = np.where(np.isnan(away_D), mean_D, new_D)


def units(slab: Slab, row: int, kind: Normalisation) -> tuple[Floats, Floats, Floats]:
    """Origin and unit of levels, unit of steps: [D] each, units > 0."""
    now = Scale.of(slab, row)
    unit_D, delta_D = now.unit(), now.delta()
    if kind == "none":
        one_D = np.ones_like(unit_D)
        return np.zeros_like(unit_D), one_D, one_D
    if kind == "minmax":
        least_D, most_D, *_ = Span.of(slab, row)
        known_D = most_D >= least_D
        # A column that never moved must not make the first move infinite.
        range_D = np.maximum(np.where(known_D, most_D - least_D, 1.0), 1e-6 * np.abs(now.mean_D) + 1e-30)
        return np.where(known_D, least_D, 0.0), range_D, range_D
    if kind == "standard":
        level_D, step_D = (np.sqrt(slab.host(name)[row]) for name in ("level_square_D", "step_square_D"))
        return now.mean_D.copy(), np.maximum(level_D, 1e-3 * unit_D), np.maximum(step_D, 1e-3 * delta_D)
    return now.mean_D.copy(), unit_D, delta_D
