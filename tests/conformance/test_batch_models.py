"""The suite that every batch model and preset passes: it finds them in the registry."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from streamgen.errors import ConfigError, StateError
from streamgen.images.watch import Watch
from streamgen.models import batch
from streamgen.models.batch_model import BatchModel, Images
from streamgen.models.noise import generator
from streamgen.models.pixels import to_pixels
from streamgen.models.vae import VAE

SIZE, COLOURS = 16, 3
PRESETS = [
    (name, preset)
    for name in batch.names()
    for preset in get_args(type(batch.settings({"name": name})).model_fields["preset"].annotation)
]
OPTIMISERS = get_args(type(batch.settings({"name": "gan"})).model_fields["optimizer"].annotation)


@pytest.fixture(params=PRESETS, ids=[" ".join(one) for one in PRESETS])
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


def images(count: int = 24, size: int = SIZE, colours: int = COLOURS) -> Images:
    """Discs of several sizes and colours."""
    rng = np.random.default_rng(0)
    y_HW, x_HW = np.mgrid[:size, :size]
    found = np.zeros((count, size, size, colours), np.uint8)
    for image in found:
        centre, radius = rng.uniform(4, size - 4, 2), rng.uniform(2, 5)
        inside_HW = (y_HW - centre[0]) ** 2 + (x_HW - centre[1]) ** 2 < radius**2
        image[inside_HW] = rng.integers(80, 256, colours)
    return found


def build(
    kind: tuple[str, str], colours: int = COLOURS, size: int = SIZE, device: str = "cpu", **settings: object
) -> BatchModel:
    name, preset = kind
    small = {"name": name, "preset": preset, "width": 4, "latent": 8, "batch": 8, **settings}
    return batch.build(small, (colours, size, size), device)


def started(kind: tuple[str, str], seed: int = 0, **settings: object) -> BatchModel:
    model = build(kind, **settings)  # type: ignore[arg-type]
    model.start(images(), generator(seed, "images", None, model.name, 0))
    return model


def learn(model: BatchModel, first: int, end: int) -> list[dict[str, float]]:
    losses = []
    for step in range(first, end):
        rng = generator(0, "images", None, model.name, step + 1)
        losses.append(model.learn(images()[rng.integers(0, 24, model.settings.batch)], rng))
    return losses


def drawn(model: BatchModel) -> bytes:
    return to_pixels(model.draw(model.normal(np.random.default_rng(5), 4))).tobytes()


def assert_same(one: BatchModel, other: BatchModel) -> None:
    mine, theirs = one.state(), other.state()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_registered_models_are_tested_in_every_preset() -> None:
    assert PRESETS == [("vae", "default"), ("vae", "paper"), ("gan", "default"), ("gan", "paper")]


def test_learning_moves_every_network_and_gives_images(kind: tuple[str, str]) -> None:
    model = started(kind)
    before = model.state()
    losses = learn(model, 0, 3)
    assert all(np.isfinite(list(one.values())).all() for one in losses)
    after = model.state()
    for owner in model.networks:
        moved = [not torch.equal(before[n], after[n]) for n in before if n.startswith(f"networks.{owner}.")]
        assert any(moved), owner
    image = model.draw(model.normal(np.random.default_rng(0), 5))
    assert image.shape == (5, COLOURS, SIZE, SIZE)
    assert to_pixels(image).shape == (5, SIZE, SIZE, COLOURS)


def test_resumed_is_bitwise_as_uninterrupted(kind: tuple[str, str]) -> None:
    whole, first, second = started(kind), started(kind), build(kind)
    expected = learn(whole, 0, 6)
    learn(first, 0, 3)
    second.load(first.state())
    assert learn(second, 3, 6) == expected[3:]
    assert_same(second, whole)
    assert drawn(second) == drawn(whole)


def test_what_was_saved_does_not_move_with_the_model(kind: tuple[str, str]) -> None:
    model = started(kind)
    learn(model, 0, 2)
    saved = model.state()
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    learn(model, 2, 4)
    assert all(torch.equal(saved[name], kept[name]) for name in kept)


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_resume_is_bitwise_under_every_optimiser(optimizer: str) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 1e-3}
    whole, first, second = (started(("vae", "paper"), **settings) for _ in range(3))
    learn(whole, 0, 4)
    learn(first, 0, 2)
    second.load(first.state())
    learn(second, 2, 4)
    assert_same(second, whole)


def test_the_seed_decides(kind: tuple[str, str]) -> None:
    one, same, other = started(kind), started(kind), started(kind, seed=1)
    assert_same(one, same)
    assert drawn(one) == drawn(same) != drawn(other)


def test_a_loss_that_is_not_finite_is_skipped_and_counted(kind: tuple[str, str]) -> None:
    model = started(kind)
    learn(model, 0, 2)
    state = model.state()
    first = next(name for name in state if name.endswith(".bias"))
    state[first][:] = torch.nan
    model.load(state)
    learn(model, 2, 4)
    assert model.skipped >= 2
    for name, tensor in model.state().items():
        if name.startswith("networks.") and torch.isfinite(state[name]).all():
            assert torch.isfinite(tensor).all(), name


@pytest.mark.parametrize("count", [2, 3])
def test_two_images_are_enough(kind: tuple[str, str], count: int) -> None:
    model = build(kind)
    few = images(count)
    model.start(few, np.random.default_rng(0))
    losses = model.learn(few, np.random.default_rng(1))
    assert np.isfinite(list(losses.values())).all()


@pytest.mark.parametrize("size", [17, 28, 128])
@pytest.mark.parametrize("colours", [1, 3])
def test_every_size_and_colour_goes_in_and_comes_out(kind: tuple[str, str], size: int, colours: int) -> None:
    model = build(kind, colours, size)
    given = images(4, size, colours)
    model.start(given, np.random.default_rng(0))
    model.learn(given, np.random.default_rng(1))
    assert model.draw(model.normal(np.random.default_rng(0), 2)).shape == (2, colours, size, size)


@pytest.mark.parametrize("normalisation", ["none", "minmax", "standard", "robust", "whitening"])
def test_images_of_one_colour_have_a_normalisation_too(kind: tuple[str, str], normalisation: str) -> None:
    model = build(kind, normalisation=normalisation)
    flat = np.full((8, SIZE, SIZE, COLOURS), 7, np.uint8)
    model.start(flat, np.random.default_rng(0))
    assert np.isfinite(list(model.learn(flat, np.random.default_rng(1)).values())).all()
    assert model.skipped == 0


def test_a_micro_batch_changes_no_more_than_rounding(kind: tuple[str, str]) -> None:
    """One step of plain descent, so that the weights' move is the gradient."""
    models = [started(kind, optimizer="sgd", learning_rate=0.01, schedule="constant") for _ in range(2)]
    before = models[0].state()
    models[1].micro = 3
    one, other = (learn(model, 0, 1)[0] for model in models)
    assert one == pytest.approx(other, rel=1e-4)
    for name, tensor in models[0].state().items():
        if name.startswith("networks.") and "averaged" not in name:
            move, moved = tensor - before[name], models[1].state()[name] - before[name]
            torch.testing.assert_close(move, moved, rtol=1e-3, atol=1e-6)


