"""A training of an image model: steps on batches of a fixed order, with a look and a checkpoint now and then.

1. The images of step s, and all its noise, follow from the seed and s alone: the data are gone through in an
   order that is drawn anew each time, by a counter-based generator.
2. The model learns; its losses are summed up to the next look.
3. Every `every` steps the model is looked at (`watch`). A good one is stored, with pictures of what it draws
   and of its losses. From one that has diverged or collapsed the training goes back to the checkpoint
   before, says so, and ends.

So a training that is broken off and started again goes on from the last checkpoint and gives the same bits as
one that was not, on the same device, library versions and number of threads.

N images of H × W pixels, C colours, B of a step; Z latent.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog
from torch import Tensor

from streamgen.errors import InputError, StateError
from streamgen.images import pictures
from streamgen.images.checkpoint import Cut, Manifest, existing, newest, write
from streamgen.images.drawing import TOPIC, draw
from streamgen.images.source import Images, Look
from streamgen.images.watch import Watch
from streamgen.models.batch import build, settings
from streamgen.models.batch_model import BatchModel
from streamgen.models.device import find_device
from streamgen.models.noise import generator
from streamgen.records import Ints
from streamgen.state.checkpoint import made_with
from streamgen.state.folder import Folder

ACROSS = 8  # of a grid of samples
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is, after each step. `losses` are of the newest step."""

    step: int
    steps: int
    losses: Mapping[str, float]
    skipped: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The step of the last good checkpoint; what went wrong, if something did; updates that were skipped."""

    step: int
    failure: str | None
    skipped: int


class Training:
    """A model, its images and how far it is. Begins anew, or goes on where the folder's checkpoint is."""

    def __init__(
        self,
        images_NHWC: Images,
        model: Mapping[str, Any],
        look: Look,
        seed: int,
        device: str,
        folder: Folder,
        cut: Cut | None = None,
        begin: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`cut` says which part of a topic the images are; `begin` is the state of a model of these settings
        that learns on, None: a new one is made.

        Raises `StateError` when the folder holds a training of other images, settings or seed."""
        if len(images_NHWC) < 2:
            raise InputError("One image is no data to learn from: give at least 2, better thousands.")
        chosen = settings(model)
        count, height, width, colours = images_NHWC.shape
        self.images_NHWC, self.folder = images_NHWC, folder
        self.model = build(model, (colours, height, width), find_device(device))
        self.watch = Watch(images_NHWC)
        self.manifest = Manifest(
            model=chosen.model_dump(mode="json"),
            look=look.model_dump(mode="json"),
            shape=(colours, height, width),
            seed=seed,
            step=0,
            images=count,
            digest=hashlib.blake2b(np.ascontiguousarray(images_NHWC).data, digest_size=16).hexdigest(),
            device=self.model.device.type,
            cut=cut,
        )
        self.lessons = Lessons(self.model, images_NHWC, seed)
        found = newest(folder)
        if found is None:
            if begin is None:
                self.lessons.start()
            else:
                self.model.load(begin)
                self.watch.load({}, self.model)
            self._store()
        else:
            _check_same(self.manifest, found[0], folder)
            self._go_back(found)
            # More steps may be asked for than before, and another device.
            self.manifest = replace(
                self.manifest, model=chosen.model_dump(mode="json"), device=self.model.device.type
            )

    @property
    def step(self) -> int:
        """Steps that were made."""
        return self.manifest.step

    def run(self, every: int, tell: Callable[[Progress], None]) -> Outcome:
        """Train to the last of the settings' steps, with a look every `every` steps.

        Raises `StateError` when a checkpoint cannot be stored; the one before is whole.
        """
        model, steps = self.model, self.model.settings.steps
        sums: dict[str, list[float]] = {}
        while self.step < steps:
            step = self.step + 1
            losses = self.lessons.step(step)
            for name, value in losses.items():
                if math.isfinite(value):  # else the step was skipped
                    sums.setdefault(name, []).append(value)
            self.manifest = replace(self.manifest, step=step)
            tell(Progress(step, steps, losses, model.skipped))
            if step % every == 0 or step == steps:
                failure = self.watch.look(model)
                if failure is not None:
                    self._go_back(existing(self.folder))
                    return Outcome(self.step, f"At step {step} the model has {failure}.", model.skipped)
                means = {name: float(np.mean(values)) for name, values in sums.items()}
                self.manifest.history.append((step, means))
                sums.clear()
                self._store()
                self._draw()
        return Outcome(self.step, None, model.skipped)

    def _store(self) -> None:
        self.manifest = replace(self.manifest, watched=self.watch.state())
        write(self.folder, self.manifest, self.model.state())

    def _go_back(self, found: tuple[Manifest, Any]) -> None:
        self.manifest, state = found
        self.model.load(state)
        self.watch.load(dict(self.manifest.watched), self.model)

    def samples(self) -> bytes:
        """A PNG with images that the model draws, always from the same noise."""
        return pictures.grid(draw(self.model, self.manifest.seed, ACROSS * ACROSS), ACROSS)

    def _draw(self) -> None:
        self.folder.write(f"samples-{self.step:09d}.png", [self.samples()])
        title = f"{self.model.name}, {self.manifest.images} images"
        self.folder.write("losses.png", [pictures.losses(self.manifest.history, title)])


class Lessons:
    """What a model learns at each step: which images, and with which noise."""

    def __init__(self, model: BatchModel, images_NHWC: Images, seed: int) -> None:
        self._model, self._images_NHWC, self._seed = model, images_NHWC, seed
        self._order = _Order(len(images_NHWC), seed, model.name)

    def start(self) -> None:
        """Draw the model anew."""
        self._model.start(self._images_NHWC, self._noise(0))

    def step(self, number: int) -> dict[str, float]:
        """The step `number`, from 1; the losses by name."""
        return self._model.learn(self.images(number), self._noise(number))

    def images(self, number: int) -> Images:
        """Those of a step."""
        settings = self._model.settings
        if settings.optimizer == "gd":
            return self._images_NHWC
        return self._images_NHWC[self._order.batch(number, settings.batch)]

    def _noise(self, step: int) -> np.random.Generator:
        return generator(self._seed, TOPIC, None, self._model.name, step)


class _Order:
    """Which images a step has: those that follow, in an order drawn anew for each pass."""

    def __init__(self, count: int, seed: int, model: str) -> None:
        self._count, self._seed, self._model = count, seed, model
        self._passes: dict[int, Ints] = {}

    def batch(self, step: int, size: int) -> Ints:
        place_B = np.arange((step - 1) * size, step * size)
        number_B = place_B // self._count
        wanted = range(int(number_B[0]), int(number_B[-1]) + 1)
        self._passes = {n: self._passes[n] if n in self._passes else self._drawn(n) for n in wanted}
        return np.array(
            [self._passes[int(n)][p % self._count] for n, p in zip(number_B, place_B, strict=True)]
        )

    def _drawn(self, number: int) -> Ints:
        return generator(self._seed, TOPIC, "order", self._model, number).permutation(self._count)


def _check_same(mine: Manifest, stored: Manifest, folder: Folder) -> None:
    """More steps may be asked for than before; all else must be as it was."""
    check_model(mine.model, stored.model, folder)
    for what in ("seed", "shape", "images", "digest"):
        _check(what, getattr(mine, what), getattr(stored, what), folder)
    if mine.device != stored.device or dict(stored.made_with) != made_with():
        log.warning("the training goes on elsewhere: its bits will differ", was=dict(stored.made_with))


def check_model(mine: Mapping[str, Any], stored: Mapping[str, Any], folder: Folder) -> None:
    """Raises `StateError` for settings of another model than that in the folder, but for the steps."""
    # The name first: another model has other defaults too.
    for key in ("name", *sorted({*mine, *stored} - {"name", "steps"})):
        _check(f"model.{key}", mine.get(key), stored.get(key), folder)


def _check(what: str, now: Any, then: Any, folder: Folder) -> None:
    if now != then:
        raise StateError(
            f"The training in {folder} was begun with {what} {then}, not {now}: choose another folder, "
            "or go on with what it had."
        )
