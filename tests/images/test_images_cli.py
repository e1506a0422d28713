"""The commands of `streamgen images`, as a user types them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Said = tuple[int, str, str]
Cli = Callable[..., Said]


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """A folder of 12 PNG files."""
    folder = tmp_path / "bars"
    folder.mkdir()
    for number in range(12):
        image = np.zeros((20, 20), np.uint8)
        image[number : number + 4] = 220
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


def quick(tmp_path: Path, name: str = "gan") -> Path:
    file = tmp_path / "quick.yaml"
    text = f"model: {{name: {name}, width: 4, latent: 4, batch: 4, steps: 4}}\nimages: {{size: 16}}\n"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_training_that_collapses_ends_with_an_exit_code(
    bars: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([None, "collapsed: its images are all alike"])
    monkeypatch.setattr("streamgen.images.watch.Watch.look", lambda self, model: next(looks))
    state = tmp_path / "state"
    fit = ("images", "fit", bars, "--state", state, "--config", quick(tmp_path), "--every", 2)
    code, _, said = cli(*fit)
    assert code == 1
    assert f"Went back to the checkpoint of step 2 in {state}, and ended." in said
    assert "Try a smaller model.learning_rate, or another --seed, with another --state" in said
    assert "done" not in said


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_fit_sample_interpolate(bars: Path, tmp_path: Path, cli: Cli, name: str) -> None:
    (bars / "broken.png").write_bytes(b"\x89PNG")
    state = tmp_path / "state"
    fit = ("images", "fit", bars, "--state", state, "--config", quick(tmp_path, name), "--every", 2)
    code, _, said = cli(*fit)
    assert code == 0, said
    assert "1 files were skipped:\n  broken.png: no image of a known format" in said
    assert f"{name}: 12 images of 16 × 16 on cpu\n" in said
    assert "step 4 of 4: " in said
    assert (state / "samples-000000004.png").exists()
    code, _, said = cli(*fit, "--steps", 6, "--device", "cpu")
    assert code == 0, said
    assert "going on from step 4" in said

    for _ in range(2):
        assert cli("images", "sample", "--state", state, "--out", tmp_path / "s.npz", "--count", 3)[0] == 0
    drawn = np.load(tmp_path / "s.npz")["images"]
    assert drawn.shape == (3, 16, 16, 1)
    assert cli("images", "sample", "--state", state, "--out", tmp_path / "s", "--count", 2)[0] == 0
    with Image.open(tmp_path / "s" / "000001.png") as image:
        np.testing.assert_array_equal(np.asarray(image), drawn[1, ..., 0])
    assert cli("images", "sample", "--state", state, "--out", tmp_path / "s.png", "--count", 9)[0] == 0
    out = tmp_path / "between.png"
    assert cli("images", "interpolate", "--state", state, "--out", out, "--rows", 2, "--across", 4)[0] == 0
    with Image.open(out) as image:
        assert image.size == ((4 * 18 - 2) * 5, (2 * 18 - 2) * 5)


def test_what_is_wrong_is_a_sentence(bars: Path, tmp_path: Path, cli: Cli) -> None:
    state = tmp_path / "state"
    fit = ("images", "fit", bars, "--state", state)
    for arguments, said in (
        ((*fit, "--model", "gam"), "did you mean gan?"),
        ((*fit, "--colours", "blue"), "images.colours"),
        (("images", "fit", tmp_path / "none", "--state", state), "nothing at"),
        (("images", "sample", "--state", state, "--out", "x.npz"), "no trained model"),
        (("images", "sample", "--state", state, "--out", "x.tiff"), "neither .npz"),
    ):
        code, _, error = cli(*arguments)
        assert code == 1
        assert said in error
    assert not state.exists()
    (tmp_path / "odd.yaml").write_text("modle: {}", encoding="utf-8")
    code, _, error = cli(*fit, "--config", tmp_path / "odd.yaml")
    assert code == 1
    assert "'modle'" in error
