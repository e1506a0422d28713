"""The page of an evaluation of images: whole in itself, and the same for the same images."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from streamgen.images.classifier import Classifier, Images
from streamgen.images.evaluation import evaluate
from streamgen.images.page import write_page
from streamgen.records import Ints

Shapes = Callable[..., tuple[Images, Ints]]


def test_a_page_holds_its_figures_and_pictures_and_needs_nothing_else(
    shapes: Shapes, classifiers: list[Classifier], tmp_path: Path
) -> None:
    real, training = shapes(0, 60)[0], shapes(100, 800)[0]
    generated = np.concatenate([training[:50], 255 - real])
    found = evaluate(real, generated, classifiers, training)
    pages = [
        write_page(tmp_path / name, real, generated, found, classifiers, "a & b").read_text() for name in "xy"
    ]
    assert pages[0] == pages[1]
    assert "<h1>a &amp; b</h1>" in pages[0]
    assert "It is no FID and can never be compared" in pages[0]
    assert f"right for {classifiers[0].accuracy:.1%}" in pages[0]
    assert [one.name for one in found.figures] == [
        *("own Fréchet distance", "precision", "recall", "density", "coverage", "copies"),
    ]
    for figure in found.figures:
        assert f"<td>{figure.name}</td><td>{figure.better}</td><td>{figure.value:.4f}</td>" in pages[0]
    assert pages[0].count("worse than real") == sum(one.worse_than_real for one in found.figures) > 0
    embedded = re.findall(r'src="data:image/png;base64,([^"]*)"', pages[0])
    assert [base64.b64decode(one) for one in embedded] == [
        (tmp_path / "x" / f"{name}.png").read_bytes() for name in ("samples", "nearest", "distances")
    ]
    assert not re.search(r'(src|href)="(?!data:)', pages[0])


def test_the_grid_shows_the_images_pixel_by_pixel(
    shapes: Shapes, classifiers: list[Classifier], tmp_path: Path
) -> None:
    """Of copies, each is followed by itself."""
    real, training = shapes(0, 60)[0], shapes(100, 800)[0]
    found = evaluate(real, training[:60], classifiers, training)
    shown = found.generated.shown
    assert np.array_equal(shown[:, 0], shown[:, 1])
    write_page(tmp_path, real, training[:60], found, classifiers, "grid")
    pixels = (imread(tmp_path / "nearest.png") * 255).round().astype(np.uint8)
    step, times = 16 + 2, 3  # an image and the line; six of them are brought to 320 pixels or more
    for row in range(8):
        for across in range(6):
            cell = pixels[times * step * row :: times, times * step * across :: times][:16, :16]
            assert np.array_equal(cell[:, :, :3], shown[row, across])


def test_without_training_data_real_images_are_shown(
    shapes: Shapes, classifiers: list[Classifier], tmp_path: Path
) -> None:
    real, generated = shapes(0, 30)[0], shapes(1, 24)[0]
    page = write_page(tmp_path, real, generated, evaluate(real, generated, classifiers), classifiers, "small")
    assert "nearest to a real one" in page.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation.html",
        "nearest.png",
        "samples.png",
    ]
