"""vae: a variational autoencoder for images, learned in batches.

    q(z | x) = N(m, diag s²),   m, log s² = encoder(x)                 Kingma & Welling 2013
    p(x | z) = Π logistic(x; μ, e^ρ) over a grey level, μ = decoder(z)   discretised: Salimans et al. 2017
    p(z) = N(f(z); 0, 1) |det ∂f/∂z|                                   f: affine couplings, Dinh et al. 2017
    loss = −E log p(x | z) + β KL(q ‖ p)                               per pixel and colour

The scale e^ρ is learned, one number a colour. With a fixed one (the plain squared error has it at 1) the
balance of the two terms is arbitrary; the best one is a maximum of the same bound (σ-VAE: Rybkin et al. 2021,
arXiv 2006.13202). The bound is of whole grey levels, so it is in nats that compare between models.

With a good scale the latent keeps much, and what the encoder makes of the data is far from a normal: draws
from a normal would then lie where the decoder has learned nothing. So the prior is learned too (`prior:
flow`; Chen et al. 2017). `prior: normal` has KL in closed form.

An image is drawn as the mean μ, without the logistic's noise. `preset: paper`: fully connected, normal prior.

Shapes: B images, C colours, H × W pixels, Z latent.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as tnf
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from streamgen.models.batch_model import BatchModel, Images
from streamgen.models.descent import BatchSettings, Descent, average
from streamgen.models.image_parts import Activation, Plain, PlainPicture, Shape, Tree, Trunk, initialise
from streamgen.models.noise import generator
from streamgen.models.pixels import Units, to_minmax

_LARGEST_LOG = 8.0  # of a variance of q
_AT_ONCE = 256  # images whose noise is drawn at once


class Settings(BatchSettings):
    """Settings of `vae`."""

    PAPER: ClassVar[Mapping[str, Any]] = {
        "prior": "normal", "ema": 0.0, "schedule": "constant", "learning_rate": 1e-3, "latent": 32,
    }  # fmt: skip

    name: Literal["vae"]
    learning_rate: float = Field(3e-3, gt=0, le=10, description="The optimiser's step size.")
    prior: Literal["flow", "normal"] = Field("flow", description="What the latent is drawn from.")
    couplings: int = Field(6, ge=1, le=64, description="Affine couplings of the flow.")
    kl_weight: float = Field(1.0, ge=0, description="β, weight of the KL term after annealing.")
    kl_annealing: int = Field(500, ge=1, description="Steps over which that weight grows from 0.")
    free_bits: float = Field(
        0.0,
        ge=0,
        description="Nats, times the latent's dimensions, below which an image's rate costs nothing.",
    )

    def idle(self) -> dict[str, str]:
        """See `BatchSettings`."""
        found = super().idle()
        if self.prior == "normal":
            found["couplings"] = "prior: normal"
        if self.kl_weight == 0:
            found |= dict.fromkeys(("kl_annealing", "free_bits"), "kl_weight: 0")
        return found


class Flow(nn.Module):
    """Affine couplings between a latent and standard normal noise, each of a half given the other."""

    def __init__(self, Z: int, couplings: int, activation: Activation) -> None:
        super().__init__()
        self.kept = Z - Z // 2
        self.nets = nn.ModuleList(
            Plain((self.kept, 2 * Z, 2 * (Z // 2)), activation) for _ in range(couplings)
        )
        for net in self.nets:
            net.layers[-1].gain = 0.0  # type: ignore[union-attr, index]  # the flow starts as the identity

    def forward(self, z_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Noise, and log |det| [B]."""
        log_det_B = z_BZ.new_zeros(len(z_BZ))
        for net in self.nets:
            log_scale, shift = self._coupling(net, z_BZ)
            moved = (z_BZ[:, self.kept :] + shift) * log_scale.exp()
            z_BZ = torch.cat([z_BZ[:, : self.kept], moved], 1).flip(1)
            log_det_B = log_det_B + log_scale.sum(1)
        return z_BZ, log_det_B

    def inverse(self, noise_BZ: Tensor) -> Tensor:
        """The latent of the noise."""
        for net in reversed(self.nets):
            noise_BZ = noise_BZ.flip(1)
            log_scale, shift = self._coupling(net, noise_BZ)
            moved = noise_BZ[:, self.kept :] * (-log_scale).exp() - shift
            noise_BZ = torch.cat([noise_BZ[:, : self.kept], moved], 1)
        return noise_BZ

    def _coupling(self, net: nn.Module, z_BZ: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = net(z_BZ[:, : self.kept]).float().chunk(2, 1)
        return 2.0 * torch.tanh(raw / 2.0), shift


class Network(nn.Module):
    """Encoder, decoder, scale and prior."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        super().__init__()
        C, H, W = shape
        Z, activation = settings.latent, settings.activation
        self.units = Units(C)
        if settings.preset == "paper":
            self.encoder: nn.Module = Plain((C * H * W, 128, 64, 2 * Z), activation)
            self.decoder: nn.Module = PlainPicture((Z, 64, 128), activation, shape)
        else:
            self.encoder = Trunk(shape, settings.width, settings.depth, activation, 2 * Z)
            self.decoder = Tree(shape, settings.width, settings.depth, activation, Z)
        self.flow = Flow(Z, settings.couplings, activation) if settings.prior == "flow" else None
        self.log_scale_C = nn.Parameter(torch.full((C,), math.log(0.25)))

    def terms(self, image_BCHW: Tensor, noise_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Distortion −log p(x | z) and rate, both [B] in nats; the rate is a sample's where a flow is."""
        mean_BZ, raw_BZ = self.encoder(self.units(image_BCHW)).float().chunk(2, 1)
        log_variance_BZ = _LARGEST_LOG * torch.tanh(raw_BZ / _LARGEST_LOG)
        z_BZ = mean_BZ + (0.5 * log_variance_BZ).exp() * noise_BZ
        if self.flow is None:
            rate_B = 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1.0 - log_variance_BZ).sum(1)
        else:
            prior_BZ, log_det_B = self.flow(z_BZ)
            rate_B = 0.5 * (prior_BZ.square() - noise_BZ.square() - log_variance_BZ).sum(1) - log_det_B
        log_p_BCHW = log_likelihood(image_BCHW, self.decoder(z_BZ).float(), self.log_scale_C)
        return -log_p_BCHW.sum((1, 2, 3)), rate_B


