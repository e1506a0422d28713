"""What a stream's values have ever been: their ends, their steps' ends, their grid, and their order.

The tails of a distribution that was learned are made of few records, and what is drawn there is fed back as
the record before the next. So what a learner generates keeps to what was seen:

- between the least and the most of a feature's values, and of its steps;
- on the grid that all its values lie on, in millionths (a sensor of two decimals, a counter of tens);
- a feature that was never above another one is not above it (a day's highest price).

A draw is moved onto the grid. A value beyond the ends is mirrored at them: what a smooth density has beyond a
bound belongs inside, beside it (boundary correction: Silverman 1986, section 2.10). What leaves the rest is
drawn again (rejection sampling of the truncated distribution). A value that is as good as inside is put
there, for many streams stand at their end. What did not happen in n records has a probability of about one in
n, so little is cut off that should be there. D features, B sequences, P pairs; units are the input's.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats, Ints

AGAIN = 16
ENOUGH = 64  # values that tell a grid
OFTEN = 256  # times that a feature was below another one, and never above, tell an order
NEAR = 0.02  # usual steps; a draw that is no further out of order is moved, for values are often equal
MILLION = 1e6
NO_GRID = -1


def fields(D: int) -> dict[str, Field]:
    """Least and most of each feature's values, and of its steps, infinite before there is one; the number of
    its values up to `ENOUGH`, the grid's width in millionths; and how often the first of two features was
    above the second, up to `OFTEN`."""
    least, most, count = Field((D,), fill=np.inf), Field((D,), fill=-np.inf), Field((D,), dtype="int64")
    return {
        **{"least_D": least, "most_D": most, "fall_D": least, "rise_D": most},
        **{"told_D": count, "grid_D": count, "above_DD": Field((D, D), dtype="int16")},
    }


class Drawable(Protocol):
    """B distributions of a record."""

    def draw(self, noise: np.random.Generator) -> torch.Tensor:
        """One y from each, [B, D]."""

    def some(self, rows_B: torch.Tensor) -> Self:
        """Some of the B."""


class Span(NamedTuple):
    """One learner's, as it stands: views of its row."""

    least_D: Floats
    most_D: Floats
    fall_D: Floats
    rise_D: Floats
    told_D: Ints
    grid_D: Ints
    above_DD: NDArray[np.int16]

    @classmethod
    def of(cls, slab: Slab, row: int) -> Span:
        return cls(*(slab.host(name)[row] for name in fields(0)))

    def observe(self, value_D: Floats, step_D: Floats) -> None:
        """Take in one record and its step; NaN where there is none."""
        np.fmin(self.least_D, value_D, out=self.least_D)
        np.fmax(self.most_D, value_D, out=self.most_D)
        np.fmin(self.fall_D, step_D, out=self.fall_D)
        np.fmax(self.rise_D, step_D, out=self.rise_D)
        there_D = ~np.isnan(value_D)
        np.minimum(self.told_D + there_D, ENOUGH, out=self.told_D)
        with np.errstate(over="ignore"):
            exact_D = np.where(there_D, value_D, 0.0) * MILLION
        fits_D = np.abs(exact_D) < 2.0**62
        near_D = np.rint(np.where(fits_D, exact_D, 0.0))
        fits_D &= np.abs(exact_D - near_D) <= 4 * np.spacing(np.abs(near_D))  # of a decimal's own rounding
        grid_D = np.where(fits_D, np.gcd(self.grid_D, near_D.astype(np.int64)), NO_GRID)
        self.grid_D[:] = np.where(self.grid_D == NO_GRID, NO_GRID, grid_D)
        np.minimum(self.above_DD + (value_D[:, None] > value_D), OFTEN, out=self.above_DD)

    def anywhere(self) -> Span:
        """Of steps alone: a stream that goes on may come to where it never was."""
        nowhere_D = np.full_like(self.least_D, np.inf)
        return self._replace(least_D=-nowhere_D, most_D=nowhere_D)

    def jumping(self) -> Span:
        """Of values alone: a first record comes from nowhere."""
        nowhere_D = np.full_like(self.fall_D, np.inf)
        return self._replace(fall_D=-nowhere_D, rise_D=nowhere_D)

    def draw(
        self,
        one: Drawable,
        noise: np.random.Generator,
        origin_BD: Floats,
        unit_D: Floats,
        fixed_D: Bools | None = None,
    ) -> Floats:
        """[B, D] values origin + unit y, of one y from each of B distributions, that keep to the span; one
        that leaves it `AGAIN` times is moved to where it ends. Features that are `fixed` in what y is drawn
        from may have any value, and are not moved: others are in order with them."""
        if fixed_D is not None and fixed_D.any():
            return self._free(fixed_D)._draw(one, noise, origin_BD, unit_D, fixed_D)
        return self._draw(one, noise, origin_BD, unit_D, np.zeros(len(unit_D), dtype=np.bool_))

    def _draw(
        self,
        one: Drawable,
        noise: np.random.Generator,
        origin_BD: Floats,
        unit_D: Floats,
        fixed_D: Bools,
    ) -> Floats:
        y_BD, pairs = one.draw(noise), self.ordered()
        value_BD = self._placed(origin_BD + unit_D * y_BD.cpu().numpy().astype(np.float64), unit_D)
        for _ in range(AGAIN):
            step_BD = value_BD - origin_BD
            out_B = self.beyond(value_BD, step_BD, NEAR * unit_D)
            out_B |= self._out_of_order(value_BD, step_BD, pairs, NEAR * unit_D)
            if not out_B.any():
                break
            again_BD = one.some(torch.from_numpy(out_B).to(y_BD.device)).draw(noise)
            value_BD[out_B] = self._placed(origin_BD[out_B] + unit_D * again_BD.cpu().numpy(), unit_D)
        value_BD = self.on_grid(self.nearest(value_BD, value_BD - origin_BD))
        fixed_first = sorted(
            zip(*(part.tolist() for part in pairs), strict=True), key=lambda p: not fixed_D[p[1]]
        )
        for lower, upper in fixed_first:  # what is below a fixed one is so before it lifts another one
            if fixed_D[upper]:
                np.minimum(value_BD[:, lower], value_BD[:, upper], out=value_BD[:, lower])
            else:
                np.maximum(value_BD[:, upper], value_BD[:, lower], out=value_BD[:, upper])
        return value_BD

    def _placed(self, value_BD: Floats, unit_D: Floats) -> Floats:
        """[B, D] draws on the grid; those beyond the ends by more than `NEAR` units, and by less than half of
        the range, mirrored there. A grid's outermost cell ends half a width beyond the outermost value."""
        near_D, far_D = NEAR * unit_D, (self.most_D - self.least_D) / 2
        half_D = self._width() / 2
        low_D, high_D = self.least_D - half_D, self.most_D + half_D
        with np.errstate(invalid="ignore", over="ignore"):  # of what is infinite: it is put at the end
            above_BD, below_BD = value_BD - high_D, low_D - value_BD
            value_BD = np.where((near_D < above_BD) & (above_BD < far_D), high_D - above_BD, value_BD)
            value_BD = np.where((near_D < below_BD) & (below_BD < far_D), low_D + below_BD, value_BD)
        return self.on_grid(value_BD)

    def _free(self, fixed_D: Bools) -> Span:
        """Without what it says of some features, but their order with others."""
        least_D, fall_D = (np.where(fixed_D, np.inf, end_D) for end_D in (self.least_D, self.fall_D))
        most_D, rise_D = (np.where(fixed_D, -np.inf, end_D) for end_D in (self.most_D, self.rise_D))
        both_DD = fixed_D & fixed_D[:, None]
        return self._replace(
            least_D=least_D, most_D=most_D, fall_D=fall_D, rise_D=rise_D,
            grid_D=np.where(fixed_D, NO_GRID, self.grid_D),
            above_DD=np.where(both_DD, np.int16(1), self.above_DD),
        )  # fmt: skip

    def _out_of_order(
        self, value_BD: Floats, step_BD: Floats, pairs: tuple[Ints, Ints], near_D: Floats
    ) -> Bools:
        """[B] which sequences have a feature further above another one than `near`, of one that moves."""
        lower_P, upper_P = pairs
        inside_BD = self.nearest(value_BD, step_BD)
        above_BP = inside_BD[:, lower_P] > inside_BD[:, upper_P] + near_D[upper_P]
        return np.asarray(above_BP.any(axis=1))

    def ordered(self) -> tuple[Ints, Ints]:
        """[P] pairs of features of which the first was often below the second and never above it."""
        lower_P, upper_P = np.nonzero((self.above_DD == 0) & (self.above_DD.T == OFTEN))
        return lower_P, upper_P

    def on_grid(self, value_BD: Floats) -> Floats:
        """[B, D] the nearest values that are multiples of the grid, where there is one."""
        width_D = self._millionths()
        near_BD = np.rint(value_BD * MILLION / width_D) * width_D / MILLION
        return np.where(np.isnan(width_D), value_BD, near_BD)

    def jitter(self) -> Floats:
        """[D] the deviation of noise that `on_grid` takes away again; zero where there is no grid.

        The likelihood of a density has no bound on values of a grid: what is learned of them is learned
        from values with such noise (dequantisation: Uria et al. 2013; Theis et al. 2016)."""
        return self._width() / 8.0  # half a step of the grid is four deviations

    def _width(self) -> Floats:
        """[D] of the grid, zero where there is none."""
        width_D = self._millionths()
        return np.where(np.isnan(width_D), 0.0, width_D) / MILLION

    def _millionths(self) -> Floats:
        """[D] widths of the grid, NaN where there is none."""
        return np.where((self.told_D == ENOUGH) & (self.grid_D > 0), self.grid_D, np.nan)

    def beyond(self, value_BD: Floats, step_BD: Floats, near_D: Floats) -> Bools:
        """[B] which sequences leave it by more than `near` in any feature that moved: no draw is the one
        value of another, so it is not drawn again for that, but put there (`nearest`)."""
        out_BD = np.abs(value_BD - self._within(value_BD)) > near_D
        out_BD |= np.abs(step_BD - self._step(step_BD)) > near_D
        return np.asarray((out_BD & ~self._still_D()).any(axis=1))

    def _still_D(self) -> Bools:
        """[D] which features have one value, or one step, as far as this span is concerned."""
        return np.asarray((self.least_D == self.most_D) | (self.fall_D == self.rise_D))

    def nearest(self, value_BD: Floats, step_BD: Floats) -> Floats:
        """[B, D] the values that are nearest to these, and inside."""
        return self._within(value_BD - step_BD + self._step(step_BD))

    def _within(self, value_BD: Floats) -> Floats:
        return _between(value_BD, self.least_D, self.most_D)

    def _step(self, step_BD: Floats) -> Floats:
        return _between(step_BD, self.fall_D, self.rise_D)


def _between(x_BD: Floats, low_D: Floats, high_D: Floats) -> Floats:
    # Of a feature that was never seen, or never moved, low is above high: there is nothing to keep to.
    return np.where(low_D <= high_D, np.clip(x_BD, low_D, high_D), x_BD)
