"""The page of an evaluation: whole in itself, the same for the same windows, and of any windows."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from streamgen.errors import InputError, MissingDependency
from streamgen.evaluation import QUICK, evaluate
from streamgen.evaluation.pictures import write_page

PICTURES = ["windows", "projection", "values", "autocorrelations"]


def test_a_page_holds_its_figures_and_pictures_and_needs_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(60, 8, 6)), 2 * rng.normal(size=(50, 8, 6))
    figures = evaluate(real, generated, measures=QUICK)
    columns = [f"c{d} <&>" for d in range(6)]
    pages = [
        write_page(tmp_path / name, real, generated, columns, figures, "a & b").read_text() for name in "xy"
    ]
    assert pages[0] == pages[1]
    assert "<h1>a &amp; b</h1>" in pages[0]
    for figure in figures:
        assert f"<td>{figure.name}</td><td>{figure.better}</td><td>{figure.value:.4f}</td>" in pages[0]
    assert pages[0].count("worse than real") == sum(figure.worse_than_real for figure in figures) > 0
    embedded = re.findall(r'src="data:image/png;base64,([^"]*)"', pages[0])
    assert [base64.b64decode(one) for one in embedded] == [
        (tmp_path / "x" / f"{name}.png").read_bytes() for name in PICTURES
    ]
    assert not re.search(r'(src|href)="(?!data:)', pages[0])


@pytest.mark.parametrize("shape", [(30, 1, 1), (30, 5, 1), (3, 1, 9)])
def test_windows_of_any_shape_are_drawn(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=shape), rng.normal(size=shape)
    real[:, :, 0] = 7.0  # one that does not move
    write_page(tmp_path, real, generated, [str(d) for d in range(shape[2])], [], "any")
    for name in PICTURES:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match=r"matplotlib: pip install 'streamgen-kafka\[demo\]'"):
        write_page(tmp_path, np.zeros((3, 2, 1)), np.zeros((3, 2, 1)), ["x"], [], "none")


def test_a_file_is_no_folder_for_a_page(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for folder in (tmp_path / "there", tmp_path / "there" / "below"):
        with pytest.raises(InputError, match="there is a file"):
            write_page(folder, np.zeros((3, 2, 1)), np.zeros((3, 2, 1)), ["x"], [], "none")
