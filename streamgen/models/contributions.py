"""How the features share a record's negative log-likelihood."""

from __future__ import annotations

import numpy as np

from streamgen.records import Bools, Floats


def shares(nll: float, tail: float, quadratic_D: Floats, seen_D: Bools) -> Floats:
    """Each seen feature's part of a record's nll: the tail term in proportion to the feature's part
    e_d (Σ⁻¹e)_d of the squared Mahalanobis distance, the rest in equal parts. Adds up to `nll`, and does
    not depend on the order of the features. A part may be negative where features are correlated."""
    equal_D = seen_D / seen_D.sum()
    square = float(quadratic_D.sum())
    shares_D = equal_D * (nll - tail) + tail * (quadratic_D / square if square > 0 else equal_D)
    return np.asarray(shares_D)
