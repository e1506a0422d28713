"""Averaged weights: an exponential mean over a learner's updates (Polyak & Juditsky 1992).

With a step size that does not decay the newest weights jitter about what the stream asks for; their mean does
not. P parameters.
"""

from __future__ import annotations

from streamgen.models.slab import Field, Slab


def fields(size: int, shared: bool) -> dict[str, Field]:
    """The state of the average, shared where the weights are."""
    return {"average_P": Field((size,), dtype="float32", on_device=True, shared=shared)}


def average(slab: Slab, row: int, decay: float) -> None:
    """Take the row's newest weights into the average, after the update that made them."""
    updates = int(slab.host("updates")[row])
    # The first averages are short: they must not remember the weights that were drawn.
    decay = min(decay, updates / (10.0 + updates))
    slab.tensor("average_P")[row].lerp_(slab.tensor("weights_P")[row], 1.0 - decay)
