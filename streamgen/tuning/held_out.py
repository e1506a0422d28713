"""How image models are judged: a training of as many steps for every choice, on images that it does not see.

Every tenth image is held out, whatever the seed. The score is, lower is better,

    vae   −ELBO of the held-out images, in nats per pixel and colour, all of the KL term counted
    gan   own Fréchet distance of as many drawn images from them, in the eyes of a classifier; one for each
          seed, taught without labels on the images that are trained on

The steps, their images and noise are those of `streamgen images fit` with the same seed.

N images of H × W pixels, C colours; E features.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from time import process_time
from typing import Any

import numpy as np

from streamgen.errors import InputError
from streamgen.evaluation.report import FEWEST
from streamgen.images.classifier import Classifier, Images, learn
from streamgen.images.drawing import draw
from streamgen.images.evaluation import own_frechet
from streamgen.images.training import Lessons
from streamgen.images.watch import Watch
from streamgen.models.batch import build, settings
from streamgen.models.batch_model import BatchModel
from streamgen.models.vae import VAE
from streamgen.tuning.batch import Batch
from streamgen.tuning.trial import Failed, Point

EVERY = 10  # of so many images one is held out
MOST = 1000  # of which no more are looked at


class HeldOut:
    """Models that learn images in batches. Raises `InputError` for too few images."""

    way = "steps"
    points = 9

    def __init__(self, subject: Batch, images_NHWC: Images, device: str) -> None:
        self.name = str(settings(subject.model).model_dump()["name"])
        self.unit = "nats per dimension" if self.name == "vae" else "own Fréchet distance"
        self._subject, self._device = subject, device
        out_N = np.arange(0, len(images_NHWC), EVERY)
        self.training_NHWC = np.delete(images_NHWC, out_N, axis=0)
        looked_at = np.linspace(0, len(out_N) - 1, min(len(out_N), MOST)).astype(int)
        self.held_out_NHWC = images_NHWC[out_N[looked_at]]
        if len(out_N) < FEWEST:
            raise InputError(
                f"{len(images_NHWC)} images are too few to compare settings: every tenth is held out, and at "
                f"least {FEWEST} of those are needed, so give {EVERY * FEWEST}."
            )
        self._classifiers: dict[int, Classifier] = {}

    def fingerprint(self) -> str:
        """A hash of all images."""
        seen = hashlib.blake2b(str(self.training_NHWC.shape).encode(), digest_size=16)
        for part in (self.training_NHWC, self.held_out_NHWC):
            seen.update(np.ascontiguousarray(part).data)
        return seen.hexdigest()

    def __call__(self, changed: Mapping[str, Any], seed: int) -> Iterator[Point | None]:
        """See `Trial`."""
        chosen, steps = self._subject.applied(changed, reduce=True), self._subject.steps
        shape = self.training_NHWC.shape
        model = build({**chosen.model, "steps": steps}, (shape[3], *shape[1:3]), self._device)
        watch, lessons = Watch(self.training_NHWC), Lessons(model, self.training_NHWC, seed)
        lessons.start()
        seconds, score, done = 0.0, math.nan, 0
        for part in range(self.points):
            end = steps * (part + 1) // self.points
            for step in range(done + 1, end + 1):
                began = process_time()
                lessons.step(step)
                seconds += process_time() - began
                yield None
            if end > done:
                failure = watch.look(model)
                if failure is not None:
                    raise Failed(f"seed {seed}, at step {end}, has {failure}")
                score = self._score(model, seed)
                if not math.isfinite(score):
                    raise Failed(f"seed {seed}, at step {end}, has diverged: its score is {score}")
            done = end
            yield Point(score, seconds)

    def _score(self, model: BatchModel, seed: int) -> float:
        if isinstance(model, VAE):
            return -float(model.elbo(self.held_out_NHWC).mean())
        if seed not in self._classifiers:
            self._classifiers[seed] = learn(self.training_NHWC, None, seed)
        classifier = self._classifiers[seed]
        drawn_NE = classifier.features(draw(model, seed, len(self.held_out_NHWC)))
        return own_frechet(classifier.features(self.held_out_NHWC), drawn_NE)
