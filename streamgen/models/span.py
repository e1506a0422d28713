"""Between which values a stream has ever been, and how far it has ever moved in one step.

The tails of a distribution that was learned are made of few records, and what is drawn there is fed back as
the record before the next. So what a learner generates keeps to what was seen: a draw that does not is made
again (rejection sampling of the truncated distribution). D features, B sequences; units are the input's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from streamgen.models.joint import Joint
from streamgen.models.mixture_t import MixtureT
from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats

AGAIN = 16


def fields(D: int) -> dict[str, Field]:
    """Least and most of each feature's values, and of its steps; infinite before there is one."""
    least, most = Field((D,), fill=np.inf), Field((D,), fill=-np.inf)
    return {"least_D": least, "most_D": most, "fall_D": least, "rise_D": most}


class Span(NamedTuple):
    """One learner's, as it stands: views of its row."""

    least_D: Floats
    most_D: Floats
    fall_D: Floats
    rise_D: Floats

    @classmethod
    def of(cls, slab: Slab, row: int) -> Span:
        return cls(*(slab.host(name)[row] for name in fields(0)))

    def observe(self, value_D: Floats, step_D: Floats) -> None:
        """Take in one record and its step; NaN where there is none."""
        np.fmin(self.least_D, value_D, out=self.least_D)
        np.fmax(self.most_D, value_D, out=self.most_D)
        np.fmin(self.fall_D, step_D, out=self.fall_D)
        np.fmax(self.rise_D, step_D, out=self.rise_D)

    def anywhere(self) -> Span:
        """Of steps alone: a stream that goes on may come to where it never was."""
        nowhere_D = np.full_like(self.least_D, np.inf)
        return self._replace(least_D=-nowhere_D, most_D=nowhere_D)

    def jumping(self) -> Span:
        """Of values alone: a first record comes from nowhere."""
        nowhere_D = np.full_like(self.fall_D, np.inf)
        return self._replace(fall_D=-nowhere_D, rise_D=nowhere_D)

    def draw(
        self, one: MixtureT | Joint, noise: np.random.Generator, origin_BD: Floats, unit_D: Floats
    ) -> Tensor:
        """[B, D] one y from each of B distributions, such that origin + unit y keeps to the span; one that
        leaves it `AGAIN` times is moved to where it ends."""
        y_BD = one.draw(noise)
        for _ in range(AGAIN):
            step_BD = unit_D * y_BD.cpu().numpy()
            beyond_B = torch.from_numpy(self.beyond(origin_BD + step_BD, step_BD)).to(y_BD.device)
            if not bool(beyond_B.any()):
                break
            y_BD[beyond_B] = one.some(beyond_B).draw(noise)
        step_BD = unit_D * y_BD.cpu().numpy()
        inside_BD = self.nearest(origin_BD + step_BD, step_BD)
        moved_BD = inside_BD != origin_BD + step_BD
        nearest_BD = torch.from_numpy((inside_BD - origin_BD) / unit_D).to(y_BD.device)
        return torch.where(torch.from_numpy(moved_BD).to(y_BD.device), nearest_BD, y_BD)

    def beyond(self, value_BD: Floats, step_BD: Floats) -> Bools:
        """[B] which sequences leave it in any feature that moved: no draw is the one value of another, so
        it is not drawn again for that, but put there (`nearest`)."""
        out_BD = (value_BD != self._within(value_BD)) | (step_BD != self._step(step_BD))
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
