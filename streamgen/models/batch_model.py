"""What every batch model is: networks with their optimisers, a step that learns, and images from a latent.

The state is all tensors of the networks and optimisers, by name. After `load` of a `state`, the same images
and noise give the same bits as before, on the same device, library versions and number of threads.

B images, C colours, H × W pixels, Z latent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamgen.errors import ConfigError, StateError
from streamgen.models.descent import BatchSettings, Descent
from streamgen.models.device import is_out_of_memory
from streamgen.models.image_parts import Shape

Images = NDArray[np.uint8]  # [B, H, W, C]
log = structlog.get_logger()


class BatchModel(ABC):
    """A model file has the networks, the losses and the drawing; the rest is here.

    `micro` is how many images go through a network at once: a step of more of them adds up gradients, and is
    the same but for rounding, since no layer mixes images. It is halved when memory is short.
    """

    name: str

    def __init__(self, settings: BatchSettings, shape: Shape, device: str) -> None:
        self.settings, self.shape = settings, shape
        self.device = torch.device(device)
        self.micro = settings.batch
        self.networks: dict[str, nn.Module] = {}
        self.descents: dict[str, Descent] = {}

    @abstractmethod
    def start(self, images_NHWC: Images, rng: np.random.Generator) -> None:
        """Draw the weights, and take the units from the training images."""

    @abstractmethod
    def learn(self, images_BHWC: Images, rng: np.random.Generator) -> dict[str, float]:
        """One step of every network; the losses by name. All noise comes from `rng`."""

    @abstractmethod
    def draw(self, noise_BZ: Tensor) -> Tensor:
        """Images [B, C, H, W], black −1 and white 1, from standard normal noise, by the averaged weights."""

    @property
    def skipped(self) -> int:
        """Updates that were skipped since the loss or the gradient was not finite."""
        return sum(descent.skipped for descent in self.descents.values())

    def state(self) -> dict[str, Tensor]:
        """Everything that learning changes, on the CPU."""
        found = {"micro": torch.tensor(self.micro)}
        for kind, owners in (("networks", self._tensors()), ("descents", self._moments())):
            found |= {
                f"{kind}.{owner}.{name}": tensor.detach().to("cpu", copy=True).contiguous()
                for owner, tensors in owners.items()
                for name, tensor in tensors.items()
            }
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`. Raises `StateError` when it is another network's."""
        for owner, network in self.networks.items():
            given = _inside(state, f"networks.{owner}.")
            wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
            if {name: tuple(tensor.shape) for name, tensor in given.items()} != wanted:
                raise StateError(f"The state is of another {self.name}: its {owner} has other weights.")
            network.load_state_dict(given)
        for owner, descent in self.descents.items():
            descent.load(_inside(state, f"descents.{owner}."))
        self.micro = int(state["micro"])

    def normal(self, rng: np.random.Generator, rows: int) -> Tensor:
        """[rows, Z] of standard normal noise."""
        noise = rng.standard_normal((rows, self.settings.latent), dtype=np.float32)
        return torch.from_numpy(noise).to(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Half precision with float32's range on a GPU, which needs no scaling of the loss."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def descend(self, name: str, rows: int, loss_of: Callable[[slice], tuple[Tensor, ...]]) -> list[float]:
        """One step of a network on the mean loss of `rows` images, `micro` of them at a time.

        `loss_of` gives the loss of some rows, and whatever else is to be reported, each a mean over them.
        Returns the means over all. Raises `ConfigError` when the memory does not hold one image.
        """
        network = self.networks[name]
        while True:
            try:
                totals = self._gradients(rows, loss_of)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.micro == 1:
                    raise ConfigError(
                        f"The memory of the {self.device.type} does not hold one image at a time of this "
                        f"{self.name}: choose a smaller model.width, images.size or model.batch."
                    ) from error
            # Outside the handler: the error holds on to the tensors that filled the memory.
            network.zero_grad(set_to_none=True)
            self.micro = max(1, self.micro // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            log.warning("out of memory: fewer images at a time, as many a step", micro_batch=self.micro)
        self.descents[name].step(totals[0])
        return totals

    def _gradients(self, rows: int, loss_of: Callable[[slice], tuple[Tensor, ...]]) -> list[float]:
        totals: list[float] = []
        for part in self._parts(rows):
            share = (part.stop - part.start) / rows
            losses = loss_of(part)
            (losses[0] * share).backward()
            means = [share * float(one.detach()) for one in losses]
            totals = [a + b for a, b in zip(totals, means, strict=True)] if totals else means
        return totals

    def _parts(self, rows: int) -> Iterator[slice]:
        for start in range(0, rows, self.micro):
            yield slice(start, min(rows, start + self.micro))

    def _tensors(self) -> dict[str, Mapping[str, Tensor]]:
        return {owner: network.state_dict() for owner, network in self.networks.items()}

    def _moments(self) -> dict[str, Mapping[str, Tensor]]:
        return {owner: descent.state() for owner, descent in self.descents.items()}


def _inside(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
