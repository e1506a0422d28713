"""Where models compute, with how many threads, and whether memory was enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from streamgen.errors import ConfigError


def use_device(asked: str) -> str:
    """The device for `auto`, `cpu` or `cuda`; from here on this process computes with one thread.

    How a sum is split among threads shows in its last bit, and a learner's operations are too small to
    gain from more than one. Raises `ConfigError` when there is no such device.
    """
    torch.set_num_threads(1)
    return find_device(asked)


def find_device(asked: str) -> str:
    """The device for `auto`, `cpu` or `cuda`, with as many threads as PyTorch finds good.

    Raises `ConfigError` when there is no such device.
    """
    if asked == "cpu":
        return asked
    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise ConfigError(
            "The device is cuda, and PyTorch finds none here: install a driver and a CUDA build of PyTorch, "
            "or choose cpu."
        )
    return "cuda" if found else "cpu"


@contextmanager
def no_subnormals() -> Iterator[None]:
    """Subnormal numbers count as zero meanwhile, in this thread, where its processor can do that.

    A component that a record rules out has a gradient of e⁻⁹⁰ or less; a processor takes twenty times as long
    for a product with such numbers. Outside of it they are what they are: a stream may have them as values.
    """
    before = not float(torch.tensor(1e-39) * 1.0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was too small. Of a CPU torch raises a RuntimeError that only its text tells."""
    signs = ("out of memory", "DefaultCPUAllocator", "can't allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
