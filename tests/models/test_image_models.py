"""The losses of the image models against closed forms, finite differences and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from streamgen.models import batch
from streamgen.models.batch_model import Images
from streamgen.models.descent import Descent, average
from streamgen.models.gan import GAN
from streamgen.models.image_parts import Clip, Plain, PlainPicture, Tree, initialise
from streamgen.models.pixels import Normalisation, Units, to_minmax, to_pixels
from streamgen.models.vae import VAE, Flow, log_likelihood

CPU = torch.device("cpu")


def pictures(count: int, size: int = 16, colours: int = 3) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, colours), dtype=np.uint8)


@pytest.mark.parametrize("size", [28, 31])
def test_a_tree_draws_no_checkerboard(size: int) -> None:
    tree = Tree((3, size, size), 4, 1, "leaky_relu", 4)
    initialise(tree, np.random.default_rng(0))
    alike = tree.root.bias.view(-1, *tree.sizes[0])
    with torch.no_grad():
        alike.copy_(torch.randn(len(alike), 1, 1, generator=torch.Generator().manual_seed(0)))
        image_CHW = tree(torch.zeros(1, 4))[0]
    inside_CHW = image_CHW[:, 1:-1, 1:-1]  # the last convolution sees the outside as 0
    assert float(inside_CHW.std()) > 0.1
    torch.testing.assert_close(inside_CHW, inside_CHW[:, :1, :1].expand_as(inside_CHW))


def test_a_clipped_pixel_rests_at_its_bound_and_comes_back_from_it() -> None:
    pixel = torch.tensor([-3.0, -3.0, 3.0, 3.0, 0.5, -1.0], requires_grad=True)
    wanted = torch.tensor([-2.0, 0.0, 2.0, 0.0, 0.0, -2.0])
    clipped = Clip.apply(pixel)
    assert clipped.tolist() == [-1.0, -1.0, 1.0, 1.0, 0.5, -1.0]
    (0.5 * (clipped - wanted).square()).sum().backward()
    # What would only lead further out is dropped; all else is as if nothing had been clipped.
    assert pixel.grad is not None
    assert pixel.grad.tolist() == [0.0, -1.0, 0.0, 1.0, 0.5, 1.0]


def test_a_generator_that_draws_all_black_learns_to_draw_something_else() -> None:
    """With tanh it does not: −4 has a thousandth of the gradient."""
    model = batch.build({"name": "gan", "width": 4, "latent": 4}, (1, 16, 16), "cpu")
    assert isinstance(model, GAN)
    model.start(np.zeros((4, 16, 16, 1), np.uint8), np.random.default_rng(0))
    noise_BZ = torch.from_numpy(np.random.default_rng(1).standard_normal((8, 4), np.float32))
    last = model.generator.last
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        last.bias.fill_(-4.0)
        last.weight.mul_(0.1)
    optimiser = torch.optim.SGD([last.bias], 0.001)
    for _ in range(20):
        optimiser.zero_grad()
        drawn_BCHW = model.generator(noise_BZ)
        (drawn_BCHW - 0.5).square().mean(0).sum().backward()
        optimiser.step()
    assert float(drawn_BCHW.detach().mean()) == pytest.approx(0.5, abs=0.1)


def test_the_likelihood_of_grey_levels_is_the_logistics() -> None:
    levels = np.arange(256)
    image = torch.from_numpy(levels / 127.5 - 1.0).reshape(1, 1, 1, 256)
    edges = (np.arange(257) - 0.5) / 127.5 - 1.0
    edges[0], edges[-1] = -np.inf, np.inf
    for mean, log_scale in ((0.1, -1.5), (-1.2, -4.0), (0.9, 1.0)):
        log_p = log_likelihood(
            image, torch.full_like(image, mean), torch.tensor([log_scale], dtype=torch.float64)
        ).flatten()
        logistic = stats.logistic(mean, np.exp(log_scale))
        # Above the mean from the other side, where the distribution is 1 less very little.
        below = np.diff(logistic.cdf(edges))
        above = -np.diff(logistic.sf(edges))
        expected = np.where(edges[:-1] < mean, below, above)
        seen = expected > 1e-12
        np.testing.assert_allclose(log_p.numpy()[seen], np.log(expected[seen]), rtol=1e-6, atol=1e-9)
        assert log_p.exp().sum().item() == pytest.approx(1.0)


def test_free_bits_are_of_the_whole_latent_of_an_image() -> None:
    """An image with a rate below them costs as much as they are, whichever dimension it is in."""
    settings = {"name": "vae", "width": 4, "latent": 4, "prior": "normal", "kl_annealing": 1, "ema": 0.0}
    images, found = pictures(8), {}
    for free_bits in (0.0, 0.5, 1000.0):
        model = batch.build(settings | {"free_bits": free_bits}, (3, 16, 16), "cpu")
        assert isinstance(model, VAE)
        model.start(images, np.random.default_rng(0))
        with torch.no_grad():
            noise_BZ = model.normal(np.random.default_rng(1), 8)
            _, rate_B = model.network.terms(to_minmax(images, CPU), noise_BZ)
        cost = np.maximum(rate_B.numpy(), 4 * free_bits).mean() / 768
        losses = model.learn(images, np.random.default_rng(1))
        assert losses["loss"] == pytest.approx(losses["distortion"] + cost, rel=1e-5)
        found[free_bits] = losses["loss"]
    assert found[0.0] < found[1000.0]


@pytest.mark.parametrize("Z", [2, 7])
def test_the_flow_is_undone_and_its_determinant_is_that_of_its_jacobian(Z: int) -> None:
    flow = Flow(Z, 4, "leaky_relu").double()
    rng = np.random.default_rng(0)
    for weight in flow.parameters():
        weight.data = torch.from_numpy(0.3 * rng.normal(size=tuple(weight.shape)))
    z_BZ = torch.from_numpy(rng.normal(size=(3, Z)))
    noise_BZ, log_det_B = flow(z_BZ)
    torch.testing.assert_close(flow.inverse(noise_BZ), z_BZ, rtol=1e-5, atol=1e-6)
    for b in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda z: flow(z[None])[0][0], z_BZ[b])
        assert log_det_B[b].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), rel=1e-4)


def test_the_sampled_rate_of_a_flow_that_does_nothing_is_the_normals_on_average() -> None:
    models = [
        batch.build({"name": "vae", "prior": prior, "width": 4, "latent": 4}, (3, 16, 16), "cpu")
        for prior in ("flow", "normal")
    ]
    image = to_minmax(np.repeat(pictures(1), 4000, 0), CPU)
    rates = []
    for model in models:
        assert isinstance(model, VAE)
        model.start(pictures(4), np.random.default_rng(0))
        with torch.no_grad():
            rates.append(model.network.terms(image, model.normal(np.random.default_rng(1), 4000))[1])
    assert rates[0].std() > 0
    assert rates[1].std() == pytest.approx(0.0, abs=1e-4)
    assert rates[0].mean().item() == pytest.approx(rates[1].mean().item(), abs=0.1)


def test_the_elbo_is_what_a_step_reports() -> None:
    model = batch.build({"name": "vae", "width": 4, "latent": 4, "kl_annealing": 1}, (3, 16, 16), "cpu")
    assert isinstance(model, VAE)
    images = pictures(256)
    model.start(images, np.random.default_rng(0))
    elbo_N = model.elbo(images)
    losses = model.learn(images, np.random.default_rng(1))
    assert elbo_N.shape == (256,)
    assert -elbo_N.mean() == pytest.approx(losses["loss"], rel=0.03)  # other noise
    assert losses["loss"] == pytest.approx(losses["distortion"] + losses["rate"], rel=1e-5)


def test_the_gradient_penalty_is_that_of_finite_differences() -> None:
    model = batch.build({"name": "gan", "width": 4, "gradient_penalty": 3.0}, (1, 16, 16), "cpu")
    assert isinstance(model, GAN)
    model.start(pictures(4, colours=1), np.random.default_rng(0))
    model.discriminator.double()
    real, drawn = (torch.from_numpy(np.random.default_rng(n).uniform(-1, 1, (2, 1, 16, 16))) for n in (1, 2))
    loss, penalty = model._discriminator_loss(real, drawn)
    squares, step = 0.0, 1e-5
    with torch.no_grad():
        for image in (*real, *drawn):
            for n in range(256):
                moved = torch.zeros(256, dtype=torch.float64)
                moved[n] = step
                up, down = (model.discriminator(image[None] + s * moved.view(1, 1, 16, 16)) for s in (1, -1))
                squares += ((up - down) / (2 * step)).item() ** 2
        logits = [model.discriminator(one) for one in (real, drawn)]
        pairing = torch.log1p(torch.exp(logits[1] - logits[0])).mean()
    # R1 and R2 are means over the two images each.
    assert penalty.item() == pytest.approx(3.0 / 2 * squares / 2, rel=1e-4)
    assert loss.item() == pytest.approx(pairing.item() + penalty.item(), rel=1e-5)


def test_each_network_moves_on_its_own_loss_alone() -> None:
    """With a discriminator that stands still, a step of the generator changes nothing of it."""
    model = batch.build({"name": "gan", "width": 4}, (3, 16, 16), "cpu")
    assert isinstance(model, GAN)
    model.start(pictures(8), np.random.default_rng(0))
    model.descents["discriminator"].settings = model.settings.model_copy(update={"learning_rate": 0.0})
    before = model.state()
    model.learn(pictures(8), np.random.default_rng(0))
    after = model.state()
    moved = {
        n.split(".")[1] for n in before if n.startswith("networks.") and not torch.equal(before[n], after[n])
    }
    assert moved == {"generator", "averaged"}


@pytest.mark.parametrize(
    ("kind", "centre", "spread"),
    [("standard", np.mean, np.std), ("robust", np.median, lambda x: np.abs(x - np.median(x)).mean())],
)
def test_units_are_those_of_the_images(kind: Normalisation, centre: object, spread: object) -> None:
    images = pictures(5, size=15) // np.array([1, 2, 4], np.uint8)
    units = Units(3)
    units.fit(kind, images)
    seen = units(to_minmax(images, CPU)).numpy()
    for c in range(3):
        flat = images[..., c].astype(float)
        expected = (flat - centre(flat)) / spread(flat)  # type: ignore[operator]
        np.testing.assert_allclose(seen[:, c], expected, atol=2e-4)


def test_whitened_colours_are_uncorrelated() -> None:
    images = pictures(20)
    images[..., 1] = images[..., 0] // 2 + images[..., 1] // 2
    units = Units(3)
    units.fit("whitening", images)
    seen = units(to_minmax(images, CPU)).permute(1, 0, 2, 3).reshape(3, -1).numpy()
    np.testing.assert_allclose(np.cov(seen), np.eye(3), atol=1e-3)


def test_none_and_minmax_are_known() -> None:
    black_white = to_minmax(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1), CPU)
    for kind, expected in (("none", [0.0, 255.0]), ("minmax", [-1.0, 1.0])):
        units = Units(1)
        units.fit(kind, pictures(2, colours=1))  # type: ignore[arg-type]
        np.testing.assert_allclose(units(black_white).flatten(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "widths"),
    [
        ("gan", {"generator": (100, 128, 256, 768), "discriminator": (768, 256, 128, 1)}),
        ("vae", {"encoder": (768, 128, 64, 64), "decoder": (32, 64, 128, 768)}),
    ],
)
def test_the_papers_networks_are_as_wide_as_documented(
    model: str, widths: dict[str, tuple[int, ...]]
) -> None:
    settings = {"name": model, "preset": "paper", **({"latent": 100} if model == "gan" else {})}
    built = batch.build(settings, (3, 16, 16), "cpu")
    parts = (
        dict(built.networks) if isinstance(built, GAN) else dict(built.networks["network"].named_children())
    )
    for name, expected in widths.items():
        layers = [one for one in parts[name].modules() if isinstance(one, torch.nn.Linear)]
        assert [layers[0].in_features, *(one.out_features for one in layers)] == list(expected)
        plains = [one for one in parts[name].modules() if isinstance(one, Plain)]
        x = torch.tensor([-1.0, 2.0])
        assert [one._act(x).tolist() for one in plains] == [pytest.approx([-0.2, 2.0])]
    assert not any(isinstance(one, torch.nn.Conv2d) for one in built.networks["averaged"].modules())


def test_the_papers_images_are_bounded_by_tanh() -> None:
    drawing = PlainPicture((4, 8), "leaky_relu", (1, 16, 16))
    noise_BZ = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.tanh(drawing.plain(noise_BZ)).view(3, 1, 16, 16)
    torch.testing.assert_close(drawing(noise_BZ), expected)
    for name, part in (("gan", "generator"), ("vae", "network.decoder")):
        model = batch.build({"name": name, "preset": "paper"}, (1, 16, 16), "cpu")
        assert isinstance(torch.nn.ModuleDict(model.networks).get_submodule(part), PlainPicture)


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("name", ["vae", "gan"])
def test_images_that_are_not_square_are_learned_and_drawn(name: str, preset: str) -> None:
    settings = {"name": name, "preset": preset, "width": 4, "latent": 4, "batch": 8}
    images_NHWC = pictures(8, 32)[:, :16]
    model = batch.build(settings, (3, 16, 32), "cpu")
    model.start(images_NHWC, np.random.default_rng(0))
    before = model.state()
    for step in range(2):
        assert np.isfinite(list(model.learn(images_NHWC, np.random.default_rng(step)).values())).all()
    assert model.skipped == 0
    assert any(not torch.equal(before[key], tensor) for key, tensor in model.state().items())
    assert model.draw(model.normal(np.random.default_rng(0), 3)).shape == (3, 3, 16, 32)


def test_pixels_come_back() -> None:
    images = pictures(3)
    np.testing.assert_array_equal(to_pixels(to_minmax(images, CPU)), images)
    assert to_pixels(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1]),
        ("warmup", [0.25, 0.5, 1, 1]),
        ("inverse_sqrt", [0.25, 0.5, 1, 0.5]),
        ("cosine", [0.25 * 0.9903926, 0.5 * 0.9619398, 0.8535534, 0]),
    ],
)
def test_the_schedules(schedule: str, rates: list[float]) -> None:
    settings = batch.settings(
        {"name": "gan", "schedule": schedule, "learning_rate": 1, "warm_up": 4, "steps": 16}
    )
    descent = Descent(torch.nn.Linear(1, 1), settings, (0.9, 0.99))
    assert [descent.rate(step) for step in (1, 2, 4, 16)] == pytest.approx(rates)


def test_a_layers_gain_is_its_weights_and_biases_start_at_nothing() -> None:
    one, none = torch.nn.Linear(400, 300), torch.nn.Linear(4, 4)
    none.gain = 0.0  # type: ignore[assignment]
    initialise(torch.nn.Sequential(one, none), np.random.default_rng(0))
    assert one.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.01)
    assert not one.bias.any()
    assert not none.weight.any()


def test_the_average_forgets_what_was_drawn_and_then_is_long() -> None:
    mean, newest = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    mean.weight.data[:], newest.weight.data[:] = 0.0, 1.0
    average(mean, newest, 0.99, 10)
    assert mean.weight.item() == pytest.approx(0.5)
    average(mean, newest, 0.99, 10**6)
    assert mean.weight.item() == pytest.approx(0.505)
