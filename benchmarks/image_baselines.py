"""What the image models are compared with: a plain VAE and DCGAN.

Written as their papers and PyTorch's examples have them, not as well as we know how.

plain vae   D–500–500–20–500–500–D, ReLU, the latent normal; Bernoulli likelihood of each value in 0 … 1; Adam
            at 1e-3, batches of 128; the mean of a draw is shown. Kingma & Welling 2013 had one hidden layer.
dcgan       Radford et al. 2016 for 32 × 32: 256, 128 and 64 maps, batch normalisation, weights N(0, 0.02), no
            linear layer; the loss that does not saturate; Adam at 2e-4 with betas 0.5 and 0.999, batches of
            128. It draws with the statistics of the batch that is drawn, as when it learns. Images of 28 × 28
            are black 2 pixels around.

B images, C colours, H × W pixels, D values of an image, Z latent.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as tnf
from torch import nn

from streamgen.images.source import Images
from streamgen.models.pixels import to_minmax, to_pixels

CPU = torch.device("cpu")
Shape = tuple[int, int, int]  # C, H, W


class PlainVAE:
    """Encoder and decoder."""

    batch, Z = 128, 20

    def __init__(self, shape: Shape) -> None:
        D = math.prod(shape)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(D, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(),
            nn.Linear(500, 2 * self.Z),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(self.Z, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, D),
            nn.Unflatten(1, shape),
        )  # fmt: skip
        self.optimiser = torch.optim.Adam([*self.encoder.parameters(), *self.decoder.parameters()], 1e-3)

    def learn(self, images_BHWC: Images) -> None:
        """A step on the bound, in nats an image."""
        image_BCHW = (to_minmax(images_BHWC, CPU) + 1.0) / 2.0
        mean_BZ, log_variance_BZ = self.encoder(image_BCHW).chunk(2, 1)
        z_BZ = mean_BZ + (0.5 * log_variance_BZ).exp() * torch.randn_like(mean_BZ)
        rows = len(images_BHWC)
        distortion = tnf.binary_cross_entropy_with_logits(self.decoder(z_BZ), image_BCHW, reduction="sum")
        rate = 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1.0 - log_variance_BZ).sum()
        self.optimiser.zero_grad()
        ((distortion + rate) / rows).backward()
        self.optimiser.step()

    def draw(self, count: int) -> Images:
        """The means of draws from the prior."""
        with torch.no_grad():
            return to_pixels(2.0 * torch.sigmoid(self.decoder(torch.randn(count, self.Z))) - 1.0)


class DCGAN:
    """Generator and discriminator."""

    batch, Z = 128, 100

    def __init__(self, shape: Shape) -> None:
        C, H, _ = shape
        self.edge = (32 - H) // 2
        self.generator = nn.Sequential(
            nn.ConvTranspose2d(self.Z, 256, 4, 1, 0, bias=False), nn.BatchNorm2d(256), nn.ReLU(),
            nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, C, 4, 2, 1, bias=False), nn.Tanh(),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Conv2d(C, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
            nn.Conv2d(128, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.LeakyReLU(0.2),
            nn.Conv2d(256, 1, 4, 1, 0, bias=False), nn.Flatten(0),
        )  # fmt: skip
        for layer in (*self.generator, *self.discriminator):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)
        self.of_generator, self.of_discriminator = (
            torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )

    def learn(self, images_BHWC: Images) -> None:
        """A step of the discriminator, and one of the generator on the same draws."""
        real_BCHW = tnf.pad(to_minmax(images_BHWC, CPU), (self.edge,) * 4, value=-1.0)
        drawn_BCHW = self.generator(torch.randn(len(real_BCHW), self.Z, 1, 1))
        self.of_discriminator.zero_grad()
        real_B, drawn_B = self.discriminator(real_BCHW), self.discriminator(drawn_BCHW.detach())
        (tnf.softplus(-real_B).mean() + tnf.softplus(drawn_B).mean()).backward()  # type: ignore[no-untyped-call]
        self.of_discriminator.step()
        self.of_generator.zero_grad()
        tnf.softplus(-self.discriminator(drawn_BCHW)).mean().backward()  # type: ignore[no-untyped-call]
        self.of_generator.step()

    def draw(self, count: int) -> Images:
        """Images, in batches as large as those that it learned from."""
        found = []
        with torch.no_grad():
            for _ in range(math.ceil(count / self.batch)):
                drawn_BCHW = self.generator(torch.randn(self.batch, self.Z, 1, 1))
                inside = slice(self.edge, 32 - self.edge)
                found.append(to_pixels(drawn_BCHW[:, :, inside, inside]))
        return np.concatenate(found)[:count]
