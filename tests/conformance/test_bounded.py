"""Where a learner is, and when the batch ends, shows in no bit; for every model of the registry."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamgen import models
from streamgen.config import InputConfig
from streamgen.learners.task import Results, Task
from streamgen.models.slab import SMALL as SMALL_SLAB
from streamgen.records import Columns, Floats, TopicPartition
from streamgen.state.checkpoint import Fields, learner_hash

N, D = 480, 2
SMALL: dict[str, dict[str, object]] = {
    "stream_ae": {"hidden": 4},
    "rvae": {"hidden": 4, "latent": 2, "components": 2},
    "river": {"n_trees": 2, "height": 3, "window_size": 20},
    # What the keys share:
    "stream_ae task": {"hidden": 4, "scope": "task"},
    "stream_ae shared": {"hidden": 4, "start_from": "shared"},
    "stream_ae full task": {
        "scope": "task", "preset": "full", "hidden": 4, "components": 2, "burn_in": 4, "reservoir": 4,
        "updates": 1, "batch": 2,
    },
    "rvae task": {"hidden": 4, "latent": 2, "components": 2, "scope": "task"},
}  # fmt: skip
MINUTE = 60_000


def test_every_model_is_here() -> None:
    assert {name.split()[0] for name in SMALL} == set(models.names())


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def task(name: str, directory: Path | None = None, **settings: object) -> Task:
    settings = {"window": {"length": 8}, "anomaly": {"warm_up": 32, "alert_budget": 20_000}} | settings
    config = InputConfig(topic="t", model={"name": name.split()[0], **SMALL[name]}, **settings)  # type: ignore[arg-type]
    return Task(TopicPartition("t", 0), config, ("a", "b"), 0, "cpu", directory)


def stream() -> Columns:
    """Nine keys, one of them None; one is never silent, some fall silent for hours and come back. Some
    records are late, and every tenth has a key of its own."""
    rng = np.random.default_rng(5)
    time_N = np.cumsum(rng.choice([1, 1, 2, 40], N)) * MINUTE
    time_N[rng.random(N) < 0.05] -= 15 * MINUTE
    key: list[str | None] = []
    for n in range(N):
        busy = rng.integers(0, 8) if (n // 60) % 2 else rng.integers(0, 3)
        if n % 5 < 2:
            key.append("steady")
        else:
            key.append(f"once-{n}" if n % 10 == 9 else None if busy == 0 else f"k{busy}")
    value_ND = np.sin(np.arange(N)[:, None] / [5.0, 9.0]) + 0.1 * rng.normal(size=(N, D))
    value_ND[380:384] += 50
    value_ND[rng.random((N, D)) < 0.03] = np.nan
    value_ND[:, 1] = np.where(np.isnan(value_ND).all(axis=1), 0.0, value_ND[:, 1])
    return Columns(np.arange(N), time_N, key, value_ND, np.arange(N))


def part(columns: Columns, first: int, end: int) -> Columns:
    s = slice(first, end)
    return Columns(
        columns.offset_N[s],
        columns.timestamp_N[s],
        columns.key[s],
        columns.value_ND[s],
        np.arange(end - first),
    )


def run(learner: Task, columns: Columns, size: int) -> bytes:
    """All results, bit by bit."""
    return told(
        [learner.process(part(columns, n, min(n + size, len(columns)))) for n in range(0, len(columns), size)]
    )


def told(results: Iterable[Results]) -> bytes:
    seen: dict[str, list[Any]] = {}
    first = 0
    for one in results:
        arrays: dict[str, Floats] = {"p": one.p_N}
        for group in (one.scores, one.verdicts, one.ticks):
            for field in group.__slots__:
                arrays[field] = getattr(group, field)
        for field, array in arrays.items():
            if isinstance(array, np.ndarray):
                seen.setdefault(field, []).append(array.tobytes())
        seen.setdefault("loss", []).append(np.array(one.scores.loss).tobytes())
        for episode in one.verdicts.episodes:
            values = (episode.peak_value_D, episode.peak_expected_D, episode.peak_contribution_D)
            named = (episode.kind, episode.n + first, episode.key, episode.opened_offset, episode.peak_p)
            seen.setdefault("episodes", []).append(
                repr(named).encode() + b"".join(v.tobytes() for v in values)
            )
        first += len(one.columns)
    return b"|".join(field.encode() + b"".join(parts) for field, parts in sorted(seen.items()))


def hashes(learners: dict[str | None, Fields]) -> dict[str | None, int]:
    return {key: learner_hash(key, fields) for key, fields in learners.items()}


def state(learner: Task) -> tuple[object, object]:
    return dict(learner.snapshot(0, whole=True).facts), hashes(learner.learners())


TTL = {"key_ttl": "2h", "min_records": 2}
SETTINGS: dict[str, dict[str, object]] = {"default": {}, "ttl": TTL, "at once": {"min_records": 1}}


@cache
def unbounded(name: str, settings: str) -> tuple[bytes, tuple[object, object], list[str | None]]:
    """Results, state and keys of a task that takes the stream at once, all of its learners in memory."""
    learner = task(name, **SETTINGS[settings])
    return run(learner, stream(), N), state(learner), learner.keys


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("most", "size"), [(None, 1), (None, 7), (1, 7), (3, 1), (3, N)])
def test_no_bit_depends_on_memory_or_batches(
    name: str, most: int | None, size: int, settings: str, tmp_path: Path
) -> None:
    learner = task(name, tmp_path, max_resident=most, **SETTINGS[settings])
    results, final, keys = unbounded(name, settings)
    assert run(learner, stream(), size) == results
    assert state(learner) == final
    assert learner.keys == keys
    assert list(tmp_path.iterdir()) == []
    if most is not None:
        assert learner.resident == min(most, len(keys))
        assert learner.resident + learner.paged == len(keys)
        assert learner.slab.capacity <= most


def test_the_stream_has_what_is_tested(name: str) -> None:
    """Expiry within a batch, episodes, late records: without them the tests here would say nothing."""
    results = task(name, **TTL).process(stream())
    assert {episode.kind for episode in results.verdicts.episodes} >= {"opened"}
    assert results.ticks.late_N.any()
    assert results.scores.step_N.max() > 3
    key = np.array([str(one) for one in stream().key])
    known = {one: results.ticks.gap_N[key == one] > 0 for one in set(key)}
    assert sum((known_n[:-1] & ~known_n[1:]).any() for known_n in known.values()) >= 3  # began anew


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("settings", [{}, TTL], ids=["default", "ttl"])
def test_a_restored_task_goes_on_bitwise(name: str, most: int | None, settings: dict[str, object]) -> None:
    uninterrupted = task(name, **settings)
    uninterrupted.process(part(stream(), 0, 250))
    before = task(name, max_resident=most, **settings)
    before.process(part(stream(), 0, 250))
    snapshot = before.snapshot(250, whole=True)
    after = task(name, max_resident=most, **settings)
    after.restore(through_json(snapshot.facts), {one.key: one.fields for one in snapshot.take(1000)})
    assert run(after, part(stream(), 250, N), 11) == run(uninterrupted, part(stream(), 250, N), N - 250)
    assert state(after) == state(uninterrupted)


def through_json(facts: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(facts))


@pytest.mark.parametrize("most", [None, 2])
def test_a_snapshot_taken_meanwhile_is_the_state_at_its_offset(name: str, most: int | None) -> None:
    """Little by little, while records, expiry and paging go on."""
    learner, still = (task(name, max_resident=most, **TTL) for _ in range(2))
    for one in (learner, still):
        one.process(part(stream(), 0, 150))
    facts, expected = state(still)
    snapshot = learner.snapshot(150)
    taken = {}
    for n in range(150, N, 9):
        learner.process(part(stream(), n, min(n + 9, N)))
        taken.update({one.key: one.fields for one in snapshot.take(1)})
    assert snapshot.done
    assert (dict(snapshot.facts), hashes(taken)) == (facts, expected)


def test_snapshots_add_up_to_the_state(name: str) -> None:
    """What changed and what was removed since the last that was stored, one over the other."""
    learner = task(name, max_resident=2, **TTL)
    stored: dict[str | None, Fields] = {}
    removed: set[str | None] = set()
    for n in range(0, N, 20):
        learner.process(part(stream(), n, n + 20))
        snapshot = learner.snapshot(n + 20)
        if n % 3 == 1:  # it was lost: what it had is in the next
            learner.give_up(snapshot)
            continue
        removed |= snapshot.removed & stored.keys()
        for key in snapshot.removed:
            stored.pop(key, None)
        stored.update({one.key: one.fields for one in snapshot.take(1000)})
        assert hashes(stored) == hashes(learner.learners())
    assert len(removed) >= 3


def test_memory_given_back_changes_no_bit(name: str) -> None:
    """A learner's row moves when the others expire."""
    crowd: list[str | None] = [f"k{n}" for n in range(SMALL_SLAB + 6)]
    alone, among = (task(name, key_ttl="1h", min_records=1) for _ in range(2))
    value_ND = np.sin(np.arange(120)[:, None] / [5.0, 9.0])

    def steady(first: int, count: int, others: list[str | None]) -> Columns:
        key = [*others, *["steady"] * count]
        time_N = (first + np.maximum(np.arange(len(key)) - len(others), 0)) * MINUTE
        value = np.concatenate([np.zeros((len(others), D)), value_ND[first : first + count]])
        return Columns(np.arange(len(key)), time_N, key, value, np.arange(len(key)))

    alone.process(steady(0, 50, []))
    among.process(steady(0, 50, crowd))
    assert among.slab.capacity > SMALL_SLAB
    alone.process(steady(50, 30, []))
    among.process(steady(50, 30, []))
    assert (among.keys, among.slab.capacity) == (["steady"], 2)
    assert told([among.process(steady(80, 40, []))]) == told([alone.process(steady(80, 40, []))])
    assert state(among) == state(alone)
    if among.model.kinds:
        drawn, expected = (one.generate("steady", 4, 2, 0) for one in (among, alone))
        assert drawn.tobytes() == expected.tobytes()
