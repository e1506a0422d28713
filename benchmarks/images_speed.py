"""Images per second of a training step, beside a bare torch loop of the same network.

    python benchmarks/images_speed.py FILE.npz --array train --seconds 60

The bare loop has the same modules, loss, batch and optimiser, and nothing else: no averaged weights, no
clipping, no check for what is not finite, noise from torch. The two take turns, step by step, so that
whatever else runs on the machine slows both; each is timed by its median step, in wall and in CPU time.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import machine
import numpy as np
import torch
import torch.nn.functional as tnf

from streamgen.images.drawing import TOPIC
from streamgen.images.source import Images, Look, read_images
from streamgen.models.batch import build, names, settings
from streamgen.models.batch_model import BatchModel
from streamgen.models.gan import GAN
from streamgen.models.noise import generator
from streamgen.models.vae import VAE
from streamgen.records import Floats

Step = Callable[[Images], None]
WARM_UP = 3


def bare_gan(model: GAN) -> Step:
    """R3GAN's two steps as one would write them in a notebook."""
    generator_, discriminator = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    of_generator, of_discriminator = (
        torch.optim.Adam(network.parameters(), 5e-4, (0.0, 0.99), fused=True)
        for network in (generator_, discriminator)
    )

    def step(images: Images) -> None:
        real = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        rows = len(real)
        with torch.no_grad():
            drawn = generator_(torch.randn(rows, model.settings.latent))
        both = torch.cat([real, drawn]).requires_grad_()
        logits = discriminator(both)
        (gradient,) = torch.autograd.grad(logits.sum(), both, create_graph=True)
        penalty = 0.5 * model.penalty * gradient.square().sum() / rows
        of_discriminator.zero_grad()
        (tnf.softplus(logits[rows:] - logits[:rows]).mean() + penalty).backward()
        of_discriminator.step()
        discriminator.requires_grad_(False)
        drawn_logits = discriminator(generator_(torch.randn(rows, model.settings.latent)))
        with torch.no_grad():
            real_logits = discriminator(real)
        of_generator.zero_grad()
        tnf.softplus(real_logits - drawn_logits).mean().backward()
        of_generator.step()
        discriminator.requires_grad_(True)

    return step


def bare_vae(model: VAE) -> Step:
    """The bound, and one step down."""
    network = copy.deepcopy(model.network)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3, (0.9, 0.99), fused=True)

    def step(images: Images) -> None:
        real = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        distortion, rate = network.terms(real, torch.randn(len(real), model.settings.latent))
        optimiser.zero_grad()
        ((distortion + rate).mean() / real[0].numel()).backward()
        optimiser.step()

    return step


def measure(name: str, images: Images, seconds: float, seed: int) -> tuple[int, Floats]:
    """Steps that were made of each, and the median seconds of a step [ours, bare; wall, CPU]."""
    count, height, width, colours = images.shape
    model: BatchModel = build({"name": name}, (colours, height, width), "cpu")
    model.start(images, generator(seed, TOPIC, None, name, 0))
    bare = bare_gan(model) if isinstance(model, GAN) else bare_vae(model)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    times, end, number = [], perf_counter() + seconds, 0
    while number < WARM_UP + 2 or perf_counter() < end:
        number += 1
        batch = images[rng.integers(0, count, model.settings.batch)]
        ours = timed(partial(model.learn, batch, generator(seed, TOPIC, None, name, number)))
        theirs = timed(partial(bare, batch))
        if number > WARM_UP:
            times.append((ours, theirs))
    return len(times), np.median(np.array(times), axis=0)


def timed(step: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = perf_counter(), process_time()
    step()
    return perf_counter() - wall, process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--array")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    images = read_images(chosen.images, Look(), chosen.array).images_NHWC
    print(
        f"{machine.processor()}, {torch.get_num_threads()} threads, load {machine.load():.1f} before the run"
    )
    print("| model | seed | steps | images/s | bare loop | ratio | ratio in CPU time |")
    print("|---|---|---|---|---|---|---|")
    for name in names():
        for seed in range(chosen.seeds):
            steps, ((wall, cpu), (bare_wall, bare_cpu)) = measure(name, images, chosen.seconds, seed)
            batch = settings({"name": name}).batch
            print(
                f"| {name} | {seed} | {steps} | {batch / wall:.0f} | {batch / bare_wall:.0f} "
                f"| {bare_wall / wall:.3f} | {bare_cpu / cpu:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
