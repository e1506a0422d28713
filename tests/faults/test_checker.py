"""The checker finds what it is there for: one fault of each kind, made by hand in what a run published."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
from checker import Outputs, Place, Record, Verdict, compare, nameless

INPUTS: list[Place] = [(partition, offset) for partition in range(2) for offset in range(6)]


def score(partition: int, offset: int, value: float = 0.5) -> Record:
    body = {"score": value, "source": {"topic": "t", "partition": partition, "offset": offset}}
    return Record(partition, offset, b"key-%d" % (offset % 2), json.dumps(body).encode(), (("ce_id", b"1"),))


def dead(partition: int, offset: int) -> Record:
    place = (("__streams.errors.partition", b"%d" % partition), ("__streams.errors.offset", b"%d" % offset))
    return Record(partition, offset, b"key-0", b"{broken", place)


def whole() -> Outputs:
    """Six records in each partition, of which the last is dead; one episode."""
    return Outputs(
        scores=[score(*place) for place in INPUTS if place[1] < 5],
        dead=[dead(*place) for place in INPUTS if place[1] == 5],
        episodes=[Record(0, n, b"key-1", what, ()) for n, what in enumerate((b"opened", b"closed"))],
        states={0: {"key-0 weight": b"\0\1"}, 1: {"key-0 weight": b"\2\3"}},
    )


def judged(change: Callable[[Outputs], object]) -> Verdict:
    """The verdict on a run that was changed."""
    faulted = copy.deepcopy(whole())
    change(faulted)
    return compare(INPUTS, faulted, whole())


def only(verdict: Verdict, kind: str) -> list[str]:
    """The findings of a kind, when there are no others."""
    assert getattr(verdict, kind) == verdict.findings
    return list(getattr(verdict, kind))


def test_nothing_is_found_where_nothing_is() -> None:
    verdict = judged(lambda _: None)
    assert (verdict.findings, verdict.records) == ([], len(INPUTS))


@pytest.mark.parametrize("kind", ["scores", "dead"])
def test_a_lost_result_is_found(kind: str) -> None:
    assert len(only(judged(lambda run: getattr(run, kind).pop(1)), "lost")) == 1


@pytest.mark.parametrize("kind", ["scores", "dead"])
def test_a_doubled_result_is_found(kind: str) -> None:
    def change(run: Outputs) -> None:
        records = getattr(run, kind)
        records.insert(1, records[0])

    assert only(judged(change), "doubled") == [f"{(0, 0 if kind == 'scores' else 5)}: 2 results"]


def test_a_score_and_a_dead_letter_of_one_record_are_doubled() -> None:
    assert len(only(judged(lambda run: run.dead.insert(0, dead(0, 3))), "doubled")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"value": score(0, 2, 0.5000000000000001).value},
        {"timestamp": 99},
        {"headers": (("ce_id", b"2"),)},
        {"partition": 1},
    ],
)
def test_a_changed_result_is_found(change: dict[str, object]) -> None:
    def apply(run: Outputs) -> None:
        run.scores[2] = run.scores[2]._replace(**change)  # type: ignore[arg-type]

    assert "(0, 2)" in only(judged(apply), "different")[0]


def test_a_reordered_result_is_found() -> None:
    def swap(run: Outputs) -> None:
        run.scores[0], run.scores[2] = run.scores[2], run.scores[0]  # of one key

    assert only(judged(swap), "reordered") == ["(0, 0): scores of b'key-0' are out of order"]


def test_two_keys_may_pass_one_another() -> None:
    def swap(run: Outputs) -> None:
        run.scores[0], run.scores[1] = run.scores[1], run.scores[0]

    assert judged(swap).findings == []


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("lost", lambda run: run.episodes.pop()),
        ("doubled", lambda run: run.episodes.append(run.episodes[1])),
        ("reordered", lambda run: run.episodes.reverse()),
    ],
)
def test_an_episode_that_went_wrong_is_found(kind: str, change: Callable[[Outputs], object]) -> None:
    assert len(only(judged(change), kind)) == 1


@pytest.mark.parametrize("bits", [{"key-0 weight": b"\0\0"}, {}, {"key-0 weight": b"\0\1", "new": b""}])
def test_a_changed_state_is_found(bits: dict[str, bytes]) -> None:
    assert len(only(judged(lambda run: run.states.update({0: bits})), "states")) == 1


def test_the_name_of_the_application_is_taken_out_and_nothing_else() -> None:
    record = Record(0, 0, b"faulted-1", b'{"id": "faulted-1/t/0/7"}', (("ce_id", b"faulted-1/t/0/7"),))
    assert nameless([(3, record)], "faulted-1") == [
        Record(0, 0, b"faulted-1", b'{"id": "<application>/t/0/7"}', (("ce_id", b"<application>/t/0/7"),))
    ]
