"""Images from a trained model: drawn by number, and on the way from one to another.

N images of H × W pixels, C colours, B of a call; Z latent.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from streamgen.images.checkpoint import Manifest, existing
from streamgen.images.source import Images
from streamgen.models.batch import build
from streamgen.models.batch_model import BatchModel
from streamgen.models.device import find_device
from streamgen.models.noise import generator
from streamgen.models.pixels import to_pixels
from streamgen.state.folder import Folder

Noise = NDArray[np.float32]

TOPIC = "images"  # names the noise, where a stream has its topic
AT_ONCE = 64  # images of a call, always as many: their bits do not depend on how many are wanted


def trained(folder: Folder, device: str) -> tuple[BatchModel, Manifest]:
    """The model of the newest checkpoint in `folder`. Raises `InputError` when there is none."""
    manifest, state = existing(folder)
    model = build(manifest.model, manifest.shape, find_device(device))
    model.load(state)
    return model, manifest


def noise(model: BatchModel, seed: int, first: int, count: int) -> Noise:
    """[count, Z] of the images `first` …: each has noise of its own, whatever else is asked for."""
    return np.stack(
        [
            generator(seed, TOPIC, "sample", model.name, number).standard_normal(
                model.settings.latent, dtype=np.float32
            )
            for number in range(first, first + count)
        ]
    )


def draw(model: BatchModel, seed: int, count: int) -> Images:
    """[N, H, W, C] images. The same seed and state give the same bytes, however many are drawn."""
    return from_noise(model, noise(model, seed, 0, count))


def from_noise(model: BatchModel, noise_NZ: Noise) -> Images:
    """The images [N, H, W, C] of noise."""
    found = []
    for start in range(0, len(noise_NZ), AT_ONCE):
        part_BZ = noise_NZ[start : start + AT_ONCE]
        filled_BZ = np.concatenate(
            [part_BZ, np.zeros((AT_ONCE - len(part_BZ), part_BZ.shape[1]), np.float32)]
        )
        found.append(to_pixels(model.draw(torch.from_numpy(filled_BZ).to(model.device)))[: len(part_BZ)])
    return np.concatenate(found)


def between(model: BatchModel, seed: int, rows: int, across: int) -> Images:
    """[rows · across, H, W, C]: each row leads from one image to another.

    Along the great circle between their noises (White 2016, arXiv 1609.04468): the straight line passes
    where noise of many dimensions hardly ever lies.
    """
    ends_NZ = noise(model, seed, 0, 2 * rows).astype(np.float64)
    line_NZ = []
    for row in range(rows):
        one_Z, other_Z = ends_NZ[2 * row], ends_NZ[2 * row + 1]
        cosine = one_Z @ other_Z / np.linalg.norm(one_Z) / np.linalg.norm(other_Z)
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        for share in np.linspace(0.0, 1.0, across):
            weights = np.sin([(1.0 - share) * angle, share * angle]) / np.sin(angle)
            line_NZ.append(weights[0] * one_Z + weights[1] * other_Z)
    return from_noise(model, np.array(line_NZ, np.float32))