def log_likelihood(image_BCHW: Tensor, mean_BCHW: Tensor, log_scale_C: Tensor) -> Tensor:
    """log P of each grey level under a logistic that is cut into 256 bins, the outer two open.

    log(σ(a) − σ(b)) = log(1 − e^(b−a)) − softplus(−a) − softplus(b), which has no difference of near numbers.
    """
    half = 1.0 / 255.0  # of a grey level, in −1 … 1
    inverse_C11 = torch.exp(-log_scale_C)[:, None, None]
    away_BCHW = (image_BCHW - mean_BCHW) * inverse_C11
    upper_BCHW = -tnf.softplus(-(away_BCHW + half * inverse_C11))
    lower_BCHW = -tnf.softplus(away_BCHW - half * inverse_C11)
    width_C11 = torch.log(-torch.expm1(-2.0 * half * inverse_C11))
    black_BCHW, white_BCHW = image_BCHW < -1.0 + half, image_BCHW > 1.0 - half
    inside_BCHW = upper_BCHW + lower_BCHW + width_C11
    return torch.where(black_BCHW, upper_BCHW, torch.where(white_BCHW, lower_BCHW, inside_BCHW))


class VAE(BatchModel):
    """The batch model."""

    name = "vae"
    BETAS = (0.9, 0.99)

    def __init__(self, settings: Settings, shape: Shape, device: str) -> None:
        super().__init__(settings, shape, device)
        self.chosen = settings
        self.network = Network(settings, shape).to(self.device)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.networks = {"network": self.network, "averaged": self.averaged}
        self.descents = {"network": Descent(self.network, settings, self.BETAS)}

    def start(self, images_NHWC: Images, rng: np.random.Generator) -> None:
        """The network drawn anew; the average is the same."""
        self.network.units.fit(self.settings.normalisation, images_NHWC)
        initialise(self.network, rng)
        self.averaged.load_state_dict(self.network.state_dict())

    def learn(self, images_BHWC: Images, rng: np.random.Generator) -> dict[str, float]:
        """A step on the evidence lower bound."""
        image_BCHW = to_minmax(images_BHWC, self.device)
        noise_BZ = self.normal(rng, len(images_BHWC))
        descent, pixels = self.descents["network"], math.prod(self.shape)
        weight = self.chosen.kl_weight * min(1.0, (descent.updates + 1) / self.chosen.kl_annealing)
        free = self.chosen.free_bits * self.chosen.latent

        def loss(part: slice) -> tuple[Tensor, ...]:
            with self.autocast():
                distortion_B, rate_B = self.network.terms(image_BCHW[part], noise_BZ[part])
            # A rate that is sampled may be below nothing, and is only kept so where nothing is free.
            cost_B = distortion_B + weight * (rate_B.clamp(min=free) if free else rate_B)
            return cost_B.mean() / pixels, distortion_B.mean() / pixels, rate_B.mean() / pixels

        total, distortion, rate = self.descend("network", len(images_BHWC), loss)
        if descent.moved:
            average(self.averaged, self.network, self.settings.ema, descent.updates)
        return {"loss": total, "distortion": distortion, "rate": rate}

    def draw(self, noise_BZ: Tensor) -> Tensor:
        """The decoder's mean at the prior's latent of the noise."""
        flow = self.averaged.flow
        with torch.no_grad(), self.autocast():
            latent_BZ = noise_BZ if flow is None else flow.inverse(noise_BZ)
            image_BCHW: Tensor = self.averaged.decoder(latent_BZ)
        return image_BCHW.float()

    def elbo(self, images_NHWC: Images) -> NDArray[np.float64]:
        """[N] evidence lower bound of each image by the averaged weights, nats per pixel and colour."""
        found = []
        for start in range(0, len(images_NHWC), _AT_ONCE):
            image_BCHW = to_minmax(images_NHWC[start : start + _AT_ONCE], self.device)
            noise_BZ = self.normal(generator(0, "elbo", None, self.name, start), len(image_BCHW))
            for part in self._parts(len(image_BCHW)):  # what was learned fits, and no more may
                with torch.no_grad():
                    distortion_B, rate_B = self.averaged.terms(image_BCHW[part], noise_BZ[part])
                found.append(-(distortion_B + rate_B).double().cpu().numpy() / math.prod(self.shape))
        return np.concatenate(found)
