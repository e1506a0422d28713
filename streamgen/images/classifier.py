"""A small convolutional classifier, trained on the user's own images: in its features images are compared.

The distance of two sets of images has to be taken where near means alike to an eye, which pixels are not. The
published figures take the features of an Inception network of 24 million weights, trained on the photographs
of ImageNet; it is a download, and says little of digits, spectra or scans. This one learns, in a minute on
one core, the images that it will judge, and is the same for the same images and seed.

With labels it learns those. Without, it learns by how many quarter turns an image was turned (Gidaris et al.
2018, "Unsupervised representation learning by predicting image rotations"). The other way that is common,
telling every image from every other under random crops and colours, makes features blind to just those
changes, which a judge of generated images must see; it also wants large batches. Where turning means nothing
(images without an up and a down), the classifier's `accuracy` is near `chance` and says so: give labels then.

The features are the means over the map of every layer, not of the last alone: the last layers tell what is
shown, the first how sharp it is.

N images of H × W pixels with C colours, B of a batch; E features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streamgen.errors import InputError
from streamgen.records import Floats, Ints

if TYPE_CHECKING:
    import torch

Images = NDArray[np.uint8]  # [N, H, W, C]

CHANNELS = (32, 64, 96, 128)  # of the layers; each after the first halves the map
LARGEST_MAP = 32  # the first layer's steps bring larger images down to about this
BATCH, ITERATIONS, RATE, DECAY = 64, 800, 0.003, 0.01
HELD_OUT = 0.1  # share of the images that only tell the accuracy
FEWEST_HELD_OUT, MOST_HELD_OUT = 10, 1000
SMALLEST, FEWEST = 8, 40  # pixels of a side, images
TURNS = 4
_DEAD = 0.01  # of the largest deviation: a feature that moves less is taken to move that much
_AT_ONCE = 256  # images that are looked at in one call


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained network with what it learned (`task`) and how well: `accuracy` on images that it did not
    learn from, beside the `chance` of a blind guess of the most frequent class."""

    network: torch.nn.Module
    centre_E: Floats
    unit_E: Floats
    task: str
    accuracy: float
    chance: float

    def features(self, images_NHWC: Images) -> Floats:
        """[N, E] features, each less its mean and in the standard deviation of the held-out images."""
        return (_features(self.network, images_NHWC) - self.centre_E) / self.unit_E


def learn(images_NHWC: Images, label_N: Ints | None, seed: int, iterations: int = ITERATIONS) -> Classifier:
    """A classifier of the images by their labels, or without labels by how they were turned.

    It sees no image that the figures are about: give it the training data. Deterministic by `seed` on one
    machine with the same number of threads; torch's own generator is left as it was. Raises `InputError` for
    images that are too small or too few, or labels that do not fit.
    """
    import torch

    from streamgen.models.pixels import to_minmax

    checked_images("training", images_NHWC)
    if len(images_NHWC) < FEWEST:
        raise InputError(f"{len(images_NHWC)} images teach a classifier nothing: give at least {FEWEST}.")
    turned = label_N is None
    label_N = (
        np.zeros(len(images_NHWC), dtype=np.int64) if label_N is None else _classes(label_N, images_NHWC)
    )
    classes = TURNS if turned else int(label_N.max()) + 1
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images_NHWC))
    held_out = min(MOST_HELD_OUT, max(FEWEST_HELD_OUT, int(HELD_OUT * len(order))))
    kept, learned = order[:held_out], order[held_out:]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(images_NHWC.shape, classes)
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=iterations)
        for batch in _batches(learned, iterations, rng):
            images, label_B = images_NHWC[batch], label_N[batch]
            if turned:
                images, label_B = _turned(images, rng.integers(TURNS, size=len(batch)))
            said_BK = network(to_minmax(images))[0]
            optimiser.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(said_BK, torch.from_numpy(label_B)))
            optimiser.step()
            schedule.step()
    network.eval()

    images, label_B = images_NHWC[kept], label_N[kept]
    features_NE = _features(network, images)
    deviation_E = features_NE.std(axis=0)
    if turned:
        images, label_B = _turned(images, np.arange(len(kept)) % TURNS)
    with torch.no_grad():
        said_N = np.concatenate([network(part)[0].argmax(dim=1).numpy() for part in _parts(images)])
    return Classifier(
        network=network,
        centre_E=features_NE.mean(axis=0),
        unit_E=np.maximum(deviation_E, _DEAD * max(float(deviation_E.max()), 1e-12)),
        task="by how many quarter turns it was turned" if turned else f"its label, one of {classes}",
        accuracy=float((said_N == label_B).mean()),
        chance=float(np.bincount(label_B).max() / len(label_B)),
    )


