"""gan: a generative adversarial network for images, learned in batches.

The networks take turns, each with a step on its own loss. With x a real and G(z) a drawn image:

    relativistic   L_D = E softplus(D(G(z)) − D(x)) + γ/2 E|∇D(x)|² + γ/2 E|∇D(G(z))|²
                   L_G = E softplus(D(x) − D(G(z)))
    standard       L_D = E softplus(−D(x)) + E softplus(D(G(z)))
                   L_G = E softplus(−D(G(z)))

The first is R3GAN (Huang et al. 2024, arXiv 2501.05441): pairs of a real and a drawn image (Jolicoeur-
Martineau 2019) cannot be won by a few good images, and with the zero-centred gradient penalties on real and
on drawn images, R1 and R2 (Mescheder et al. 2018; Roth et al. 2017), its training converges locally. The
second is Goodfellow et al. 2014, not saturating, with the fully connected networks of `preset: paper`.

The gradients are by pixels in −1 … 1, whatever units the discriminator sees. Images come from averaged
weights of the generator.

Shapes: B images, C colours, H × W pixels, Z latent.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as tnf
from pydantic import Field
from torch import Tensor, nn

from streamgen.models.batch_model import BatchModel, Images
from streamgen.models.descent import BatchSettings, Descent, average
from streamgen.models.image_parts import Clip, Plain, PlainPicture, Shape, Tree, Trunk, initialise
from streamgen.models.pixels import Units, to_minmax


class Settings(BatchSettings):
    """Settings of `gan`."""

    PAPER: ClassVar[Mapping[str, Any]] = {
        "loss": "standard",
        "gradient_penalty": 0.0,
        "ema": 0.0,
        "schedule": "constant",
        "learning_rate": 2e-4,
    }

    name: Literal["gan"]
    batch: int = Field(32, ge=2, le=65536, description="Images of a step.")
    loss: Literal["relativistic", "standard"] = Field("relativistic", description="What is played for.")
    gradient_penalty: float = Field(
        0.5, ge=0, description="γ, weight of the penalties on the discriminator's gradients."
    )


class Discriminator(nn.Module):
    """How real images [B, C, H, W] look, as one number each [B]."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__()
        self.units = Units(shape[0])
        if settings.preset == "paper":
            pixels = shape[0] * shape[1] * shape[2]
            self.trunk: nn.Module = Plain((pixels, 256, 128, 1), settings.activation)
        else:
            self.trunk = Trunk(shape, settings.width, settings.depth, settings.activation, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logit_B1: Tensor = self.trunk(self.units(image_BCHW))
        return logit_B1[:, 0]


class Generator(Tree):
    """Images [B, C, H, W] from a latent [B, Z], within −1 … 1.

    A network without bounds draws fog where the images are evenly black, which the discriminator sees at
    once; and tanh, once all is black, has no gradient that leads out (benchmarks/results/images_quality.md).
    """

    def forward(self, latent_BZ: Tensor) -> Tensor:
        image_BCHW: Tensor = Clip.apply(super().forward(latent_BZ))
        return image_BCHW


def _generator(settings: Settings, shape: Shape) -> nn.Module:
    if settings.preset == "paper":
        return PlainPicture((settings.latent, 128, 256), settings.activation, shape)
    return Generator(shape, settings.width, settings.depth, settings.activation, settings.latent)


class GAN(BatchModel):
    """The batch model."""

    name = "gan"
    BETAS = (0.0, 0.99)  # no first moment: the other network has moved since

    def __init__(self, settings: Settings, shape: Shape, device: str) -> None:
        super().__init__(settings, shape, device)
        self.loss, self.penalty = settings.loss, settings.gradient_penalty
        self.discriminator = Discriminator(settings, shape).to(self.device)
        self.generator = _generator(settings, shape).to(self.device)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)
        betas = (0.5, 0.999) if settings.preset == "paper" else self.BETAS  # Radford et al. 2016
        self.networks = {
            "discriminator": self.discriminator, "generator": self.generator, "averaged": self.averaged,
        }  # fmt: skip
        self.descents = {
            name: Descent(self.networks[name], settings, betas) for name in ("discriminator", "generator")
        }

    def start(self, images_NHWC: Images, rng: np.random.Generator) -> None:
        """Both networks drawn anew; the average is the generator."""
        self.discriminator.units.fit(self.settings.normalisation, images_NHWC)
        initialise(self.discriminator, rng)
        initialise(self.generator, rng)
        self.averaged.load_state_dict(self.generator.state_dict())

    def learn(self, images_BHWC: Images, rng: np.random.Generator) -> dict[str, float]:
        """A step of the discriminator, and one of the generator."""
        real_BCHW = to_minmax(images_BHWC, self.device)
        rows = len(images_BHWC)
        noise_BZ, own_noise_BZ = self.normal(rng, rows), self.normal(rng, rows)

        def discriminator_loss(part: slice) -> tuple[Tensor, ...]:
            with torch.no_grad(), self.autocast():
                drawn_BCHW = self.generator(noise_BZ[part])
            return self._discriminator_loss(real_BCHW[part], drawn_BCHW.float())

        def generator_loss(part: slice) -> tuple[Tensor, ...]:
            with self.autocast():
                drawn_B = self.discriminator(self.generator(own_noise_BZ[part]))
                if self.loss == "standard":
                    return (tnf.softplus(-drawn_B).mean(),)
                with torch.no_grad():
                    real_B = self.discriminator(real_BCHW[part])
            return (tnf.softplus(real_B - drawn_B).mean(),)

        of_discriminator, *penalty = self.descend("discriminator", rows, discriminator_loss)
        self.discriminator.requires_grad_(False)  # its gradients would be computed and thrown away
        (of_generator,) = self.descend("generator", rows, generator_loss)
        self.discriminator.requires_grad_(True)
        if self.descents["generator"].moved:
            average(self.averaged, self.generator, self.settings.ema, self.descents["generator"].updates)
        return {
            "discriminator": of_discriminator,
            "generator": of_generator,
            **({"penalty": penalty[0]} if penalty else {}),
        }

    def draw(self, noise_BZ: Tensor) -> Tensor:
        """What the averaged generator makes of the noise."""
        with torch.no_grad(), self.autocast():
            image_BCHW: Tensor = self.averaged(noise_BZ)
        return image_BCHW.float()

    def _discriminator_loss(self, real_BCHW: Tensor, drawn_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The loss; and the penalty in it, where there is one."""
        rows = len(real_BCHW)
        # One pass for both: half the calls.
        both_BCHW = torch.cat([real_BCHW, drawn_BCHW]).requires_grad_(self.penalty > 0)
        # Second derivatives in half precision are noise.
        with torch.autocast(self.device.type, enabled=False) if self.penalty else self.autocast():
            logit_B = self.discriminator(both_BCHW)
        real_B, drawn_B = logit_B[:rows], logit_B[rows:]
        if self.loss == "relativistic":
            loss = tnf.softplus(drawn_B - real_B).mean()
        else:
            loss = tnf.softplus(-real_B).mean() + tnf.softplus(drawn_B).mean()
        if not self.penalty:
            return (loss,)
        (gradient_BCHW,) = torch.autograd.grad(logit_B.sum(), both_BCHW, create_graph=True)
        # R1 and R2 are means over B images each, and here are 2B.
        penalty = 0.5 * self.penalty * gradient_BCHW.square().sum() / rows
        return loss + penalty, penalty
