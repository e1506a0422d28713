"""Counter-based noise: the same (seed, topic, key, model, step) gives the same numbers, whoever asks."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, topic: str, key: str | None, model: str, step: int) -> np.random.Generator:
    """A Philox generator (Salmon et al. 2011) whose stream depends on its arguments alone.

    `key` None and the empty key are different learners, so they have different streams.
    """
    name = "\x00".join((str(seed), topic, "null" if key is None else f"key:{key}", model)).encode()
    digest = hashlib.sha256(name).digest()
    return np.random.Generator(
        np.random.Philox(key=int.from_bytes(digest[:16], "little"), counter=[0, 0, 0, step])
    )
