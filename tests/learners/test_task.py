"""Which keys have a learner, where it is, and what a snapshot has of it. Bits: tests/conformance."""

from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamgen.config import InputConfig
from streamgen.errors import StateError, StopError
from streamgen.learners import candidates as candidates_module
from streamgen.learners.task import Results, Task
from streamgen.records import Columns, TopicPartition

MINUTE = 60_000


def task(directory: Path | None = None, **settings: object) -> Task:
    model = {"name": "stream_ae", "hidden": 2}
    config = InputConfig(topic="t", model=model, **settings)  # type: ignore[arg-type]
    return Task(TopicPartition("t", 0), config, ("x",), 0, "cpu", directory)


def batch(keys: Sequence[str | None], minutes: Sequence[int] | None = None) -> Columns:
    N = len(keys)
    time_N = np.arange(N) if minutes is None else np.array(minutes)
    return Columns(np.arange(N), time_N * MINUTE, list(keys), np.ones((N, 1)), np.arange(N))


def stepless(results: Results) -> list[bool]:
    """Which records are scored as one without a learner is: there is nothing expected of a second one."""
    return np.isnan(results.scores.expected_ND[:, 0]).tolist()


# --- min_records


def test_a_key_gets_a_learner_with_its_nth_record() -> None:
    learner = task(min_records=3)
    learner.process(batch(["a", None, "a", "b", None]))
    assert (learner.keys, learner.candidates) == ([], 3)
    learner.process(batch([None, "a", "b"]))
    assert (learner.keys, learner.candidates) == ([None, "a"], 1)


def test_a_record_without_a_learner_is_scored_as_one_without_an_opinion() -> None:
    results = task(min_records=3).process(batch(["a"] * 6))
    assert stepless(results) == [True, True, True, False, False, False]  # the third is the learner's first
    assert results.p_N[:3].tolist() == [1.0, 1.0, 1.0]
    assert results.scores.step_N.tolist() == [0] * 6
    assert not results.verdicts.is_anomaly_N.any()
    assert results.verdicts.warming_up_N.all()
    assert not results.ticks.late_N.any()
    # As the learner's first, but for what a clock would know.
    first = task(min_records=1).process(batch(["a"]))
    for name in ("surprise_NS", "nll_N", "expected_ND", "low_ND", "high_ND", "contribution_ND", "step_N"):
        assert getattr(results.scores, name)[:1].tobytes() == getattr(first.scores, name).tobytes()
    assert results.ticks.time_NC[:1].tobytes() == first.ticks.time_NC.tobytes()
    assert results.verdicts.alpha_N[0] == first.verdicts.alpha_N[0]


def test_the_candidates_heard_of_longest_ago_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates_module, "MOST", 2)
    learner = task(min_records=2)
    learner.process(batch(["a", "b", "c", "b", "a", "a"]))  # a is displaced, and counts anew
    assert learner.keys == ["b", "a"]
    assert learner.candidates == 1


def test_facts_are_small_whatever_the_keys_are() -> None:
    learner = task(key_ttl="1h")
    many = [f"{n:06}" + "x" * 1000 for n in range(12_000)]
    learner.process(batch(many, [0] * len(many)))
    assert learner.candidates == candidates_module.MOST
    assert len(msgspec.json.encode(learner.snapshot(0).facts)) < 500_000


def test_a_million_keys_of_one_record_each_take_no_memory() -> None:
    """A fifth of a million, and what they take is what the first twentieth took."""
    learner = task()

    def flood(first: int, end: int) -> None:
        for n in range(first, end, 2000):
            keys = [f"00000000-0000-0000-0000-{k:012}" for k in range(n, n + 2000)]
            learner.process(batch(keys, range(n, n + 2000)))

    tracemalloc.start()
    try:
        flood(0, 12_000)
        after_few, _ = tracemalloc.get_traced_memory()
        flood(12_000, 200_000)
        after_many, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after_many - after_few < 300_000  # an ordered dict's own slack
    assert learner.keys == []
    assert learner.slab.capacity == 1


# --- key_ttl


def test_a_silent_key_is_forgotten_and_comes_back_as_a_new_one() -> None:
    learner = task(key_ttl="1h", min_records=1)
    learner.process(batch(["a", "b", "b"], [0, 1, 60]))
    assert learner.keys == ["a", "b"]  # an hour is not more than an hour
    learner.process(batch(["b"], [61]))
    assert learner.keys == ["b"]
    results = learner.process(batch(["a", "a"], [62, 63]))
    assert stepless(results) == [True, False]
    assert learner.keys == ["b", "a"]


