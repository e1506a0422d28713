"""What the networks of image models are made of: a trunk that reads an image, and a tree that draws one.

Convolutional, the default, without any normalisation layer: residual blocks that start as the identity, each
map half the size and up to four times the width of the first (the backbone of R3GAN, Huang et al. 2024,
arXiv 2501.05441, with plain convolutions; Fixup, Zhang et al. 2019). The finest map has half the image's
sides: most of the cost is there, and on a CPU that buys several times the images per second. The tree repeats
each pixel of that map before it convolves for the last time: were each to draw 2 × 2 pixels of the image by
itself, a checkerboard would show (Odena et al. 2016, "Deconvolution and checkerboard artifacts").

`plain`: fully connected layers, as the survey's.

Shapes: B images, C colours, H × W pixels, K channels, Z latent, F features, P of the next, larger map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as tnf
from torch import Tensor, nn

Activation = Literal["leaky_relu", "relu", "silu", "tanh"]
Shape = tuple[int, int, int]  # C, H, W

SMALLEST_MAP = 4  # halving ends when the larger side is below twice that
WIDEST = 4  # times the first map's channels
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": lambda x: tnf.leaky_relu(x, 0.2),
    "relu": torch.relu,
    "silu": tnf.silu,
    "tanh": torch.tanh,
}


class Trunk(nn.Module):
    """An image [B, C, H, W] to features [B, F]."""

    def __init__(self, shape: Shape, width: int, depth: int, activation: Activation, features: int) -> None:
        super().__init__()
        sizes, channels = maps(shape, width)
        self.stem = nn.Conv2d(shape[0], channels[0], 4, stride=2, padding=1)
        self.levels = nn.ModuleList(_level(K, depth, activation) for K in channels)
        self.wider = nn.ModuleList(nn.Conv2d(K, L, 1) for K, L in pairwise(channels))
        self.head = nn.Linear(channels[-1] * math.prod(sizes[-1]), features)
        self._act = _ACTIVATIONS[activation]

    def forward(self, image_BCHW: Tensor) -> Tensor:
        H, W = image_BCHW.shape[2:]
        # An odd side gets a line more, so that halving rounds up.
        x_BKHW = self.stem(tnf.pad(image_BCHW, (0, W % 2, 0, H % 2)))
        for number, level in enumerate(self.levels):
            if number:
                x_BKHW = self.wider[number - 1](tnf.avg_pool2d(x_BKHW, 2, ceil_mode=True))
            x_BKHW = level(x_BKHW)
        features_BF: Tensor = self.head(self._act(x_BKHW).flatten(1))
        return features_BF


class Tree(nn.Module):
    """A latent [B, Z] to an image [B, C, H, W], the trunk's way back. Not bounded: black is −1, white 1."""

    def __init__(self, shape: Shape, width: int, depth: int, activation: Activation, latent: int) -> None:
        super().__init__()
        sizes, channels = maps(shape, width)
        channels.reverse()
        self.sizes = [*reversed(sizes), shape[1:]]
        self.root = nn.Linear(latent, channels[0] * math.prod(self.sizes[0]))
        self.levels = nn.ModuleList(_level(K, depth, activation) for K in channels)
        self.narrower = nn.ModuleList(nn.Conv2d(K, L, 1) for K, L in pairwise(channels))
        self.last = nn.Conv2d(channels[-1], shape[0], 3, padding=1)
        self._act = _ACTIVATIONS[activation]

    def forward(self, latent_BZ: Tensor) -> Tensor:
        x_BKHW = self.root(latent_BZ).unflatten(1, (-1, *self.sizes[0]))
        for number, level in enumerate(self.levels):
            if number:
                narrow_BKHW = self.narrower[number - 1](x_BKHW)
                x_BKHW = tnf.interpolate(
                    narrow_BKHW, self.sizes[number], mode="bilinear", align_corners=False
                )
            x_BKHW = level(x_BKHW)
        larger_BKHW = tnf.interpolate(self._act(x_BKHW), self.sizes[-1], mode="nearest")
        image_BCHW: Tensor = self.last(larger_BKHW)
        return image_BCHW


class Clip(torch.autograd.Function):
    """x, clipped to −1 … 1. Of the gradients of what was clipped, those that lead back inside go through: a
    pixel rests at black without any effort, and leaves it as soon as it should."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        outwards = ((x < -1.0) & (gradient > 0.0)) | ((x > 1.0) & (gradient < 0.0))
        return gradient.masked_fill(outwards, 0.0)


class Residual(nn.Module):
    """x + conv(act(conv(act(x)))); the last convolution starts at nothing."""

    def __init__(self, K: int, activation: Activation) -> None:
        super().__init__()
        self.first = nn.Conv2d(K, K, 3, padding=1)
        self.second = nn.Conv2d(K, K, 3, padding=1)
        self.second.gain = 0.0  # type: ignore[assignment]
        self._act = _ACTIVATIONS[activation]

    def forward(self, x_BKHW: Tensor) -> Tensor:
        branch_BKHW: Tensor = self.second(self._act(self.first(self._act(x_BKHW))))
        return x_BKHW + branch_BKHW


class Plain(nn.Module):
    """Fully connected layers, whatever the shape of what they read: [B, ...] to [B, F]."""

    def __init__(self, widths: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(one, next_one) for one, next_one in pairwise(widths))
        self._act = _ACTIVATIONS[activation]

    def forward(self, x_BF: Tensor) -> Tensor:
        x_BF = self.layers[0](x_BF.flatten(1))
        for layer in self.layers[1:]:
            x_BF = layer(self._act(x_BF))
        return x_BF


class PlainPicture(nn.Module):
    """Fully connected layers that draw an image [B, C, H, W], bounded by tanh."""

    def __init__(self, widths: Sequence[int], activation: Activation, shape: Shape) -> None:
        super().__init__()
        self.plain = Plain((*widths, math.prod(shape)), activation)
        self.shape = shape

    def forward(self, latent_BZ: Tensor) -> Tensor:
        flat_BF: Tensor = torch.tanh(self.plain(latent_BZ))
        return flat_BF.view(-1, *self.shape)


def maps(shape: Shape, width: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Sizes and channels of the maps, from the finest, which has half the image's sides."""
    sizes, channels = [((shape[1] + 1) // 2, (shape[2] + 1) // 2)], [width]
    while max(sizes[-1]) >= 2 * SMALLEST_MAP:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        channels.append(min(2 * channels[-1], WIDEST * width))
    return sizes, channels


def initialise(network: nn.Module, rng: np.random.Generator) -> None:
    """Weights drawn so that a layer keeps its input's size (He et al. 2015), times the layer's `gain`; biases
    nothing. From `rng`, and not from torch, whose draws differ between versions and devices."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            drawn = rng.standard_normal(tuple(layer.weight.shape), dtype=np.float32)
            scale = float(getattr(layer, "gain", 1.0)) * math.sqrt(2.0 / fan_in)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(drawn) * scale)
                if layer.bias is not None:
                    layer.bias.zero_()


def _level(K: int, depth: int, activation: Activation) -> nn.Module:
    return nn.Sequential(*(Residual(K, activation) for _ in range(depth)))