def checked_images(kind: str, images_NHWC: Images) -> None:
    """Raises `InputError` for what is no uint8 array `[images, height, width, 1 or 3 colours]`."""
    shape = images_NHWC.shape
    if images_NHWC.dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or not len(images_NHWC):
        raise InputError(
            f"The {kind} images are {images_NHWC.dtype} of shape {shape}: give uint8 [images, height, width, "
            "1 or 3 colours]."
        )
    if min(shape[1:3]) < SMALLEST:
        raise InputError(
            f"The {kind} images are {shape[1]} × {shape[2]} pixels: give at least {SMALLEST} a side."
        )


def _classes(label_N: Ints, images_NHWC: Images) -> Ints:
    """The labels as 0 … classes − 1."""
    if label_N.shape != (len(images_NHWC),):
        raise InputError(
            f"{len(images_NHWC)} images have labels of shape {label_N.shape}: give one for each."
        )
    found, label_N = np.unique(label_N, return_inverse=True)
    if len(found) < 2:
        raise InputError("All images have one label, which teaches nothing: leave the labels out.")
    return np.asarray(label_N, dtype=np.int64)


def _batches(index_N: Ints, iterations: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Every image once, then every image again in another order."""
    waiting = index_N[:0]
    for _ in range(iterations):
        if len(waiting) < min(BATCH, len(index_N)):
            waiting = rng.permutation(index_N)
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def _turned(images_BHWC: Images, turns_B: Ints) -> tuple[Images, Ints]:
    """The middle square of each image after so many quarter turns, with those as the label."""
    side = min(images_BHWC.shape[1:3])
    top, left = ((length - side) // 2 for length in images_BHWC.shape[1:3])
    square_BSSC = images_BHWC[:, top : top + side, left : left + side]
    pairs = zip(square_BSSC, turns_B, strict=True)
    return np.stack([np.rot90(image, turn) for image, turn in pairs]), turns_B.astype(np.int64)


def _parts(images_NHWC: Images) -> Iterator[torch.Tensor]:
    from streamgen.models.pixels import to_minmax

    for first in range(0, len(images_NHWC), _AT_ONCE):
        yield to_minmax(images_NHWC[first : first + _AT_ONCE])


def _features(network: torch.nn.Module, images_NHWC: Images) -> Floats:
    """[N, E] as the network gives them."""
    import torch

    with torch.no_grad():
        found = [network(part)[1].double().numpy() for part in _parts(images_NHWC)]
    return np.concatenate(found)


def _network(shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    """[B, C, H, W] → logits [B, classes], features [B, E]."""
    import torch
    from torch import nn

    _, height, width, colours = shape
    first = max(1, min(height, width) // LARGEST_MAP)

    def layer(inside: int, outside: int, step: int) -> nn.Module:
        # The normalisation is the batch's: an image's own divides by its contrast, which is to be seen.
        return nn.Sequential(
            nn.Conv2d(inside, outside, step + 2, step, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.GELU(),
        )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inside = (colours, *CHANNELS[:-1])
            steps = (first, *([2] * (len(CHANNELS) - 1)))
            self.layers = nn.ModuleList(map(layer, inside, CHANNELS, steps))
            self.head = nn.Linear(CHANNELS[-1], classes)

        def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            means = []
            for one in self.layers:
                x_BCHW = one(x_BCHW)
                means.append(x_BCHW.mean(dim=(2, 3)))
            return self.head(means[-1]), torch.cat(means, dim=1)

    return Network()