def test_an_hour_is_not_longer_than_an_hour() -> None:
    learner = task(key_ttl="1h", min_records=1)
    assert stepless(learner.process(batch(["a", "a", "a"], [0, 60, 121]))) == [True, False, True]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_key_that_comes_back_in_the_same_batch_is_a_new_one(size: int) -> None:
    learner = task(key_ttl="1h", min_records=2)
    keys, minutes = ["a", "a", "a", "a", "a", "a", "b"], [0, 1, 2, 100, 101, 102, 300]
    everything = batch(keys, minutes)
    nothing_expected = []
    for n in range(0, 7, size):
        s = slice(n, n + size)
        part = Columns(*(column[s] for column in (everything.offset_N, everything.timestamp_N)), keys[s],
                       everything.value_ND[s], everything.raw_N[s])  # fmt: skip
        nothing_expected += stepless(learner.process(part))
    assert nothing_expected == [True, True, False, True, True, False, True]
    assert learner.keys == []


def test_candidates_are_forgotten_too() -> None:
    learner = task(key_ttl="1h", min_records=3)
    learner.process(batch(["a", "a", "a"], [0, 100, 101]))
    assert learner.keys == []
    learner.process(batch(["a"], [102]))
    assert learner.keys == ["a"]
    learner = task(key_ttl="1h", min_records=3)
    learner.process(batch(["a", "a", "a"], [50, 0, 105]))  # the late one is not its newest
    assert learner.keys == ["a"]


def test_a_late_record_keeps_a_key_neither_longer_nor_shorter() -> None:
    for minute, keys in ((110, ["a", "b"]), (111, ["b"])):
        learner = task(key_ttl="1h", min_records=1)
        learner.process(batch(["a", "b", "a", "b"], [50, 60, 0, minute]))
        assert learner.keys == keys
    learner = task(key_ttl="1h", min_records=1)
    results = learner.process(batch(["a", "b", "a", "b", "a"], [50, 60, 0, 110, 110]))
    assert stepless(results) == [True, True, False, False, False]


def test_forgotten_learners_give_their_memory_back() -> None:
    learner = task(key_ttl="1h", min_records=1)
    learner.process(batch([f"k{n}" for n in range(600)], [0] * 600))
    assert learner.slab.capacity >= 600
    learner.process(batch(["k5", "k599", "k5"], [59, 60, 61]))
    assert learner.keys == ["k5", "k599"]
    assert learner.slab.capacity <= 16
    assert learner.slab.size == 2


def test_rows_of_forgotten_learners_are_used_again() -> None:
    learner = task(key_ttl="1h", min_records=1)
    for n in range(200):
        learner.process(batch([f"k{n}", f"k{n}"], [100 * n, 100 * n + 1]))
    assert learner.keys == ["k199"]
    assert learner.slab.capacity <= 2
    assert learner._changed == {"k199"}  # nor is anything else kept of them


# --- max_resident


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    learner = task(tmp_path, max_resident=2, min_records=1)
    learner.process(batch(["a", "b", "a", "c"]))
    assert (learner.resident, learner.paged, learner.keys) == (2, 1, ["a", "b", "c"])
    assert set(learner._residents.rows) == {"a", "c"}
    learner.process(batch(["a"]))
    learner.process(batch(["b"]))
    assert set(learner._residents.rows) == {"a", "b"}


def test_a_look_makes_nothing_resident(tmp_path: Path) -> None:
    learner = task(tmp_path, max_resident=2, min_records=1)
    learner.process(batch(["a", "b", "c", "d"]))
    before = list(learner._residents.rows)
    assert learner.learners().keys() == {"a", "b", "c", "d"}
    assert len(learner.snapshot(4).take(9)) == 4
    assert list(learner._residents.rows) == before


def test_generation_reaches_a_learner_on_disk(tmp_path: Path) -> None:
    bound, free = task(tmp_path, max_resident=1, min_records=1), task(min_records=1)
    for one in (bound, free):
        one.process(batch(["a", "b"] * 20))
    for key in ("a", "b"):
        assert bound.generate(key, 3, 2, 0).tobytes() == free.generate(key, 3, 2, 0).tobytes()
    with pytest.raises(KeyError):
        bound.generate("c", 3, 2, 0)


def test_the_file_is_gone_with_the_task(tmp_path: Path) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    learner = task(tmp_path, max_resident=1, min_records=1)
    learner.process(batch(["a", "b", "c"]))
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == open_before + 1
    del learner
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_the_file_does_not_grow(tmp_path: Path) -> None:
    learner = task(tmp_path, max_resident=1, min_records=1, key_ttl="1h")
    learner.process(batch(["a", "b", "c", "a", "b", "c", "a"]))
    pages = learner._residents.pages
    assert pages._file is not None
    slots = os.fstat(pages._file).st_size / sum(field.nbytes for field in learner.learners()["a"].values())
    assert slots == 3  # one more than are in it: a learner goes out before one comes in
    learner.process(batch(["d"], [1000]))
    assert os.fstat(pages._file).st_size == 0


