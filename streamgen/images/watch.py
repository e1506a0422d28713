"""Does a training still go well? Diverged and collapsed models are told by the images that they draw.

Images are compared in the means of 4 × 4 fields of each colour: coarse, but a few milliseconds, and what has
failed has failed in that too. In units of the real images' whole variance in them,

    spread      variance of the drawn images      1 where they are as different as real ones
    distance    Fréchet distance from real ones   0 is best; the mean real image, always drawn, has 1

A training has collapsed when the spread, which was above a half at a distance below 1, is below a tenth; and
diverged when the distance, which was below a quarter, is above 1, when an image is not finite, or when every
update of one of its networks since the last look was skipped. A model that never did well has not failed: its
first images are noise, of any spread, or all alike.

N images of H × W pixels, C colours; E features.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as tnf
from torch import Tensor

from streamgen.evaluation.context import frechet_distance
from streamgen.images.source import Images
from streamgen.models.batch_model import BatchModel
from streamgen.models.noise import generator
from streamgen.models.pixels import to_minmax
from streamgen.records import Floats

FIELDS = 4  # across, and down
LOOKED_AT = 256
_GOOD_SPREAD, _COLLAPSED = 0.5, 0.1
_GOOD_DISTANCE, _GREY = 0.25, 1.0


class Watch:
    """Looks at a model now and then, and remembers how well it did."""

    def __init__(self, images_NHWC: Images) -> None:
        chosen_N = np.linspace(0, len(images_NHWC) - 1, min(len(images_NHWC), 4 * LOOKED_AT)).astype(int)
        self._real_NE = _features(to_minmax(images_NHWC[chosen_N], torch.device("cpu")))
        self._variance = max(float(self._real_NE.var(axis=0).sum()), 1e-6)
        self.spread, self.distance = 0.0, float("inf")  # the best so far; the spread of what was near
        self._counted: dict[str, tuple[int, int]] = {}  # updates and skipped ones of each network

    def look(self, model: BatchModel) -> str | None:
        """What is wrong, if something is."""
        before, self._counted = self._counted, _counts(model)
        for name, (updates, skipped) in self._counted.items():
            updates_before, skipped_before = before.get(name, (0, 0))
            if skipped > skipped_before and updates == updates_before:
                return f"diverged: every update of its {name} was skipped, since its loss was not finite"
        noise_BZ = model.normal(generator(0, "watch", None, model.name, 0), LOOKED_AT)
        # As many at once as it learns from: those fit in memory, and more may not.
        drawn_BCHW = torch.cat([model.draw(part_BZ).cpu() for part_BZ in torch.split(noise_BZ, model.micro)])
        if not bool(torch.isfinite(drawn_BCHW).all()):
            return "diverged: its images are not finite"
        drawn_ME = _features(drawn_BCHW.clamp(-1.0, 1.0))
        spread = float(drawn_ME.var(axis=0).sum()) / self._variance
        distance = frechet_distance(self._real_NE, drawn_ME) / self._variance
        if self.spread > _GOOD_SPREAD and spread < _COLLAPSED:
            return f"collapsed: its images are all alike (their spread is {spread:.2f} of the real ones')"
        if self.distance < _GOOD_DISTANCE and distance > _GREY:
            return f"diverged: its images are further from real ones ({distance:.1f}) than one grey image"
        self.distance = min(self.distance, distance)
        if distance < _GREY:
            self.spread = max(self.spread, spread)
        return None

    def state(self) -> dict[str, float]:
        """What it remembers."""
        known = {} if self.distance == float("inf") else {"distance": self.distance}
        return {"spread": self.spread, **known}

    def load(self, state: dict[str, float], model: BatchModel) -> None:
        """Undo `state`; `model` is as it was then."""
        self.spread, self.distance = state.get("spread", 0.0), state.get("distance", float("inf"))
        self._counted = _counts(model)


def _counts(model: BatchModel) -> dict[str, tuple[int, int]]:
    return {name: (descent.updates, descent.skipped) for name, descent in model.descents.items()}


def _features(image_NCHW: Tensor) -> Floats:
    pooled: Floats = tnf.adaptive_avg_pool2d(image_NCHW, FIELDS).flatten(1).double().numpy()
    return pooled
