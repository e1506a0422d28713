"""The parts of a negative log-likelihood."""

import numpy as np

from streamgen.models.contributions import shares


def test_order_of_the_features_does_not_matter_to_the_shares() -> None:
    quadratic_D, seen_D = np.array([1.0, -0.25, 3.0]), np.array([True, True, True])
    shares_D = shares(4.0, 2.5, quadratic_D, seen_D)
    order = [2, 0, 1]
    np.testing.assert_allclose(shares(4.0, 2.5, quadratic_D[order], seen_D), shares_D[order])
