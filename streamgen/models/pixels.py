"""In which units a network sees pixels: the setting `normalisation` of the image models.

    none        0 … 255 as they are
    minmax      black is −1, white 1
    standard    (x − mean) / standard deviation, of each colour
    robust      (x − median) / mean absolute deviation, of each colour
    whitening   standard, and then the colours uncorrelated

All are one affine map of a pixel's colours, y = (x − shift) M, from statistics of the training images
that are kept with the model. What a model draws is always in minmax, of which white and black are known.

N images of H × W pixels, B of a batch, C colours.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Normalisation = Literal["none", "minmax", "standard", "robust", "whitening"]
_CPU = torch.device("cpu")
_LEAST = 1.0  # grey levels: images of one colour have no spread to divide by


class Units(nn.Module):
    """The map, from images in minmax to the units of a network. Its numbers are buffers, not weights."""

    shift_C: Tensor
    map_CC: Tensor

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.register_buffer("shift_C", torch.zeros(colours))
        self.register_buffer("map_CC", torch.eye(colours))

    def fit(self, kind: Normalisation, images_NHWC: NDArray[np.uint8]) -> None:
        """Take the statistics of the training images."""
        colours = images_NHWC.shape[3]
        # Exact from the 256 counts of each colour: no float copy of the data is made.
        counts_CL = np.stack(
            [np.bincount(images_NHWC[..., c].ravel(), minlength=256) for c in range(colours)]
        )
        level_L, total = np.arange(256.0), counts_CL[0].sum()
        centre_C = counts_CL @ level_L / total
        map_CC = np.eye(colours)
        if kind == "none":
            centre_C = np.zeros(colours)
        elif kind == "minmax":
            centre_C, map_CC = np.full(colours, 127.5), np.eye(colours) / 127.5
        elif kind == "robust":
            centre_C = (counts_CL.cumsum(1) * 2 >= total).argmax(1).astype(np.float64)
            spread_C = (counts_CL * np.abs(level_L - centre_C[:, None])).sum(1) / total
            map_CC = np.diag(1.0 / np.maximum(spread_C, _LEAST))
        elif kind == "standard":
            spread_C = np.sqrt((counts_CL * (level_L - centre_C[:, None]) ** 2).sum(1) / total)
            map_CC = np.diag(1.0 / np.maximum(spread_C, _LEAST))
        else:
            moment_CC = np.zeros((colours, colours))
            for image_HWC in images_NHWC:
                flat_PC = image_HWC.reshape(-1, colours) - centre_C
                moment_CC += flat_PC.T @ flat_PC
            variance_C, axes_CC = np.linalg.eigh(moment_CC / total)
            map_CC = axes_CC / np.sqrt(np.maximum(variance_C, _LEAST**2)) @ axes_CC.T
        # Grey level of an image in minmax: 127.5 (1 + y).
        self.shift_C.copy_(torch.from_numpy(centre_C / 127.5 - 1.0))
        self.map_CC.copy_(torch.from_numpy(map_CC * 127.5))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", image_BCHW - self.shift_C[:, None, None], self.map_CC)


def to_minmax(images_BHWC: NDArray[np.uint8], device: torch.device = _CPU) -> Tensor:
    """Pixels to [B, C, H, W] in −1 … 1."""
    image_BCHW = torch.from_numpy(np.ascontiguousarray(images_BHWC)).to(device).permute(0, 3, 1, 2)
    return image_BCHW.float() / 127.5 - 1.0


def to_pixels(image_BCHW: Tensor) -> NDArray[np.uint8]:
    """Undo `to_minmax`; what is brighter than white is white."""
    levels_BCHW = ((image_BCHW.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels_BCHW.permute(0, 2, 3, 1).cpu().numpy())
