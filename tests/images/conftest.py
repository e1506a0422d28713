"""Small images of four classes, which a classifier learns in seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from streamgen.images.classifier import Classifier, Images, learn
from streamgen.records import Ints

SIDE = 16
SHAPES = ("disc", "ring", "bars", "cross")


def drawn(seed: int, count: int, only: str | None = None) -> tuple[Images, Ints]:
    """[count, SIDE, SIDE, 3] shapes of any place, size and colour on a dark ground, and which each is."""
    rng = np.random.default_rng(seed)
    label_N = rng.integers(len(SHAPES), size=count) if only is None else np.full(count, SHAPES.index(only))
    down, across = np.mgrid[:SIDE, :SIDE]
    images = np.empty((count, SIDE, SIDE, 3))
    for n, label in enumerate(label_N):
        y, x = rng.uniform(6, 10, size=2)
        radius = rng.uniform(3.0, 5.5)
        far = np.hypot(down - y, across - x)
        inside = {
            "disc": far < radius,
            "ring": np.abs(far - radius) < 1.0,
            "bars": (np.abs(across - x) < radius) & (down % 4 < 2),
            "cross": (np.abs(down - y) < 1.2) | (np.abs(across - x) < 1.2),
        }[SHAPES[label]]
        images[n] = np.where(inside[:, :, None], rng.uniform(120, 230, size=3), 40.0)
    images += rng.normal(scale=6.0, size=images.shape)
    return np.clip(images, 0, 255).astype(np.uint8), label_N


@pytest.fixture(scope="session")
def shapes() -> Callable[..., tuple[Images, Ints]]:
    return drawn


@pytest.fixture(scope="session")
def classifiers() -> list[Classifier]:
    """Three seeds; their training images are `drawn(100, 800)`."""
    images, label_N = drawn(100, 800)
    return [learn(images, label_N, seed, iterations=60) for seed in range(3)]