def test_a_disk_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StopError, match=f"under {tmp_path}/gone .*make room there.*max_resident"):
        task(tmp_path / "gone", max_resident=1, min_records=1).process(batch(["a", "b"]))
    learner = task(tmp_path, max_resident=1, min_records=1)
    learner.process(batch(["a", "b"]))
    before = {name: field.tobytes() for name, field in learner.learners()["b"].items()}

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StopError, match="No space left"):
        learner.process(batch(["a"]))
    assert learner.keys == ["a", "b"]
    assert {name: field.tobytes() for name, field in learner.learners()["b"].items()} == before


# --- snapshots


def test_a_snapshot_has_what_changed() -> None:
    learner = task(min_records=1)
    keys = [f"k{n}" for n in range(2000)]
    learner.process(batch(keys))
    assert len(learner.snapshot(2000).keys) == 2000
    learner.process(batch(keys[100:150]))
    assert sorted(learner.snapshot(2050).keys) == sorted(keys[100:150])
    assert learner.snapshot(2050).keys == ()
    assert len(learner.snapshot(2050, whole=True).keys) == 2000


def test_a_candidate_is_in_no_snapshot() -> None:
    learner = task(min_records=2)
    learner.process(batch(["a", "b", "a"]))
    assert learner.snapshot(3).keys == ("a",)
    assert learner._changed == set()


def test_removed_keys_are_told_once_and_only_if_somebody_has_them() -> None:
    learner = task(key_ttl="1h", min_records=1)
    learner.process(batch(["a", "b", "c"], [0, 0, 0]))
    assert learner.snapshot(3).removed == set()
    learner.process(batch(["x", "d", "a"], [40, 100, 100]))  # b and c go, a went and came
    learner.process(batch(["d"], [101]))  # x came and goes
    snapshot = learner.snapshot(6)
    assert snapshot.removed == {"b", "c"}
    assert set(snapshot.keys) == {"a", "d"}
    learner.process(batch(["d"], [161]))
    assert learner.snapshot(7).removed == {"a"}
    assert learner.snapshot(7).removed == set()


def test_a_learner_that_came_and_went_between_snapshots_is_in_none() -> None:
    learner = task(key_ttl="1h", min_records=1)
    learner.process(batch(["a", "b"], [0, 100]))
    snapshot = learner.snapshot(2)
    assert (snapshot.keys, snapshot.removed) == (("b",), set())


def test_a_snapshot_that_is_given_up_comes_back() -> None:
    learner = task(key_ttl="1h", min_records=1)
    learner.process(batch(["a", "b", "c"], [0, 30, 30]))
    learner.snapshot(3)
    learner.process(batch(["b"], [61]))
    lost = learner.snapshot(4)
    assert (lost.keys, lost.removed) == (("b",), {"a"})
    learner.process(batch(["a", "c"], [62, 63]))  # a comes back before the next
    learner.give_up(lost)
    again = learner.snapshot(6)
    assert set(again.keys) == {"a", "b", "c"}
    assert again.removed == set()
    learner.give_up(again)
    learner.process(batch(["z"], [1000]))
    assert learner.snapshot(7).removed == {"a", "b", "c"}


def test_a_restored_task_tells_what_it_removes() -> None:
    before, after = (task(key_ttl="1h", min_records=1) for _ in range(2))
    before.process(batch(["a", "b"], [0, 50]))
    snapshot = before.snapshot(2)
    after.restore(snapshot.facts, {one.key: one.fields for one in snapshot.take(9)})
    after.process(batch(["b"], [70]))
    snapshot = after.snapshot(3)
    assert (snapshot.keys, snapshot.removed) == (("b",), {"a"})


@pytest.mark.parametrize("ttl", [None, "1h"])
def test_stream_time_is_the_largest_event_time(ttl: str | None) -> None:
    learner = task(key_ttl=ttl, min_records=1)
    assert learner.snapshot(0).facts["stream_time"] is None
    for minutes, largest in (([0], 0), ([7, 3], 7), ([5], 7)):
        learner.process(batch(["a"] * len(minutes), minutes))
        assert learner.snapshot(0).facts["stream_time"] == largest * MINUTE


def test_a_restored_task_has_the_stream_time() -> None:
    """A restored task forgets what the one before would have: its stream time may be a forgotten key's."""
    before, after = (task(key_ttl="1h", min_records=2) for _ in range(2))
    before.process(batch(["a", "a", "once"], [0, 1, 50]))
    snapshot = before.snapshot(3)
    after.restore(snapshot.facts, {one.key: one.fields for one in snapshot.take(9)})
    for one in (before, after):
        one.process(batch(["b", "b"], [-20, -15]))  # more than an hour late
        assert one.keys == ["a"]


def test_a_state_of_another_configuration_is_refused() -> None:
    before = task(min_records=1)
    before.process(batch(["a"]))
    with pytest.raises(StateError, match="key_newest"):
        task(min_records=1, key_ttl="1h").restore({}, before.learners())
