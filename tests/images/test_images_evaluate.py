"""`streamgen images evaluate` over files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamgen.images import classifier
from streamgen.images.classifier import Images
from streamgen.records import Ints

Said = tuple[int, str, str]
Shapes = Callable[..., tuple[Images, Ints]]


@pytest.fixture
def file(shapes: Shapes, tmp_path: Path) -> Path:
    (train, train_label), (test, test_label) = shapes(0, 400), shapes(1, 200)
    arrays = {"train": train, "train_label": train_label, "test": test, "test_label": test_label}
    np.savez(tmp_path / "shapes.npz", **arrays)
    np.savez(tmp_path / "alike.npz", made=shapes(2, 100)[0])
    np.savez(tmp_path / "copies.npz", made=train[:100])
    np.savez(tmp_path / "grey.npz", made=train[:100, :, :, 0])
    return tmp_path / "shapes.npz"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes are soon learned."""
    monkeypatch.setattr(classifier, "learn", partial(classifier.learn, iterations=40))


def worse(out: str) -> list[str]:
    return [line.split("  ")[0] for line in out.splitlines() if line.endswith("worse than real")]


def test_copies_are_named_and_a_page_is_written(cli: Callable[..., Said], file: Path) -> None:
    folder = file.parent
    options = ("--train", f"{file}:train", "--seeds", 2, "--page", folder / "new")
    code, out, err = cli("images", "evaluate", f"{file}:test", folder / "copies.npz", *options)
    assert code == 0, err
    assert err.count(" of 2 tells its label, one of 4: ") == 2
    assert out.startswith("200 real and 100 generated images\n")
    assert "copies" in worse(out)
    assert "never compare it with a published FID" in out
    assert out.splitlines()[-1] == str(folder / "new" / "evaluation.html")
    assert "copies.npz beside shapes.npz:test" in (folder / "new" / "evaluation.html").read_text()


def test_a_page_that_cannot_be_written_is_told_before_anything_is_judged(
    cli: Callable[..., Said], file: Path
) -> None:
    options = ("--train", f"{file}:train", "--page", file)
    code, _, err = cli("images", "evaluate", f"{file}:test", file.parent / "alike.npz", *options)
    assert code == 1
    assert "Name a folder" in err
    assert "classifier" not in err


def test_a_trained_vae_says_how_likely_it_finds_what_it_did_not_learn(
    cli: Callable[..., Said], file: Path
) -> None:
    folder = file.parent
    with np.load(file) as held:
        np.savez(folder / "train.npz", train=held["train"])
        np.savez(folder / "small.npz", test=held["test"][:, :, :, :1])
    (folder / "small.yaml").write_text("model: {name: vae, width: 4, latent: 4, steps: 30}")
    (folder / "gan.yaml").write_text("model: {name: gan, width: 4, latent: 4, batch: 8, steps: 1}")
    for name in ("small", "gan"):
        options = ("--config", folder / f"{name}.yaml", "--state", folder / name)
        assert cli("images", "fit", folder / "train.npz", *options)[0] == 0
    given = ("images", "evaluate", f"{file}:test", folder / "alike.npz", "--seeds", 2)
    code, out, err = cli(*given, "--train", f"{file}:train", "--state", folder / "small")
    assert code == 0, err
    (line,) = (line for line in out.splitlines() if line.startswith("held-out ELBO"))
    assert not line.endswith("worse than real")  # 30 steps learn nothing by heart
    for options, said in (
        (("--state", folder / "small"), "--state needs --train"),
        (("--train", f"{file}:train", "--state", folder / "gan"), "holds a gan, which gives no likelihood"),
    ):
        code, _, err = cli(*given, *options)
        assert code == 1
        assert said in err, err
    grey = ("images", "evaluate", folder / "small.npz", folder / "small.npz", "--seeds", 2)
    code, _, err = cli(*grey, "--train", folder / "small.npz", "--state", folder / "small")
    assert code == 1
    assert "bring them to its size" in err, err


def test_a_folder_is_brought_to_the_form_of_what_was_generated(cli: Callable[..., Said], file: Path) -> None:
    folder = file.parent
    with np.load(file) as held:
        for name in ("train", "test"):
            (folder / name).mkdir()
            for n, image in enumerate(held[name]):
                Image.fromarray(image).resize((40, 32)).save(folder / name / f"{n:03d}.png")
    (folder / "test" / "none.png").write_bytes(b"none")
    options = ("--train", folder / "train", "--seeds", 2)
    code, out, err = cli("images", "evaluate", folder / "test", folder / "alike.npz", *options)
    assert code == 0, err
    assert out.startswith("200 real and 100 generated images\n")
    assert "none.png" in err
    assert any(line.startswith("copies") for line in out.splitlines())


def test_without_training_data_half_of_the_real_images_teach(cli: Callable[..., Said], file: Path) -> None:
    code, out, err = cli("images", "evaluate", f"{file}:test", file.parent / "alike.npz", "--seeds", 2)
    assert code == 0, err
    assert out.startswith("100 real and 100 generated images\n")
    assert "copies" not in out
    code, out, err = cli(
        "images", "evaluate", file.parent / "grey.npz", file.parent / "grey.npz", "--seeds", 2
    )
    assert code == 0, err
    assert "by how many quarter turns it was turned" in err


def test_what_cannot_be_read_is_named(cli: Callable[..., Said], file: Path) -> None:
    folder = file.parent
    (folder / "text.npz").write_text("no images")
    np.save(folder / "bare.npy", np.zeros((30, 16, 16), np.uint8))
    np.savez(folder / "objects.npz", made=np.array([{}]))
    for real, said in (
        (file, "holds 2 arrays of images (train, test): name one, as"),
        (f"{file}:none", "shapes.npz holds no array none."),
        (folder / "text.npz", "text.npz is no file of images"),
        (f"{folder}/objects.npz:made", "objects.npz is no file of images"),
        (folder / "bare.npy", "bare.npy is no file of images (it holds one bare array): give a .npz file."),
        (folder / "missing.npz", "missing.npz is no file of images"),
        (f"{file}:train_label", "The real images are int64 of shape"),
    ):
        code, out, err = cli("images", "evaluate", real, folder / "alike.npz")
        assert (code, out) == (1, "")
        assert said in err, err
    code, _, err = cli("images", "evaluate", f"{file}:test", folder / "grey.npz")
    assert code == 1
    assert err.startswith("streamgen: The generated images are 16 × 16 pixels in 1 colour, the real ones"), (
        err
    )
