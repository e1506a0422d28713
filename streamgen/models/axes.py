"""Between a learner's records and what its sequence model sees: units and uncorrelated axes, as they stand.

    level v = (x − mean) / spread,   step y = (x − x before) / δ         (`units`: their kind is a setting)
    u = q(L_v⁻¹ v),   d = q(L_y⁻¹ y)                                     (`whitening`, where it is the kind)
    q(x) = 4 tanh(x / 4)   or   q(x) = asinh x

Records are kept raw and turned into u and d when they are used, so that all of a window is seen with the
newest statistics. What is bounded is scored a little better; who generates must know how far out a value is,
or it never comes back. Where a value is missing the record has the last one that came, so its step is zero.

Shapes: D features, C time features, I = 3D + C; an ellipsis stands for any axes before them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamgen.models import units, whitening
from streamgen.models.often import Often
from streamgen.models.scale import RECENT, Scale
from streamgen.models.slab import Field, Slab
from streamgen.models.units import Normalisation
from streamgen.models.whitening import Whitening
from streamgen.records import Bools, Floats

Float32s = NDArray[np.float32]
LARGEST = 1e6  # units; a model's arithmetic is float32
SMALLEST = 1e-3  # of a value against its usual size

Squash = Callable[[Floats], Floats]


def bounded(x: Floats) -> Floats:
    """4 tanh(x / 4)."""
    return np.asarray(4.0 * np.tanh(x / 4.0))


def compressed(x: Floats) -> Floats:
    """asinh x."""
    return np.asarray(np.arcsinh(x))


def fields(D: int, kind: Normalisation) -> dict[str, Field]:
    """The state of the axes; that of the scales is `scale`'s."""
    whitened = {**whitening.fields("level", D), **whitening.fields("step", D)}
    return {
        **units.fields(D, kind),
        **(whitened if kind == "whitening" else {}),
        "swing_D": Field((D,)),  # mean size of the last `RECENT` steps, exponentially weighted
    }


def observe(slab: Slab, row: int, kind: Normalisation, value_D: Floats, there_D: Bools) -> None:
    """Take one record into scales and axes; missing values leave their feature as it is."""
    now = Scale.of(slab, row)
    before_D = now.last_D.copy()
    now.observe(value_D, there_D)
    step_D = value_D - before_D  # NaN where one is missing
    units.observe(slab, row, kind, value_D, step_D)
    moved_D = ~np.isnan(step_D)
    if kind == "whitening":
        Whitening.of(slab, row, "level").observe((value_D - now.mean_D) / now.unit(), there_D)
        Whitening.of(slab, row, "step").observe(step_D / now.delta(), moved_D)
    swing_D = slab.host("swing_D")[row]
    size_D = np.where(moved_D, np.abs(step_D), swing_D)
    swing_D += (size_D - swing_D) / np.clip(now.count_D - 1, 1, RECENT)


@dataclass(frozen=True, slots=True)
class Axes:
    """One learner's units, the Cholesky factors of the second moments of its levels and steps, what is made
    of large values (q), and the usual value of each feature: the one it has most often, else the mean."""

    mean_D: Floats
    unit_D: Floats
    delta_D: Floats
    level_DD: Floats
    step_DD: Floats

    squash: Squash
    home_D: Floats

    @classmethod
    def of(cls, slab: Slab, row: int, kind: Normalisation, squash: Squash) -> Axes:
        if kind == "whitening":
            level_DD, step_DD = (Whitening.of(slab, row, name).factor() for name in ("level", "step"))
        else:
            level_DD = step_DD = np.eye(len(slab.host("swing_D")[row]))
        mean_D, unit_D, delta_D = units.units(slab, row, kind)
        home_D = Often.of(slab, row).usual(mean_D) if "often_KD" in slab.fields else mean_D
        return cls(mean_D, unit_D, delta_D, level_DD, step_DD, squash, home_D)

    def level(self, value_D: Floats) -> Floats:
        """[..., D] values as levels; zero where there never was a value (NaN)."""
        return _finite((value_D - self.mean_D) / self.unit_D)

    def step(self, value_D: Floats, before_D: Floats) -> Floats:
        """[..., D] values as steps from the record before; zero where there never was a value (NaN)."""
        return _finite((value_D - before_D) / self.delta_D)

    def places(self, value_ND: Floats, before_ND: Floats) -> tuple[Floats, ...]:
        """Where the steps after N records begin (`joint.Places`), of values and those of the records before
        them; what there never was counts as none."""
        home_ND = _finite((self.home_D - value_ND) / self.delta_D)
        size_ND = np.abs(value_ND) / (np.abs(self.mean_D) + self.unit_D)
        return (
            self.step(value_ND, before_ND),
            home_ND,
            np.clip(np.where(np.isnan(size_ND), 1.0, size_ND), SMALLEST, 1 / SMALLEST),
            self.unit_D / self.delta_D,
            self.step_DD,
            self.level_DD,
        )

    def swing(self, swing_D: Floats) -> Floats:
        """[..., D] how large the recent steps are against the usual: log swing / δ, bounded to ±4. `scale`
        remembers thousands of records: where steps grow, or come in bursts, it lags."""
        ratio_D = np.clip(swing_D / self.delta_D, 1e-3, LARGEST)
        return bounded(np.log(ratio_D))

    def records(
        self, value_D: Floats, before_D: Floats, seen_D: Bools, time_C: Floats | Float32s
    ) -> Float32s:
        """[..., I] records as the network sees them: u, d, mask, time."""
        # The inverse of a triangle that is never singular; a thousand is the most that it magnifies.
        level_D = self.level(value_D) @ np.linalg.inv(self.level_DD).T
        step_D = self.step(value_D, before_D) @ np.linalg.inv(self.step_DD).T
        parts = (self.squash(level_D), self.squash(step_D), seen_D, time_C)
        return np.concatenate(parts, axis=-1, dtype=np.float32)

    def window(self, value_TD: Floats, seen_TD: Bools, time_TC: Floats | Float32s) -> Float32s:
        """[..., T, I] records of windows. The first has no record before it that the window knows."""
        before_TD = np.concatenate([value_TD[..., :1, :], value_TD[..., :-1, :]], axis=-2)
        return self.records(value_TD, before_TD, seen_TD, time_TC)

    def targets(self, value_TD: Floats, seen_TD: Bools) -> tuple[Floats, Bools]:
        """[..., T, D] what a likelihood looks at, a level and then steps, zero where it does not; and where
        it does: the step to a feature's first value ever is from nowhere."""
        first_D, rest_TD, before_TD = value_TD[..., :1, :], value_TD[..., 1:, :], value_TD[..., :-1, :]
        known_TD = seen_TD.copy()
        known_TD[..., 1:, :] &= ~np.isnan(before_TD)
        target_TD = np.concatenate([self.level(first_D), self.step(rest_TD, before_TD)], axis=-2)
        return np.where(known_TD, target_TD, 0.0), known_TD


def held(value_TD: Floats, before_D: Floats) -> Floats:
    """[..., T, D] where a value is missing (NaN) the last one that came, [..., D] `before` where there is
    none yet."""
    every_TD = np.concatenate([before_D[..., None, :], value_TD], axis=-2)
    place_T1 = np.arange(every_TD.shape[-2])[:, None]
    last_TD = np.maximum.accumulate(np.where(np.isnan(every_TD), 0, place_T1), axis=-2)
    return np.take_along_axis(every_TD, last_TD, axis=-2)[..., 1:, :]


def _finite(unit_D: Floats) -> Floats:
    return np.where(np.isnan(unit_D), 0.0, np.clip(unit_D, -LARGEST, LARGEST))
