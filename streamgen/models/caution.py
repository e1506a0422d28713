"""What an anomalous record teaches: how far it may move the model that called it so.

    yes    all of it, as any other
    clip   its values, no further beyond the 90 % interval than `WIDTHS` times its width
    skip   nothing: it counts as a record whose values are all missing

That holds for scales, axes, targets, the carried state and what the reservoir keeps. Bounded influence:
Huber 1964; a record that did not come is marginalised, so skipping one tears no hole into time. What is
anomalous, and for how long at most, is the calibration's to say (`learners.calibration`). D features.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from streamgen.models.online import Scores
from streamgen.models.optimiser import OptimiserSettings
from streamgen.models.span import Span
from streamgen.records import Floats

WIDTHS = 1.0  # a Gaussian's central 90 % and as much on either side: five deviations


class CautiousSettings(OptimiserSettings):
    """Settings of a model that asks before it learns from a record."""

    learn_anomalies: Literal["clip", "skip", "yes"] = Field(
        "yes",
        description="What an anomalous record teaches: clip: its values, bounded; skip: nothing; yes: all of "
        "it. After 256 in a row it is the new normal.",
    )

    @property
    def cautious(self) -> bool:
        return self.learn_anomalies != "yes"

    def taught(self, scores: Scores, n: int, value_D: Floats, span: Span) -> Floats:
        """[D] what is learned of the anomalous record n. Where there was no interval, a value is itself; one
        that is clipped is a value that the stream may have, or its grid would be lost for good."""
        if self.learn_anomalies == "skip":
            return np.full_like(value_D, np.nan)
        low_D, high_D = scores.low_ND[n], scores.high_ND[n]
        beyond_D = WIDTHS * (high_D - low_D)
        clipped_D = np.clip(value_D, low_D - beyond_D, high_D + beyond_D)
        clipped_D = np.where(clipped_D == value_D, value_D, span.on_grid(clipped_D[None])[0])
        return np.where(np.isfinite(beyond_D), clipped_D, value_D)
