"""The search against brute force, and what counts as a copy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

from streamgen.errors import InputError
from streamgen.evaluation import frechet_distance
from streamgen.images.nearest import Nearest, copied, nearest


def test_the_search_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    training, asked = rng.normal(size=(700, 20)), rng.normal(size=(600, 20))
    found = nearest(training, asked)
    distance = cdist(asked, training)
    order = np.argsort(distance, axis=1)
    assert np.array_equal(found.index_MK, order[:, :5])
    among = cdist(training, training)
    np.fill_diagonal(among, np.inf)
    one = order[:, 0]
    assert found.ratio_M == pytest.approx(distance[np.arange(600), one] / among[one].min(axis=1))


def test_a_copy_is_at_no_distance_even_of_an_image_that_is_there_twice() -> None:
    training = np.random.default_rng(0).normal(size=(50, 9)) + 1000.0
    training[1] = training[0]
    assert (nearest(training, training).ratio_M == 0.0).all()


def test_near_copies_are_told_where_training_images_are_there_many_times() -> None:
    """An image that is there twice is at no distance from its nearest other, while that may be itself."""
    rng = np.random.default_rng(0)
    once, held_out = (rng.normal(size=(300, 6)) for _ in range(2))
    often = once[:100]
    training = np.concatenate([once, *[often] * 6])
    # As a network gives them, whose last digits depend on which images it saw at once.
    training *= 1.0 + 1e-7 * rng.normal(size=training.shape)
    near = often + 1e-2 * rng.normal(size=often.shape)
    usual = nearest(training, held_out)
    assert copied(usual, nearest(training, near)) == 1.0
    assert usual.ratio_M == pytest.approx(nearest(once, held_out).ratio_M, rel=1e-4)


def test_training_images_that_are_all_the_same_are_named() -> None:
    with pytest.raises(InputError, match="training images are all the same"):
        nearest(np.full((40, 7), 0.1), np.ones((1, 7)))


def test_few_training_images_have_few_neighbours() -> None:
    training = np.eye(3)
    assert nearest(training, training).index_MK.shape == (3, 3)
    with pytest.raises(InputError, match="1 training images are too few"):
        nearest(training[:1], training)


def test_a_twentieth_is_copied_where_nothing_is() -> None:
    rng = np.random.default_rng(0)
    training, held_out, others = (rng.normal(size=(2000, 6)) for _ in range(3))
    usual = nearest(training, held_out)
    assert copied(usual, usual) == pytest.approx(0.05)
    assert copied(usual, nearest(training, others)) == pytest.approx(0.05, abs=0.02)
    with pytest.raises(InputError, match="training images too"):
        copied(nearest(training, np.concatenate([held_out[:900], training[:100]])), usual)


def test_dense_places_are_no_copies() -> None:
    """Half of the training data lies a hundred times closer together: new points there are no copies."""
    rng = np.random.default_rng(0)
    scale = np.repeat([1.0, 0.01], 1000)[:, None]
    training, held_out = (scale * rng.normal(size=(2000, 6)) for _ in range(2))
    dense = 0.01 * rng.normal(size=(1000, 6))
    assert copied(nearest(training, held_out), nearest(training, dense)) < 0.12


def test_those_nearest_to_a_training_image_are_shown_first() -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), dtype=np.uint8)
    found = Nearest(np.array([[4, 5], [0, 1]]), np.array([0.9, 0.1]))
    assert found.shown(images, images[2:4])[:, :, 0, 0, 0].tolist() == [[3, 0, 1], [2, 4, 5]]


@pytest.mark.parametrize("dimensions", [1, 3, 40])
def test_the_frechet_distance_is_that_of_scipys_root(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    left, right = (
        rng.normal(size=(300, dimensions)) @ rng.normal(size=(dimensions, dimensions)) for _ in "lr"
    )
    one, two = (np.atleast_2d(np.cov(sample, rowvar=False)) for sample in (left, right))
    shift = left.mean(axis=0) - right.mean(axis=0)
    expected = shift @ shift + np.trace(one + two - 2 * np.real(sqrtm(one @ two)))
    assert frechet_distance(left, right) == pytest.approx(expected, rel=1e-8)
