"""What the classifier learns, and that it is the same each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from streamgen.errors import InputError
from streamgen.images.classifier import Classifier, Images, learn
from streamgen.records import Ints

Shapes = Callable[..., tuple[Images, Ints]]


def test_it_learns_the_labels(classifiers: list[Classifier]) -> None:
    for one in classifiers:
        assert one.accuracy > 0.8 > 0.4 > one.chance
        assert one.task == "its label, one of 4"


def test_its_accuracy_is_that_of_images_it_has_not_seen(shapes: Shapes) -> None:
    """Labels that mean nothing cannot be guessed."""
    images, label_N = shapes(0, 400)
    random = np.random.default_rng(0).permutation(label_N)
    assert learn(images, random, 0, iterations=60).accuracy < 0.5


def test_without_labels_it_learns_turns(shapes: Shapes) -> None:
    images = shapes(0, 600)[0].copy()
    images[:, :3] = 255  # these have an up and a down
    one = learn(images, None, 0, iterations=60)
    assert one.task == "by how many quarter turns it was turned"
    assert one.accuracy > 0.9
    assert one.chance == pytest.approx(0.25, abs=0.01)


def test_where_turns_mean_nothing_it_says_so(shapes: Shapes) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(400, 16, 16, 1), dtype=np.uint8)
    assert learn(noise, None, 0, iterations=30).accuracy < 0.5


def test_it_is_repeatable_and_leaves_torch_alone(shapes: Shapes) -> None:
    images, label_N = shapes(0, 200)
    found = []
    for other, seed in enumerate((3, 3, 4)):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        found.append(learn(images, label_N, seed, iterations=10).features(images))
        assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_labels_are_names_and_not_numbers(shapes: Shapes) -> None:
    images, label_N = shapes(0, 200)
    plain, renamed = (learn(images, label, 0, iterations=10) for label in (label_N, 10 * label_N - 7))
    assert np.array_equal(plain.features(images), renamed.features(images))


def test_features_do_not_depend_on_what_else_is_asked(shapes: Shapes, classifiers: list[Classifier]) -> None:
    images = shapes(1, 300)[0]
    whole = classifiers[0].features(images)
    assert classifiers[0].features(images[250:]) == pytest.approx(whole[250:], abs=1e-3)
    assert whole.dtype == np.float64
    assert np.abs(whole.std(axis=0) - 1.0).mean() < 0.3  # in the standard deviation of such images


@pytest.mark.parametrize("shape", [(60, 8, 8, 1), (60, 20, 31, 3), (60, 70, 40, 1), (60, 128, 128, 3)])
def test_images_of_any_size(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    found = learn(images, None, 0, iterations=2).features(images)
    assert found.shape == (60, 320)
    assert np.isfinite(found).all()


def test_a_single_colour_gives_features_that_are_finite() -> None:
    images = np.full((60, 16, 16, 1), 7, dtype=np.uint8)
    one = learn(images, None, 0, iterations=2)
    assert np.isfinite(one.features(255 - images)).all()


@pytest.mark.parametrize(
    ("images", "label", "said"),
    [
        (np.zeros((50, 16, 16)), None, r"float64 of shape \(50, 16, 16\)"),
        (np.zeros((50, 16, 16, 4), np.uint8), None, "1 or 3 colours"),
        (np.zeros((50, 7, 16, 1), np.uint8), None, "are 7 × 16 pixels"),
        (np.zeros((39, 16, 16, 1), np.uint8), None, "39 images teach a classifier nothing"),
        (np.zeros((50, 16, 16, 1), np.uint8), np.zeros(49, np.int64), "one for each"),
        (np.zeros((50, 16, 16, 1), np.uint8), np.zeros(50, np.int64), "All images have one label"),
    ],
)
def test_what_it_cannot_learn_from_is_named(images: Images, label: Ints | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        learn(images, label, 0)
