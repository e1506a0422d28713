"""Each way to make bad images is told from the real ones by a figure, and the real ones by none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from streamgen.errors import InputError
from streamgen.evaluation import Figure
from streamgen.images.classifier import Classifier, Images
from streamgen.images.evaluation import Judgement, evaluate, held_out_elbo
from streamgen.records import Floats, Ints

Shapes = Callable[..., tuple[Images, Ints]]
COUNT = 300


def noise(images: Images, shapes: Shapes) -> Images:
    return np.random.default_rng(0).integers(0, 256, size=images.shape, dtype=np.uint8)


def some_noise(images: Images, shapes: Shapes) -> Images:
    added = images + np.random.default_rng(0).normal(scale=15.0, size=images.shape)
    return np.clip(added, 0, 255).astype(np.uint8)


def blurred(images: Images, shapes: Shapes) -> Images:
    return np.asarray(gaussian_filter(images, (0, 0.8, 0.8, 0)))


def faint(images: Images, shapes: Shapes) -> Images:
    return (images * 0.7).astype(np.uint8)


def one_class(images: Images, shapes: Shapes) -> Images:
    return shapes(1, COUNT, only="ring")[0]


def one_image(images: Images, shapes: Shapes) -> Images:
    return some_noise(np.repeat(images[:1], COUNT, axis=0), shapes)


def copies(images: Images, shapes: Shapes) -> Images:
    return shapes(100, 800)[0][:COUNT]  # the training images


def half_copies(images: Images, shapes: Shapes) -> Images:
    return np.concatenate([copies(images, shapes)[: COUNT // 2], images[COUNT // 2 :]])


MISTAKES: dict[str, tuple[Callable[[Images, Shapes], Images], tuple[str, ...]]] = {
    "noise": (noise, ("own Fréchet distance", "precision", "recall", "density", "coverage")),
    "some noise": (some_noise, ("density",)),
    "blurred": (blurred, ("own Fréchet distance", "recall", "coverage")),
    "faint": (faint, ("own Fréchet distance",)),
    "one class": (one_class, ("own Fréchet distance", "recall", "coverage")),
    "one image": (one_image, ("own Fréchet distance", "recall", "coverage")),
    "copies": (copies, ("copies",)),
    "half are copies": (half_copies, ("copies",)),
}


@pytest.fixture(scope="module")
def judge(shapes: Shapes, classifiers: list[Classifier]) -> Callable[[Images], dict[str, Figure]]:
    real, training = shapes(0, COUNT)[0], shapes(100, 800)[0]

    def figures(generated: Images) -> dict[str, Figure]:
        found = evaluate(real, generated, classifiers, training).figures
        return {one.name: one for one in found}

    return figures


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught(
    shapes: Shapes, judge: Callable[[Images], dict[str, Figure]], mistake: str
) -> None:
    spoil, names = MISTAKES[mistake]
    found = judge(spoil(shapes(1, COUNT)[0], shapes))
    for name in names:
        assert found[name].worse_than_real, found[name]


def test_real_images_are_not(shapes: Shapes, judge: Callable[[Images], dict[str, Figure]]) -> None:
    """At 2.5 % a figure, over five runs of six figures, chance may catch some."""
    caught = [
        figure for seed in range(1, 6) for figure in judge(shapes(seed, COUNT)[0]).values()
        if figure.worse_than_real
    ]  # fmt: skip
    assert len(caught) <= 3, caught


def test_one_class_is_no_copy(shapes: Shapes, judge: Callable[[Images], dict[str, Figure]]) -> None:
    """However near to one another the images of that class are."""
    for shape in ("disc", "ring", "bars", "cross"):
        assert judge(shapes(1, COUNT, only=shape)[0])["copies"].value < 0.25, shape


def test_copies_pass_every_other_figure(shapes: Shapes, judge: Callable[[Images], dict[str, Figure]]) -> None:
    found = judge(copies(shapes(1, COUNT)[0], shapes))
    assert found["copies"].value == 1.0
    assert [name for name, one in found.items() if one.worse_than_real] == ["copies"]


def test_the_nearest_are_shown(shapes: Shapes, classifiers: list[Classifier]) -> None:
    real, training = shapes(0, COUNT)[0], shapes(100, 800)[0]
    generated = shapes(1, COUNT)[0]
    generated[7] = training[500]
    found = evaluate(real, np.concatenate([generated[:60]] * 2), classifiers, training)
    assert found.generated.shown.shape == (8, 6, 16, 16, 3)
    assert np.array_equal(found.generated.shown[0, 0], training[500])
    assert np.array_equal(found.generated.shown[0, 1], training[500])
    assert found.held_out is not None
    assert len(found.held_out.ratio_M) == len(found.generated.ratio_M) == 120
    without = evaluate(real, generated, classifiers)
    assert without.held_out is None
    assert "copies" not in {one.name for one in without.figures}


def test_the_same_images_get_the_same_figures(shapes: Shapes, classifiers: list[Classifier]) -> None:
    found: list[Judgement] = [evaluate(shapes(0, 80)[0], shapes(1, 80)[0], classifiers[:2]) for _ in range(2)]
    assert found[0].figures == found[1].figures


class Bound:
    """A likelihood by how near an image is to one that it has learned by heart."""

    def __init__(self, known: Images, loss: float) -> None:
        self.known, self.loss = {image.tobytes() for image in known}, loss

    def elbo(self, images_NHWC: Images) -> Floats:
        mean_N = images_NHWC.astype(np.float64).mean(axis=(1, 2, 3)) / 1000
        known_N = np.array([image.tobytes() in self.known for image in images_NHWC])
        return np.where(known_N, 0.0, -self.loss) - 3.0 + mean_N


def test_the_held_out_elbo_knows_what_was_learned_by_heart(shapes: Shapes) -> None:
    training, held_out = shapes(100, 800)[0], shapes(0, COUNT)[0]
    fair = held_out_elbo(Bound(training, 0.0), held_out, training)
    assert not fair.worse_than_real
    assert fair.value == pytest.approx(held_out.mean() / 1000 - 3.0, abs=0.005)
    by_heart = held_out_elbo(Bound(training, 0.5), held_out, training)
    assert by_heart.worse_than_real
    assert by_heart.value - by_heart.null == pytest.approx(-0.5, abs=0.02)
    with pytest.raises(InputError, match=r"is -inf and -2\.\d+: it has diverged"):
        held_out_elbo(Bound(training, np.inf), held_out, training)
    with pytest.raises(InputError, match="47 held-out and 800 training images"):
        held_out_elbo(Bound(training, 0.0), held_out[:47], training)


def test_what_cannot_be_compared_is_named(shapes: Shapes, classifiers: list[Classifier]) -> None:
    real, generated, training = (shapes(seed, 60)[0] for seed in (0, 1, 100))
    with pytest.raises(InputError, match="The generated images are 12 × 16 pixels in 3 colours, the real"):
        evaluate(real, generated[:, :12], classifiers)
    with pytest.raises(InputError, match="The training images are 16 × 16 pixels in 1 colour, the real"):
        evaluate(real, generated, classifiers, training[:, :, :, :1])
    with pytest.raises(InputError, match="60 real and 23 generated images over 3 seeds tell nothing"):
        evaluate(real, generated[:23], classifiers)
    with pytest.raises(InputError, match="over 1 seeds"):
        evaluate(real, generated, classifiers[:1])
    with pytest.raises(InputError, match="give real images that were held out"):
        evaluate(real, generated, classifiers, np.concatenate([training, real]))
