"""Averaged weights: an exponential mean over a learner's updates (Polyak & Juditsky 1992).

With a step size that does not decay the newest weights jitter about what the stream asks for; their mean does
not. P parameters.
"""

from __future__ import annotations

from torch import Tensor

from streamgen.models.slab import Field, Slab


def fields(size: int, shared: bool) -> dict[str, Field]:
    """The state of the average, shared where the weights are."""
    return {"average_P": Field((size,), dtype="float32", on_device=True, shared=shared)}


def average(slab: Slab, row: int, decay: float) -> None:
    """Take the row's newest weights into the average, after the update that made them."""
    take_in(
        slab.tensor("average_P")[row], slab.tensor("weights_P")[row], decay, int(slab.host("updates")[row])
    )


def take_in(mean_P: Tensor, new_P: Tensor, decay: float, count: int) -> None:
    """Move a mean towards new weights, in place. The first `count`s make it short: it must not remember the
    weights that were drawn."""
    mean_P.lerp_(new_P, 1.0 - min(decay, count / (10.0 + count)))
