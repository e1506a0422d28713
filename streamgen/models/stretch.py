"""How much wider or narrower a learner's predictions should have been: learned from honest ones alone.

A network knows its spreads from records that it learned from, often more than once: those to come lie
further off. λ_d is added to the log scales of each axis d of all its predictions. After each record that was
scored before it was learned from, λ takes a step down the gradient of its nll:

    λ ← λ − g / min(n, MEMORY),   g = ∂ nll / ∂ λ

The Fisher information of a log scale is about one, so this is an average over as many records; a Student-t's
g is bounded by D and its degrees of freedom. λ is of the whitened axes and not of the features, so that
features which move together go on doing so. Recalibrated on held-out data: Guo et al. 2017; online: Kuleshov
& Ermon 2017. D features.
"""

from __future__ import annotations

import numpy as np

from streamgen.models.slab import Field, Slab
from streamgen.records import Floats

MEMORY = 256
FIRST = 64  # the first steps are no larger than those after so many records
MOST = 1.5


def fields(D: int) -> dict[str, Field]:
    """The state of the stretch: λ, and from how many records it is."""
    return {"stretch_D": Field((D,)), "stretch_count": Field()}


def observe(slab: Slab, row: int, gradient_D: Floats) -> None:
    """Take in one record's gradient; all zero is that of a record in which nothing was judged."""
    if not gradient_D.any():
        return
    count, stretch_D = slab.host("stretch_count"), slab.host("stretch_D")[row]
    count[row] += 1
    stretch_D -= gradient_D / np.clip(count[row], FIRST, MEMORY)
    np.clip(stretch_D, -MOST, MOST, out=stretch_D)
