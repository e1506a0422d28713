"""Is a generated image a copy of a training image?

The nearest training image of a copy is at no distance; but a plain digit 1 is nearer to its neighbours than
any 8 to its own, and no copy for that. So the distance is measured in that training image's own distance to
its nearest other one (Alaa et al. 2022, "How faithful is your synthetic data?", where a ratio below 1 makes a
sample not authentic), which is not the same image again: nothing would be near to one that is there twice.
What ratio is suspicious, held-out images say, which nobody can have copied.

N training images, M asked about, E features, K nearest, P pictures shown of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgen.errors import InputError
from streamgen.images.classifier import Images
from streamgen.records import Floats, Ints

NEAREST = 5
SHOWN = 8
SUSPICIOUS = 0.05  # share of held-out images that are nearer to a training image than the limit
_SAME = 1e-3  # a ratio below it is one image, seen twice
_ALIKE = 1e-4  # of the spread of the training images: those that are nearer are one image, there twice
_BLOCK = 256  # images whose distances to all others are in memory at once


@dataclass(frozen=True, slots=True)
class Nearest:
    """`index_MK` of each image's nearest training images, the nearest first, and the `ratio_M` of its
    distance to the first to the distance of that to the next training image."""

    index_MK: Ints
    ratio_M: Floats

    def shown(self, training: Images, images: Images) -> Images:
        """[P, 1 + K, H, W, C]: those that are nearest to a training image, each before its nearest."""
        first_P = np.argsort(self.ratio_M, kind="stable")[:SHOWN]
        return np.concatenate([images[first_P][:, None], training[self.index_MK[first_P]]], axis=1)


def nearest(training_NE: Floats, asked_ME: Floats) -> Nearest:
    """The nearest training images, of at least two that differ. Raises `InputError`."""
    if len(training_NE) < 2:
        raise InputError(f"{len(training_NE)} training images are too few to search: give at least 2.")
    # About their mean, where the squares in the search are small and lose the least.
    centre_E = training_NE.mean(axis=0)
    about_NE = training_NE - centre_E
    alike = _ALIKE * float(np.sqrt((about_NE**2).sum(axis=1).mean()))
    index_MK = _search(about_NE, asked_ME - centre_E, None)
    one_M = index_MK[:, 0]
    found, back_M = np.unique(one_M, return_inverse=True)
    other_F = _search(about_NE, about_NE[found], alike)[:, 0]
    # From the features themselves: the distances of the search are rounded, and these may be nothing.
    distance_M = np.linalg.norm(asked_ME - training_NE[one_M], axis=1)
    usual_F = np.linalg.norm(training_NE[found] - training_NE[other_F], axis=1)
    if (usual_F <= alike).all():
        raise InputError("The training images are all the same: copies cannot be told from chance.")
    return Nearest(index_MK, distance_M / np.maximum(usual_F[back_M], np.finfo(np.float64).tiny))


def copied(held_out: Nearest, generated: Nearest) -> float:
    """Share of the generated images with a ratio below that of all but `SUSPICIOUS` of the held-out ones:
    about that share where nothing was copied, 1 where everything was.

    Raises `InputError` when so many of the held-out images are themselves in the training data.
    """
    limit = float(np.quantile(held_out.ratio_M, SUSPICIOUS))
    if limit < _SAME:
        raise InputError(
            "Many of the real images are training images too, so that copies cannot be told from chance: "
            "give real images that were held out."
        )
    return float((generated.ratio_M < limit).mean())


def _search(training_NE: Floats, asked_ME: Floats, alike: float | None) -> Ints:
    """[M, K] indices by distance; none within `alike` is found before all others."""
    square_N = (training_NE**2).sum(axis=1)
    nearest_of = []
    for first in range(0, len(asked_ME), _BLOCK):
        asked_BE = asked_ME[first : first + _BLOCK]
        # Less the square of what is asked, which changes no order.
        distance_BN = square_N - 2.0 * (asked_BE @ training_NE.T)
        if alike is not None:
            distance_BN[distance_BN + (asked_BE**2).sum(axis=1)[:, None] <= alike**2] = np.inf
        count = min(NEAREST, len(training_NE))
        some_BK = np.argpartition(distance_BN, count - 1, axis=1)[:, :count]
        order_BK = np.argsort(np.take_along_axis(distance_BN, some_BK, axis=1), axis=1, kind="stable")
        nearest_of.append(np.take_along_axis(some_BK, order_BK, axis=1))
    return np.concatenate(nearest_of)