def limited(model: BatchModel, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator's error is made here: a network that takes at most so many images."""
    for network in model.networks.values():
        for part in network.children():
            forward = part.forward

            def short(*given: torch.Tensor, forward: object = forward) -> object:
                if len(given[0]) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return forward(*given)  # type: ignore[operator]

            monkeypatch.setattr(part, "forward", short)


def test_out_of_memory_halves_the_micro_batch_and_makes_the_same_step(
    kind: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short, small = started(kind), started(kind)
    small.micro = 2
    limited(short, 6, monkeypatch)  # of which the discriminator sees two at once
    for model in (short, small):
        model.learn(images(8), np.random.default_rng(1))
    assert short.micro in (2, 4)
    small.micro = short.micro
    again = started(kind)
    again.micro = short.micro
    again.learn(images(8), np.random.default_rng(1))
    assert_same(short, again)


def test_memory_that_does_not_hold_one_image_is_a_sentence(
    kind: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = started(kind)
    limited(model, 0, monkeypatch)
    with pytest.raises(ConfigError, match=r"one image .* smaller model.width, images.size or model.batch"):
        model.learn(images(8), np.random.default_rng(1))


def test_what_is_drawn_and_judged_while_it_learns_is_no_more_at_once_than_what_is_learned(
    kind: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, short = started(kind), started(kind)
    short.micro = 3
    limited(short, 3, monkeypatch)
    watches = [Watch(images(8)) for _ in range(2)]
    for watch, model in zip(watches, (whole, short), strict=True):
        assert watch.look(model) is None
    assert watches[0].state() == pytest.approx(watches[1].state(), rel=1e-3)
    if isinstance(whole, VAE) and isinstance(short, VAE):
        np.testing.assert_allclose(short.elbo(images(300)), whole.elbo(images(300)), rtol=1e-4)


def test_another_networks_state_is_refused(kind: tuple[str, str]) -> None:
    with pytest.raises(StateError, match="other weights"):
        build(kind, latent=9).load(started(kind).state())


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean latent"):
        batch.settings({"name": "vae", "latnet": 3})
    with pytest.raises(ConfigError, match="did you mean vae"):
        batch.settings({"name": "vea"})


def test_a_preset_changes_defaults_and_what_is_given_stands_above_it() -> None:
    assert batch.settings({"name": "gan", "preset": "paper"}).ema == 0
    assert batch.settings({"name": "gan", "preset": "paper", "ema": 0.5}).ema == 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_learns_in_half_precision_what_a_cpu_goes_on_with(kind: tuple[str, str]) -> None:
    gpu, cpu = started(kind, device="cuda"), started(kind)
    first = [learn(model, 0, 1)[0] for model in (gpu, cpu)]
    for name, loss in first[0].items():
        assert loss == pytest.approx(first[1][name], rel=0.05, abs=0.05)  # bfloat16 has 8 bits
    learn(gpu, 1, 10)
    assert gpu.skipped == 0
    moved = build(kind)
    moved.load(gpu.state())
    noise_BZ = cpu.normal(np.random.default_rng(5), 4)
    there = gpu.draw(noise_BZ.to("cuda")).float().cpu()
    torch.testing.assert_close(there, moved.draw(noise_BZ), rtol=0, atol=0.05)
