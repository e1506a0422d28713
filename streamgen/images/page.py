"""Real and generated images side by side, as one page that needs no other file.

N real images of H × W pixels with C colours, M generated ones; P rows of a grid with K images each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamgen.evaluation import page
from streamgen.images.classifier import Classifier, Images
from streamgen.images.evaluation import Closest, Judgement
from streamgen.plotstyle import OTHER, VALUE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

ROWS = 8  # of a grid of samples, and as many across
LARGE = 320  # pixels across a grid, at least: small images are shown larger, each pixel a square
GAP = 2
_WHITE = 255


def write_page(
    folder: Path,
    real_NHWC: Images,
    generated_MHWC: Images,
    judged: Judgement,
    classifiers: Sequence[Classifier],
    title: str,
) -> Path:
    """Write `evaluation.html` and its pictures as PNG files into `folder`; returns the page's path.

    Raises `InputError` for a folder that cannot be written, and `MissingDependency` without matplotlib.
    """
    accuracy = ", ".join(f"{one.accuracy:.1%}" for one in classifiers)
    said = [
        f"{len(real_NHWC)} real and {len(generated_MHWC)} generated images. Each figure stands beside its "
        "null, what real images give against real ones; the interval of their difference is at 95 %, over "
        "seeds.",
        "The own Fréchet distance is taken in the features of classifiers that were trained on these data "
        "alone. It is no FID and can never be compared with a published one, nor with that of other data.",
        f"Each classifier told of an image {classifiers[0].task}: right for {accuracy} of the images that it "
        f"had not learned (a blind guess: {classifiers[0].chance:.1%}).",
    ]
    return page.write(folder, title, said, judged.figures, _pictures(real_NHWC, generated_MHWC, judged))


def _pictures(real_NHWC: Images, generated_MHWC: Images, judged: Judgement) -> Iterator[page.Picture]:
    rng = np.random.default_rng(0)
    halves = [_grid(_some(images, rng)) for images in (real_NHWC, generated_MHWC)]
    yield page.Picture(
        "samples",
        "Images drawn at random: real ones on the left, generated ones on the right.",
        _beside(halves),
    )
    if judged.held_out is None:
        yield page.Picture(
            "nearest",
            "The generated images that are nearest to a real one, each followed by its nearest real images.",
            _beside([_grid(judged.generated.shown)]),
        )
        return
    yield page.Picture(
        "nearest",
        "Left, the generated images that are nearest to a training image, each followed by its nearest "
        "training images; right, the same of held-out images, which nobody can have copied.",
        _beside([_grid(judged.generated.shown), _grid(judged.held_out.shown)]),
    )
    yield page.Picture(
        "distances",
        "Distance to the nearest training image, in that image's distance to its own nearest. Copies are "
        "a peak at 0.",
        page.png(partial(_distances, judged.generated, judged.held_out)),
    )


def _some(images_NHWC: Images, rng: np.random.Generator) -> Images:
    """[P, K, H, W, C] images, drawn at random; the first ones again where there are too few."""
    count = ROWS * ROWS
    drawn = np.resize(rng.permutation(len(images_NHWC))[:count], count)
    return images_NHWC[drawn].reshape(ROWS, ROWS, *images_NHWC.shape[1:])


def _grid(images_PKHWC: Images) -> Images:
    """[height, width, 3] of all, with a white line between them."""
    rows, across, height, width, colours = images_PKHWC.shape
    cells = np.full((rows, across, height + GAP, width + GAP, 3), _WHITE, dtype=np.uint8)
    cells[:, :, :height, :width] = images_PKHWC if colours == 3 else images_PKHWC.repeat(3, axis=4)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * (height + GAP), across * (width + GAP), 3)


def _beside(grids: Sequence[Images]) -> bytes:
    """The PNG file of grids of one height, enlarged by whole pixels."""
    times = max(1, -(-LARGE // min(grid.shape[1] for grid in grids)))
    between = np.full((grids[0].shape[0], 6 * GAP, 3), _WHITE, dtype=np.uint8)
    row = [part for grid in grids for part in (between, grid)][1:]
    return page.pixels(np.concatenate(row, axis=1).repeat(times, axis=0).repeat(times, axis=1))


def _distances(generated: Closest, held_out: Closest) -> Drawing:
    drawing, axes = page.panels(1, 1, 2.8)
    edges = np.linspace(0.0, float(np.quantile(held_out.ratio_M, 0.99)), 50)
    for kind, colour, found in (("held-out", VALUE, held_out), ("generated", OTHER, generated)):
        ratio_M = np.clip(found.ratio_M, None, edges[-1])  # what is beyond stands at the end
        weight_M = np.full(len(ratio_M), 1.0 / len(ratio_M))
        axes[0, 0].hist(ratio_M, edges, weights=weight_M, histtype="step", color=colour, label=kind)
    axes[0, 0].legend()
    return drawing
