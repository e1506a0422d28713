"""Rebalances while tasks are restored: the recovery bugs of other stream processors, one test each.

Quix Streams 1067 (a recovery that never ends), 1114 and 1124 (a partition that is never resumed after one),
1146 (a partition that comes during one is never begun, and records of others that come meanwhile are lost).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import pytest
from memory_rig import N, filled, loop_over, outputs, until_read

from streamgen.errors import BrokerUnavailable
from streamgen.loop import Loop
from streamgen.records import TopicPartition
from streamgen.testing import LogRecord, MemoryLog, MemoryStore, MemoryTransport

T = TypeVar("T")
ZERO, ONE = TopicPartition("in", 0), TopicPartition("in", 1)


class Later(Executor):
    """Does what it was given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.at_once = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        if self.at_once:
            self.work()
        return future

    def work(self, count: int = 1000) -> None:
        now, self.waiting = self.waiting[:count], self.waiting[count:]
        for future, call in now:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BrokerUnavailable as error:
                    future.set_exception(error)


@pytest.fixture
def background() -> Later:
    return Later()


@pytest.fixture
def half_done() -> tuple[MemoryLog, MemoryStore]:
    """An application that was stopped half-way, with its state stored."""
    log, store = filled(), MemoryStore()
    loop, _ = loop_over(log, store, polls=[20], commit_interval_ms=5)
    for _ in range(6):
        loop.turn()
    loop.run(lambda: True)
    assert store.sources() == [ZERO, ONE]
    return log, store


def begun(log: MemoryLog, store: MemoryStore, background: Later) -> tuple[Loop, MemoryTransport]:
    loop, transport = loop_over(log, store, polls=[20], background=background, commit_interval_ms=5)
    loop.turn()
    return loop, transport


def finish(loop: Loop, log: MemoryLog, background: Later) -> None:
    background.at_once = True
    background.work()
    loop.run(until_read(loop, log))


def test_what_is_restored_goes_on_while_another_is_restored(
    half_done: tuple[MemoryLog, MemoryStore], background: Later, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log, store = half_done
    loop, _ = begun(log, store, background)
    assert len(background.waiting) == 2
    background.work(1)
    before = log.committed["streamgen"][ZERO]
    for _ in range(20):
        loop.turn()
    assert list(loop.pipelines) == [ZERO]
    assert log.committed["streamgen"][ZERO] > before
    finish(loop, log, background)
    assert outputs(log) == uninterrupted


def test_a_partition_that_comes_while_another_is_restored_is_restored_too(
    half_done: tuple[MemoryLog, MemoryStore], background: Later, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log, store = half_done
    loop, transport = loop_over(log, store, polls=[20], background=background, commit_interval_ms=5)
    transport._to_assign = {ZERO}
    loop.turn()
    transport.assign(ONE)
    loop.turn()
    finish(loop, log, background)
    assert outputs(log) == uninterrupted


@pytest.mark.parametrize("how", ["revoke", "lose"])
def test_a_partition_that_goes_while_it_is_restored_and_comes_back(
    half_done: tuple[MemoryLog, MemoryStore],
    background: Later,
    uninterrupted: dict[str, list[LogRecord]],
    how: str,
) -> None:
    log, store = half_done
    loop, transport = begun(log, store, background)
    getattr(transport, how)(ONE)
    loop.turn()
    transport.assign(ONE)
    loop.turn()
    finish(loop, log, background)
    assert outputs(log) == uninterrupted


def test_a_restored_partition_that_is_gone_meanwhile_is_not_taken_up(
    half_done: tuple[MemoryLog, MemoryStore], background: Later, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    """Its state was read, but the record that it goes on from is another worker's to score."""
    log, store = half_done
    loop, transport = begun(log, store, background)
    background.work()
    transport.lose(ONE)
    loop.turn()
    assert list(loop.pipelines) == [ZERO]
    transport.assign(ONE)
    finish(loop, log, background)
    assert outputs(log) == uninterrupted


def test_a_rebalance_moves_what_replays_and_keeps_what_stays(
    half_done: tuple[MemoryLog, MemoryStore], uninterrupted: dict[str, list[LogRecord]]
) -> None:
    """Without a checkpoint all is replayed; a partition that goes in the middle of that and comes back begins
    again, and one that stays loses nothing."""
    log, _ = half_done
    loop, transport = loop_over(log, MemoryStore(), polls=[10], commit_interval_ms=5)
    for _ in range(3):
        loop.turn()
    assert loop.pipelines[ONE].replaying > 0
    transport.revoke(ONE)
    loop.turn()
    transport.assign(ONE)
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_a_restore_that_fails_is_tried_again(
    half_done: tuple[MemoryLog, MemoryStore],
    uninterrupted: dict[str, list[LogRecord]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, store = half_done
    claim, failures = store.claim, 3

    def unlucky(source: TopicPartition) -> Any:
        nonlocal failures
        if source == ONE and failures:
            failures -= 1
            raise BrokerUnavailable("no broker answered")
        return claim(source)

    monkeypatch.setattr(store, "claim", unlucky)
    loop, _ = loop_over(log, store, polls=[20], commit_interval_ms=5)
    loop.run(until_read(loop, log))
    assert failures == 0
    assert outputs(log) == uninterrupted


def test_a_partition_without_a_leader_holds_up_no_other(
    half_done: tuple[MemoryLog, MemoryStore],
    uninterrupted: dict[str, list[LogRecord]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, store = half_done
    loop, transport = loop_over(log, store, polls=[20], commit_interval_ms=5)
    bounds, led = transport.bounds, False

    def leaderless(sources: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        if ONE in (sources := list(sources)) and not led:
            raise BrokerUnavailable("in-1 has no leader now")
        return bounds(sources)

    monkeypatch.setattr(transport, "bounds", leaderless)
    monkeypatch.setattr(transport, "ends", lambda sources: {})
    slept: list[float] = []
    sleep = loop._sleep
    loop._sleep = lambda seconds: (slept.append(seconds), sleep(seconds))[1]
    for _ in range(40):
        loop.turn()
    assert log.committed["streamgen"][ZERO] == log.partition(ZERO).end
    assert list(loop.pipelines) == [ZERO]
    assert slept == []
    assert ONE in loop._tasks.all
    led = True
    loop.run(until_read(loop, log))
    assert outputs(log) == uninterrupted


def test_a_worker_that_ends_while_it_restores_leaves_all_as_it_was(
    half_done: tuple[MemoryLog, MemoryStore], background: Later, uninterrupted: dict[str, list[LogRecord]]
) -> None:
    log, store = half_done
    loop, _ = begun(log, store, background)
    loop.run(lambda: True)
    other = Later()
    again, _ = begun(log, store, other)
    finish(again, log, other)
    assert outputs(log) == uninterrupted
    assert len(log.records("in")) == N
