"""A training from start to end, broken off, gone wrong, and with a place that is full."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from streamgen.errors import InputError, StateError
from streamgen.images.checkpoint import existing, newest, write
from streamgen.images.drawing import between, draw, noise, trained
from streamgen.images.source import Images, Look
from streamgen.images.training import Progress, Training
from streamgen.images.watch import Watch
from streamgen.models.batch import build
from streamgen.state.folder import open_folder

SMALL = {
    "vae": {"name": "vae", "width": 4, "latent": 4, "batch": 8, "steps": 6},
    "gan": {"name": "gan", "width": 4, "latent": 4, "batch": 8, "steps": 6},
}


def images(count: int = 20) -> Images:
    """Bars at several heights."""
    found = np.zeros((count, 16, 16, 1), np.uint8)
    for number, image in enumerate(found):
        image[number % 12 : number % 12 + 4] = 200
    return found


def nothing(_: Progress) -> None:
    pass


def training(folder: Path, model: dict[str, Any], given: Images | None = None, seed: int = 0) -> Training:
    return Training(images() if given is None else given, model, Look(), seed, "cpu", open_folder(folder))


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SMALL[request.param]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return existing(open_folder(folder))[1]


def test_a_training_leaves_checkpoints_grids_and_a_plot(tmp_path: Path, model: dict[str, Any]) -> None:
    seen: list[Progress] = []
    outcome = training(tmp_path, model).run(2, seen.append)
    assert (outcome.step, outcome.failure, outcome.skipped) == (6, None, 0)
    assert [one.step for one in seen] == list(range(1, 7))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("checkpoint-000000004.safetensors", "checkpoint-000000006.safetensors", "losses.png"),
        *("samples-000000002.png", "samples-000000004.png", "samples-000000006.png"),
    ]
    with Image.open(tmp_path / "samples-000000006.png") as grid:
        grid.load()
        assert grid.width >= 320
    assert [step for step, _ in existing(open_folder(tmp_path))[0].history] == [2, 4, 6]


def test_broken_off_and_gone_on_is_bitwise_as_uninterrupted(tmp_path: Path, model: dict[str, Any]) -> None:
    training(tmp_path / "whole", model).run(2, nothing)

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "broken", model).run(2, stop)
    again = training(tmp_path / "broken", model)
    assert again.step == 4
    again.run(2, nothing)
    whole, broken = (existing(open_folder(tmp_path / name)) for name in ("whole", "broken"))
    assert whole[0] == broken[0]
    assert all(torch.equal(whole[1][name], broken[1][name]) for name in whole[1])
    for name in ("samples-000000006.png", "losses.png", "checkpoint-000000006.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_more_steps_go_on(tmp_path: Path, model: dict[str, Any]) -> None:
    training(tmp_path / "a", model).run(3, nothing)
    training(tmp_path / "a", {**model, "steps": 9}).run(3, nothing)
    training(tmp_path / "b", {**model, "steps": 9}).run(3, nothing)
    one, other = state(tmp_path / "a"), state(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("change", "said"), [({"latent": 5}, "model.latent 4, not 5"), ({"seed": 1}, "seed 0, not 1")]
)
def test_a_folder_of_another_training_is_refused(tmp_path: Path, change: dict[str, int], said: str) -> None:
    training(tmp_path, SMALL["vae"])
    settings = {**SMALL["vae"], **{key: value for key, value in change.items() if key != "seed"}}
    with pytest.raises(StateError, match=said):
        training(tmp_path, settings, seed=change.get("seed", 0))
    with pytest.raises(StateError, match="digest"):
        training(tmp_path, SMALL["vae"], images()[::-1])
    with pytest.raises(StateError, match=r"model\.name vae, not gan"):  # before all that follows from it
        training(tmp_path, SMALL["gan"])


def test_every_image_is_learned_from_once_a_pass(tmp_path: Path) -> None:
    found = training(tmp_path, SMALL["vae"])
    steps = np.concatenate([found.lessons._order.batch(step, 8) for step in range(1, 6)])
    for start in (0, 20):
        assert sorted(steps[start : start + 20].tolist()) == list(range(20))
    assert steps[:20].tolist() != steps[20:].tolist()
    assert found.lessons._order.batch(2, 8).tolist() == steps[8:16].tolist()


def test_gradient_descent_sees_all_images(tmp_path: Path) -> None:
    found = training(tmp_path, {**SMALL["vae"], "optimizer": "gd", "steps": 2})
    assert len(found.lessons.images(1)) == 20
    assert found.run(2, nothing).failure is None


def test_a_collapse_goes_back_to_the_checkpoint_before(tmp_path: Path, model: dict[str, Any]) -> None:
    found = training(tmp_path, model)
    found.watch.spread = 0.9  # as if it had done well
    kept: dict[str, torch.Tensor] = {}

    def break_it(progress: Progress) -> None:
        if progress.step == 4:
            kept.update(state(tmp_path))
            drawing = found.model.networks["averaged"]
            for weight in drawing.parameters():
                weight.data.zero_()

    outcome = found.run(2, break_it)
    assert outcome.step == 2
    assert "At step 4 the model has collapsed" in str(outcome.failure)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in found.model.state().items())
    assert not (tmp_path / "checkpoint-000000004.safetensors").exists()


def test_a_divergence_goes_back_to_the_checkpoint_before(tmp_path: Path, model: dict[str, Any]) -> None:
    found = training(tmp_path, model)

    def break_it(progress: Progress) -> None:
        if progress.step == 3:
            for network in found.model.networks.values():
                for weight in network.parameters():
                    weight.data.fill_(torch.nan)

    outcome = found.run(2, break_it)
    assert outcome.step == 2
    assert "diverged: its images are not finite" in str(outcome.failure)
    assert np.isfinite(draw(found.model, 0, 2)).all()


def test_updates_that_are_all_skipped_are_a_divergence(tmp_path: Path, model: dict[str, Any]) -> None:
    found = training(tmp_path, model)

    def break_it(progress: Progress) -> None:
        if progress.step == 2:
            first = next(n for n in found.model.networks if n != "averaged")
            next(found.model.networks[first].parameters()).data.fill_(torch.inf)

    outcome = found.run(2, break_it)
    assert outcome.step == 2
    assert "every update of its" in str(outcome.failure)


@pytest.mark.parametrize("broken", ["discriminator", "generator"])
def test_a_network_that_stands_still_is_a_divergence_whatever_the_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    found = training(tmp_path, SMALL["gan"])
    descent = found.model.descents[broken]
    step = descent.step
    monkeypatch.setattr(
        descent, "step", lambda loss: step(loss if found.model.descents[broken].updates < 2 else torch.nan)
    )
    outcome = found.run(2, nothing)
    assert outcome.step == 2
    assert str(outcome.failure) == (
        f"At step 4 the model has diverged: every update of its {broken} was skipped, since its loss was not "
        "finite."
    )


def test_a_training_that_begins_with_a_model_counts_from_there(
    tmp_path: Path, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path / "first", model).run(2, nothing)
    begin, folder = state(tmp_path / "first"), open_folder(tmp_path / "next")
    found = Training(images(), model, Look(), 1, "cpu", folder, None, begin)
    for descent in found.model.descents.values():
        step = descent.step
        monkeypatch.setattr(descent, "step", lambda loss, step=step: step(torch.nan))
    outcome = found.run(2, nothing)
    assert outcome.step == 0
    assert "At step 2 the model has diverged: every update of its" in str(outcome.failure)


def test_a_skipped_step_is_in_no_mean_of_the_losses(tmp_path: Path, model: dict[str, Any]) -> None:
    """JSON has no number for it, so that the checkpoint could not be read. Of the first two steps both are
    skipped, of the next two one: a point without losses, and one that is the other step's."""
    found, seen = training(tmp_path, model), list[Progress]()
    learn = found.lessons.step
    odd = ("loss", "generator")

    def step(number: int) -> dict[str, float]:
        losses = learn(number)
        return {
            name: float("nan") if number <= 3 and name in odd else value for name, value in losses.items()
        }

    found.lessons.step = step  # type: ignore[method-assign]
    assert found.run(2, seen.append).failure is None
    history = dict(existing(open_folder(tmp_path))[0].history)
    (name,) = set(odd) & set(seen[0].losses)
    assert name not in history[2]
    assert history[4][name] == pytest.approx(seen[3].losses[name])
    assert len(history[2]) == len(seen[0].losses) - 1
    assert (tmp_path / "losses.png").exists()


