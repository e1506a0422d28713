"""All figures of generated images, each beside what real images give against real ones.

N real images of H × W pixels with C colours, M generated ones, K of the training data; E features; S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamgen.errors import InputError
from streamgen.evaluation import Figure, frechet_distance, neighbourhood
from streamgen.evaluation.report import FEWEST, over_seeds
from streamgen.evaluation.windows import halves
from streamgen.images.classifier import Classifier, Images, checked_images
from streamgen.images.nearest import Nearest, copied, nearest
from streamgen.records import Floats


class Likelihood(Protocol):
    """A model that bounds the likelihood of an image."""

    def elbo(self, images_NHWC: Images) -> Floats:
        """[N] evidence lower bound of each image, nats per dimension (H · W · C dimensions an image)."""
        ...


@dataclass(frozen=True, slots=True)
class Closest:
    """The images that are nearest to a training image [P, 1 + K, H, W, C], each before its K nearest, and
    `ratio_M` of all (see `nearest`)."""

    shown: Images
    ratio_M: Floats


@dataclass(frozen=True, slots=True)
class Judgement:
    """The figures, and by the first classifier what the generated images are nearest to: of the training data
    with the same of held-out images, or of the real images where there is no training data."""

    figures: list[Figure]
    generated: Closest
    held_out: Closest | None


def evaluate(
    real_NHWC: Images,
    generated_MHWC: Images,
    classifiers: Sequence[Classifier],
    training_KHWC: Images | None = None,
) -> Judgement:
    """Judge generated images against real ones in the eyes of several classifiers, one for each seed.

    The real images must be none that the classifiers, or the generator, learned from. For each seed they are
    halved at random: one half is compared with the other, which is the null, and with as many generated
    images, drawn at random. `training_KHWC`, what the generator learned from, gives the figure of copies.
    Raises `InputError` for images that cannot be compared, or fewer than `FEWEST` of a kind.
    """
    checked(real_NHWC, generated_MHWC, training_KHWC, len(classifiers))
    found: dict[str, list[tuple[float, float]]] = {}
    shown: list[Closest] = []
    for seed, classifier in enumerate(classifiers):
        rng = np.random.default_rng(seed)
        mine, others = halves(len(real_NHWC), 1, rng)
        count = min(len(others), len(generated_MHWC))
        others, drawn = rng.permutation(others)[:count], rng.permutation(len(generated_MHWC))[:count]
        mine_NE, others_NE = (classifier.features(real_NHWC[half]) for half in (mine, others))
        drawn_NE = classifier.features(generated_MHWC[drawn])
        null = _figures(mine_NE, others_NE)
        for name, value in _figures(mine_NE, drawn_NE).items():
            found.setdefault(name, []).append((value, null[name]))
        if training_KHWC is not None:
            training_KE = classifier.features(training_KHWC)
            mine_near, others_near, near = (
                nearest(training_KE, some_NE) for some_NE in (mine_NE, others_NE, drawn_NE)
            )
            pair = (copied(mine_near, near), copied(mine_near, others_near))
            found.setdefault("copies", []).append(pair)
        if seed == 0 and training_KHWC is not None:
            shown = [
                _closest(near, training_KHWC, generated_MHWC[drawn]),
                _closest(others_near, training_KHWC, real_NHWC[others]),
            ]
        elif seed == 0:
            near = nearest(mine_NE, drawn_NE)
            shown = [_closest(near, real_NHWC[mine], generated_MHWC[drawn])]
    figures = [over_seeds(name, np.array(values)) for name, values in found.items()]
    return Judgement(figures, shown[0], shown[1] if len(shown) == 2 else None)


def checked(real_NHWC: Images, generated_MHWC: Images, training_KHWC: Images | None, seeds: int) -> None:
    """Raises `InputError` for images that cannot be compared, or too few of them: `evaluate` asks it, and so
    may who would know before classifiers are trained."""
    kinds = {"real": real_NHWC, "generated": generated_MHWC}
    if training_KHWC is not None:
        kinds["training"] = training_KHWC
    for kind, images in kinds.items():
        checked_images(kind, images)
        if images.shape[1:] != real_NHWC.shape[1:]:
            raise InputError(
                f"The {kind} images are {_size(images)}, the real ones {_size(real_NHWC)}: bring them to one "
                "size and as many colours."
            )
    if min(len(real_NHWC), len(generated_MHWC)) < FEWEST or seeds < 2:
        raise InputError(
            f"{len(real_NHWC)} real and {len(generated_MHWC)} generated images over {seeds} seeds "
            f"tell nothing: give at least {FEWEST} of each and 2 seeds."
        )


def held_out_elbo(model: Likelihood, held_out_NHWC: Images, training_KHWC: Images, seeds: int = 3) -> Figure:
    """How likely a model finds images that it did not learn, nats per dimension, beside as many that it did,
    drawn anew for each seed: where the first are less likely, the model has learned images by heart.

    Raises `InputError` where the model gives no number, or fewer than `FEWEST` images are given.
    """
    checked_images("real", held_out_NHWC)
    checked_images("training", training_KHWC)
    count = min(len(held_out_NHWC) // 2, len(training_KHWC))
    if count < FEWEST or seeds < 2:
        raise InputError(
            f"{len(held_out_NHWC)} held-out and {len(training_KHWC)} training images over {seeds} seeds tell "
            f"nothing: give at least {2 * FEWEST} and {FEWEST}, and 2 seeds."
        )
    pairs = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        bounds = [
            float(model.elbo(images[rng.permutation(len(images))[:count]]).mean())
            for images in (held_out_NHWC, training_KHWC)
        ]
        if not np.isfinite(bounds).all():
            raise InputError(
                f"The model's bound of held-out and training images is {bounds[0]} and {bounds[1]}: it has "
                "diverged; go back to an earlier checkpoint."
            )
        pairs.append(bounds)
    return over_seeds("held-out ELBO", np.array(pairs))


def own_frechet(real_NE: Floats, other_ME: Floats) -> float:
    """The Fréchet distance per feature, each in its standard deviation, so that neither the number of
    features nor a classifier's scale is in it."""
    return float(frechet_distance(real_NE, other_ME) / real_NE.shape[1])


def _figures(real_NE: Floats, other_ME: Floats) -> Mapping[str, float]:
    distance = own_frechet(real_NE, other_ME)
    return {"own Fréchet distance": distance} | neighbourhood(real_NE[:, None], other_ME[:, None])._asdict()


def _closest(found: Nearest, training: Images, images: Images) -> Closest:
    return Closest(found.shown(training, images), found.ratio_M)


def _size(images_NHWC: Images) -> str:
    _, height, width, colours = images_NHWC.shape
    return f"{height} × {width} pixels in {colours} colour{'s' if colours > 1 else ''}"
