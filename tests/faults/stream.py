"""The input of the campaign: a seeded stream with all that an input may hold, and few enough keys to learn.

20 keys on 4 partitions, two walks with spikes (so that there are episodes), missing values, late records, and
records that cannot be used.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import NamedTuple

PARTITIONS, KEYS = 4, 20
BEGIN_MS = 1_700_000_000_000
STEP_MS = 250  # between records of the stream: 5 s between those of a key
BAD: tuple[tuple[bytes | None, bytes | None], ...] = (
    (b"key-1", b"{broken"),
    (b"key-2", b""),
    (b"key-3", None),
    (b"key-4", b'{"a": "text", "b": null}'),
    (b"key-5", b'{"a": Infinity, "b": 1}'),
    (b"\xff\xfe", b'{"a": 1, "b": 2}'),
)


class Row(NamedTuple):
    """One record of the input."""

    partition: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


def rows(seed: int | str) -> Iterator[Row]:
    """The stream, without an end."""
    rng = random.Random(f"stream {seed}")
    level = [[rng.gauss(0, 1), rng.gauss(5, 1)] for _ in range(KEYS)]
    n = 0
    while True:
        n += 1
        time_ms = BEGIN_MS + STEP_MS * n
        if rng.random() < 0.02:
            key, value = rng.choice(BAD)
            yield Row(rng.randrange(PARTITIONS), time_ms, key, value)
            continue
        k = rng.randrange(KEYS)
        level[k] = [0.9 * one + rng.gauss(0, 0.3) for one in level[k]]
        a, b = level[k]
        if rng.random() < 0.02:
            a += rng.choice((-8, 8))
        fields = {"a": a, "b": b}
        if rng.random() < 0.05:
            fields.pop(rng.choice(("a", "b")))
        if rng.random() < 0.03:
            time_ms -= rng.randrange(5_000, 120_000)  # late
        yield Row(k % PARTITIONS, time_ms, b"key-%d" % k, json.dumps(fields).encode())


def inputs(topic: str, application: str) -> list[dict[str, object]]:
    """The `inputs` of a configuration whose outputs are this application's own."""
    return [
        {
            "topic": topic,
            "features": ["a", "b"],
            "window": {"length": 4},
            "model": {"name": "stream_ae", "hidden": 8},
            "anomaly": {"alert_budget": 2000, "warm_up": 32, "close_after": 3},
            "outputs": {name: f"{application}.{name}" for name in ("scores", "anomalies", "dlq")},
        }
    ]