def test_images_far_from_real_ones_are_a_divergence_only_after_better(tmp_path: Path) -> None:
    found = training(tmp_path, SMALL["gan"])
    decoder = found.model.networks["averaged"]
    for weight in decoder.parameters():
        weight.data.zero_()
    decoder.last.bias.data.fill_(5.0)  # type: ignore[union-attr, operator]
    assert found.watch.look(found.model) is None
    found.watch.distance = 0.1
    assert "further from real ones" in str(found.watch.look(found.model))


def test_noise_that_turns_black_has_not_collapsed() -> None:
    """As a generator of mostly black images begins: that its noise was varied was no merit."""
    real_NHWC = np.zeros((64, 16, 16, 1), np.uint8)
    for number, image_HWC in enumerate(real_NHWC):
        image_HWC[number % 12 :][:4, number % 11 :][:, :4] = 255
    watch, model = Watch(real_NHWC), build(SMALL["gan"], (1, 16, 16), "cpu")
    model.start(real_NHWC, np.random.default_rng(0))
    last = model.networks["averaged"].last
    assert isinstance(last, torch.nn.Conv2d)
    with torch.no_grad():
        last.weight.mul_(10.0)
        assert watch.look(model) is None
        last.weight.zero_()
        last.bias.fill_(-2.0)  # type: ignore[union-attr]
    assert watch.look(model) is None
    watch.spread = 0.6
    assert "collapsed" in str(watch.look(model))


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, model: dict[str, Any]) -> None:
    """The system's limit of a file's size refuses a write half-way, as a full disk does."""
    training(tmp_path, model).run(6, nothing)
    before = state(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(StateError, match=r"Free space.*the checkpoint before it is whole"):
            training(tmp_path, {**model, "steps": 8}).run(2, nothing)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    after = state(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("damage", ["short", "byte", "manifest"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    training(tmp_path, SMALL["vae"]).run(3, nothing)
    file = tmp_path / "checkpoint-000000006.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "short":
        data = data[:-10]
    else:
        place = -1 if damage == "byte" else data.index(b"leaky_relu")
        data[place] ^= 1
    file.write_bytes(data)
    found = newest(open_folder(tmp_path))
    assert found is not None
    assert found[0].step == 3
    (tmp_path / "checkpoint-000000003.safetensors").unlink()
    with pytest.raises(StateError, match="damaged"):
        newest(open_folder(tmp_path))


def test_another_version_is_refused_by_name(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    training(tmp_path, SMALL["vae"])
    manifest, tensors = existing(folder)
    write(folder, replace(manifest, version=9, step=1), tensors)
    with pytest.raises(StateError, match="format version 9"):
        newest(folder)


def test_samples_are_the_same_bytes_however_many_are_drawn(tmp_path: Path, model: dict[str, Any]) -> None:
    found = training(tmp_path, model)
    found.run(6, nothing)
    again, _ = trained(open_folder(tmp_path), "cpu")
    many, few = draw(found.model, 7, 70), draw(again, 7, 3)
    np.testing.assert_array_equal(many[:3], few)
    assert (draw(again, 8, 3) != few).any()


def test_a_row_begins_and_ends_at_two_samples(tmp_path: Path, model: dict[str, Any]) -> None:
    found = training(tmp_path, model).model
    row = between(found, 3, 2, 5).reshape(2, 5, 16, 16, 1).astype(int)
    ends = draw(found, 3, 4).astype(int)
    np.testing.assert_allclose(row[:, 0], ends[[0, 2]], atol=1)
    np.testing.assert_allclose(row[:, 4], ends[[1, 3]], atol=1)
    assert noise(found, 3, 2, 1).tobytes() == noise(found, 3, 0, 4)[2:3].tobytes()


def test_one_image_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2"):
        training(tmp_path, SMALL["vae"], images(1))
    with pytest.raises(InputError, match="streamgen images fit"):
        trained(open_folder(tmp_path), "cpu")
