"""The publisher over a Kafka in memory: what is answered, with what, and how often."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

from streamgen.errors import BrokerUnavailable
from streamgen.formats.decode import Decoder
from streamgen.kafka.tail import Grown
from streamgen.learners.task import Task
from streamgen.publishing import answering, answers, following, outbox
from streamgen.publishing.requests import Refusal
from streamgen.records import RawBatch, TopicPartition
from streamgen.state.checkpoint import LearnerState
from streamgen.state.files import FileStore
from streamgen.testing import Crash, Fault, LogRecord, MemoryTail
from tests.publishing.rig import (
    FEATURES,
    FIRST_MS,
    GAP_MS,
    OTHER,
    SOURCE,
    Rig,
    columns_of,
    config,
    contents,
    headers,
    turn,
)  # fmt: skip

ASKED = {"kind": "continue", "key": "a", "length": 5, "count": 2, "seed": 7, "correlation_id": "id-1"}


@pytest.fixture
def rig() -> Rig:
    made = Rig(config())
    made.send(100)
    made.learn()
    return made


def answered(rig: Rig, **request: Any) -> list[LogRecord]:
    """What a publisher of its own answers; the answers before it are left out."""
    before = len(rig.generated())
    rig.ask(**request)
    turn(rig.publisher())
    return rig.generated()[before:]


def decoded(rig: Rig, records: list[LogRecord]) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """As a consumer of the input reads them."""
    raw = RawBatch(
        SOURCE, np.arange(len(records)), np.array([r.timestamp for r in records]),
        [r.key for r in records], [r.value for r in records], [r.headers for r in records],
    )  # fmt: skip
    read = Decoder(rig.source, FEATURES).decode(raw)
    assert read.dead == []
    assert not any((read.drift.new, read.drift.vanished, read.drift.retyped))
    return read.columns.value_ND, read.columns.timestamp_N, read.columns.key


# --- what an answer is


def test_an_answer_has_the_inputs_schema_units_and_rhythm(rig: Rig) -> None:
    rig.send(3)
    records = answered(rig, **ASKED)
    assert len(records) == 10
    value_ND, time_N, key = decoded(rig, records)
    newest = FIRST_MS + 102 * GAP_MS
    assert time_N.reshape(2, 5).tolist() == [[newest + GAP_MS * n for n in range(1, 6)]] * 2
    assert key == ["a"] * 10
    assert (value_ND[:, 0] >= 0).all()
    assert (value_ND[:, 0] <= 1).all()
    for record in records:
        body = json.loads(record.value or b"")
        assert list(body) == ["at", "load", "disk", "up"]
        assert type(body["disk"]["free"]) is int
        assert type(body["up"]) is bool
        assert body["at"].endswith("Z")
        assert len(body["at"]) == len("2023-11-14T22:13:20Z")
        assert record.timestamp == time_N[records.index(record)] + 500  # as far from it as the input's
        assert record.key == b"a"


def test_headers_say_what_it_is_and_where_the_state_stood(rig: Rig) -> None:
    rig.send(3)
    found = [headers(record) for record in answered(rig, **ASKED)]
    assert len({one["ce_id"] for one in found}) == 10
    for n, one in enumerate(found):
        assert one["streamgen_generated"] == "true"
        assert one["streamgen_correlation_id"] == "id-1"
        assert (one["streamgen_kind"], one["streamgen_model"]) == ("continue", "stream_ae")
        assert (one["streamgen_seed"], one["streamgen_step"]) == ("7", str(100 // 8))
        assert (one["streamgen_sequence"], one["streamgen_record"]) == (str(n // 5), str(n % 5))
        assert (one["streamgen_count"], one["streamgen_length"]) == ("2", "5")
        assert (one["streamgen_state_offset"], one["streamgen_from_offset"]) == ("100", "103")


def test_the_same_seed_and_state_give_the_same_bytes(rig: Rig) -> None:
    rig.send(3)
    first, second = answered(rig, **ASKED), answered(rig, **ASKED)
    assert contents(first) == contents(second)
    assert contents(first) != contents(answered(rig, **ASKED | {"seed": 8}))
    # Also of a publisher that was there all the time, and has led the learner here step by step.
    step_by_step = rig.publisher()
    other = Rig(rig.config)
    other.send(100)
    other.learn()
    step_by_step = other.publisher()
    for _ in range(3):
        other.ask(**ASKED)
        other.send(1)
        turn(step_by_step)
    other.ask(**ASKED)
    turn(step_by_step)
    assert contents(other.generated()[-10:]) == contents(first)


def test_a_sequence_goes_on_from_the_end_of_the_topic_without_learning(rig: Rig) -> None:
    """As the model itself does, led through the same records; not from the checkpoint, nor as one that
    learned them."""
    rig.send(20)
    value_ND, _, _ = decoded(rig, answered(rig, **ASKED | {"length": 1, "count": 1}))
    stopped, led = rig.tasks[SOURCE].learners(), rig.tasks[SOURCE]
    expected = led.generate("a", 1, 1, 7)
    assert value_ND[0].tolist() != expected[0, 0].tolist()
    led.follow(columns_of(rig, 100))
    assert value_ND.tolist() == led.generate("a", 1, 1, 7)[0].tolist()
    assert led.learners()["a"]["weights_P"].tobytes() == stopped["a"]["weights_P"].tobytes()


def test_fresh_weights_are_used_as_soon_as_they_are_stored(rig: Rig) -> None:
    publishing = rig.publisher()
    rig.ask(**ASKED)
    turn(publishing)
    rig.send(50)
    rig.learn()
    rig.ask(**ASKED)
    turn(publishing)
    steps = [headers(record)["streamgen_step"] for record in rig.generated()]
    assert steps == ["12"] * 10 + ["18"] * 10
    assert headers(rig.generated()[-1])["streamgen_state_offset"] == "150"
    fresh = answered(rig, **ASKED)
    assert contents(fresh) == contents(rig.generated()[10:20])


def test_a_state_in_files_is_followed_too(rig: Rig, tmp_path: Path) -> None:
    filed = Rig(rig.config)
    filed.store = FileStore(tmp_path)  # type: ignore[assignment]
    filed.send(100)
    publishing = filed.publisher()
    turn(publishing)
    filed.learn()
    filed.ask(**ASKED)
    turn(publishing)
    assert contents(filed.generated()) == contents(answered(rig, **ASKED))
    filed.send(50)
    filed.learn()
    filed.ask(**ASKED)
    turn(publishing)
    assert headers(filed.generated()[-1])["streamgen_state_offset"] == "150"


def test_an_answer_is_in_the_partition_of_its_key_wherever_it_was_asked(rig: Rig) -> None:
    rig.send(50, "c", 1)
    rig.learn(OTHER)
    for partition in (0, 1):
        rig.ask(to=partition, kind="continue", key="c", length=2)
        rig.ask(to=partition, kafka_key=b"a", kind="continue", length=3)
    turn(rig.publisher())
    assert [len(rig.log.records("in.generated", n)) for n in (0, 1)] == [6, 4]
    assert {record.key for record in rig.log.records("in.generated", 1)} == {b"c"}


def test_a_request_without_a_name_or_a_seed_has_those_of_its_place(rig: Rig) -> None:
    rig.ask(kind="continue", key="a", length=2)
    rig.ask(kind="continue", key="a", length=2)
    turn(rig.publisher())
    first, _, second, _ = rig.generated()
    assert headers(first)["streamgen_correlation_id"] == "in.generate-0-0"
    assert headers(second)["streamgen_correlation_id"] == "in.generate-0-1"
    assert headers(first)["streamgen_seed"] != headers(second)["streamgen_seed"]
    assert first.value != second.value


@pytest.mark.parametrize("model", ["stream_ae", "rvae"])
def test_windows_from_the_prior(model: str) -> None:
    rig = Rig(config(model))
    rig.send(100)
    rig.learn()
    value_ND, time_N, _ = decoded(rig, answered(rig, **ASKED | {"kind": "prior", "count": 1}))
    assert value_ND.shape == (5, 3)
    assert time_N[0] == FIRST_MS + 100 * GAP_MS
    continued, _, _ = decoded(rig, answered(rig, **ASKED | {"count": 1}))
    assert value_ND.tolist() != continued.tolist()


@pytest.mark.parametrize("model", ["stream_ae full", "stream_ae task", "rvae full", "rvae task"])
def test_every_preset_and_scope_is_answered_from_as_the_learner_itself_would(model: str) -> None:
    """With what the keys share, and with a reservoir; after records that came since the checkpoint."""
    rig = Rig(config(model))
    for _ in range(2):
        rig.send(50)
        rig.send(40, "b")
    rig.learn()
    rig.send(6)
    for kind in ("continue", "prior"):
        rig.ask(**ASKED | {"kind": kind})
    turn(rig.publisher())
    assert rig.refused() == []
    led = rig.tasks[SOURCE]
    led.follow(columns_of(rig, 180))
    for n, kind in enumerate(("continue", "prior")):
        value_ND, _, _ = decoded(rig, rig.generated()[10 * n : 10 * n + 10])
        drawn_ND = led.generate("a", 5, 2, 7, kind).reshape(10, 3)  # type: ignore[arg-type]
        assert value_ND[:, 0].tolist() == drawn_ND[:, 0].tolist()
        assert headers(rig.generated()[10 * n])["streamgen_step"] == str(led.standing("a").step)


@pytest.fixture(scope="module")
def windows() -> Rig:
    rig = Rig(config("rvae"))
    rig.send(100)
    rig.learn()
    return rig


def test_what_if_keeps_the_columns_that_are_fixed(windows: Rig) -> None:
    fixed = {"disk.free": 250, "load": [0.1, None, 0.3, None, 0.5]}
    value_ND, _, _ = decoded(windows, answered(windows, **ASKED | {"kind": "what-if", "fixed": fixed}))
    assert (value_ND[:, 1] == 250).all()
    assert value_ND[[0, 2, 4], 0].tolist() == [0.1, 0.3, 0.5]
    assert len(set(value_ND[:5, 0])) == 5
    free, _, _ = decoded(windows, answered(windows, **ASKED))
    assert value_ND[:, 2].tolist() != free[:, 2].tolist() or value_ND[1, 0] != free[1, 0]


def test_imputing_fills_what_is_missing_and_nothing_else(windows: Rig) -> None:
    window = [
        value for n in range(92, 100) for value in [json.loads(windows.log.records("in")[n].value or b"")]
    ]
    window[3]["load"] = None
    del window[5]["disk"]
    request = {"kind": "impute", "key": "a", "window": window, "correlation_id": "fill"}
    value_ND, time_N, _ = decoded(windows, answered(windows, **request))
    assert time_N.tolist() == [FIRST_MS + n * GAP_MS for n in range(92, 100)]
    for t, record in enumerate(window):
        if t != 3:
            assert value_ND[t, 0] == record["load"]
        if t != 5:
            assert value_ND[t, 1] == record["disk"]["free"]
    assert 0 <= value_ND[3, 0] <= 1
    assert value_ND[5, 1] == round(value_ND[5, 1])


def test_a_fixed_value_that_no_whole_number_is_comes_out_as_it_is(windows: Rig) -> None:
    request = ASKED | {"kind": "what-if", "fixed": {"disk.free": 100.5}}
    value_ND, _, _ = decoded(windows, answered(windows, **request))
    assert (value_ND[:, 1] == 100.5).all()


# --- what is refused


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        (b"{no json", Refusal.MALFORMED, "not a request"),
        (None, Refusal.MALFORMED, "not a request"),
        (b"[1]", Refusal.MALFORMED, "Expected `object`"),
        (b'{"kind": "continue", "lenght": 3}', Refusal.MALFORMED, "lenght"),
        (b'{"kind": "continue", "length": "3"}', Refusal.MALFORMED, "length"),
        (b'{"kind": "continue", "seed": -1}', Refusal.MALFORMED, "seed is -1"),
        (b'{"kind": "what-if"}', Refusal.MALFORMED, "what-if needs `fixed`"),
        (b'{"kind": "continue", "fixed": {"load": 1}}', Refusal.MALFORMED, "no other kind has it"),
        (b'{"kind": "continu"}', Refusal.UNKNOWN_KIND, "did you mean continue"),
        (b'{"kind": "continue", "key": "never"}', Refusal.UNKNOWN_KEY, "'never'"),
        (b'{"kind": "continue"}', Refusal.UNKNOWN_KEY, "None"),
        (b'{"kind": "continue", "key": "a", "partition": 1}', Refusal.UNKNOWN_KEY, "partition 1"),
        (b'{"kind": "continue", "key": "a", "length": 0}', Refusal.BAD_LENGTH, "length is 0"),
        (b'{"kind": "continue", "key": "a", "length": 1000000000}', Refusal.BAD_LENGTH, "1 to 10000"),
        (b'{"kind": "continue", "key": "a", "length": 9000, "count": 900}', Refusal.BAD_LENGTH, "100000"),
        (b'{"kind": "continue", "key": "a", "count": 0}', Refusal.BAD_COUNT, "count is 0"),
        (b'{"kind": "impute", "key": "a", "window": [{}], "count": 2}', Refusal.BAD_COUNT, "a mean"),
        (b'{"kind": "impute", "key": "a", "window": []}', Refusal.BAD_LENGTH, "length is 0"),
        (b'{"kind": "impute", "key": "a", "window": [{"load": 1}]}', Refusal.UNSUPPORTED, "continue, prior"),
    ],
)
def test_what_cannot_be_answered_is_a_dead_letter_that_says_why(
    rig: Rig, value: bytes | None, reason: Refusal, said: str
) -> None:
    rig.ask_raw(value, None)
    rig.ask(**ASKED)
    turn(rig.publisher())
    (letter,) = rig.log.records("in.generate.dlq")
    found = dict(letter.headers)
    assert letter.value == value
    assert found["__streams.errors.exception"] == reason.encode()
    assert said in found["__streams.errors.message"].decode()
    assert (found["__streams.errors.topic"], found["__streams.errors.offset"]) == (b"in.generate", b"0")
    assert len(rig.generated()) == 10  # the next one is answered
    assert rig.log.committed["streamgen-generate"] == {rig.log.partitions("in.generate")[0]: 2}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"kind": "what-if", "fixed": {"lod": 1}}, Refusal.UNKNOWN_COLUMN),
        ({"kind": "what-if", "fixed": {"load": [1, 2]}}, Refusal.BAD_LENGTH),
        ({"kind": "what-if", "fixed": {"load": "1"}}, Refusal.BAD_VALUE),
        ({"kind": "what-if", "fixed": {"load": 1e301}}, Refusal.BAD_VALUE),
        ({"kind": "what-if", "fixed": {}}, Refusal.BAD_VALUE),
        ({"kind": "impute", "window": [{"load": None}, {}, {}, {}, {}]}, Refusal.BAD_VALUE),
        ({"kind": "impute", "window": [1, 2, 3, 4, 5]}, Refusal.BAD_VALUE),
        ({"kind": "impute", "window": [{"load": 1}] * 4}, Refusal.BAD_LENGTH),
    ],
)
def test_wrong_columns_and_values_are_named(windows: Rig, request_: dict[str, Any], reason: Refusal) -> None:
    before = len(windows.refused())
    assert answered(windows, **ASKED | {"count": 1} | request_) == []
    (letter,) = windows.refused()[before:]
    assert letter["__streams.errors.exception"] == reason.encode()
    assert letter["streamgen_correlation_id"] == b"id-1"


def test_a_model_that_only_detects_says_so() -> None:
    rig = Rig(config("river"))
    rig.send(60)
    rig.learn()
    assert answered(rig, **ASKED) == []
    assert rig.refused()[0]["__streams.errors.message"] == (
        b"the model river gives no continue sequences, but none: it only detects"
    )


@pytest.mark.parametrize(("min_records", "has_learner"), [(4, False), (3, True), (1, True)])
def test_a_key_with_too_few_records_is_unknown(min_records: int, has_learner: bool) -> None:
    rig = Rig(config(min_records=min_records))
    rig.send(20, "b")
    rig.send(3)
    rig.learn()
    found = answered(rig, **ASKED)
    assert len(found) == (10 if has_learner else 0)
    assert [one["__streams.errors.exception"] for one in rig.refused()] == [b"unknown_key"] * (
        not has_learner
    )
    rig.send(1)  # its fourth: it has a learner with the next checkpoint
    assert len(answered(rig, **ASKED)) == (10 if has_learner else 0)
    rig.learn()
    assert len(answered(rig, **ASKED)) == 10


def test_a_key_in_two_partitions_must_be_named_with_its_partition(rig: Rig) -> None:
    rig.send(50, "a", 1)
    rig.learn(OTHER)
    assert answered(rig, **ASKED) == []
    assert rig.refused()[0]["__streams.errors.exception"] == b"ambiguous_key"
    assert len(answered(rig, **ASKED | {"partition": 1})) == 10
    assert len(rig.log.records("in.generated", 1)) == 10


def test_without_a_checkpoint_there_is_nothing_to_answer_from() -> None:
    rig = Rig(config())
    rig.send(20)
    assert answered(rig, **ASKED) == []
    assert rig.refused()[0]["__streams.errors.exception"] == b"no_state"
    rig.learn()
    assert len(answered(rig, **ASKED)) == 10


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fields": {"unheard_of": np.zeros(2)}}, "unheard_of differ"),
        ({"input": {"unheard_of": 1}}, "configuration is of another version (unheard_of"),
    ],
)
def test_a_state_of_another_version_stops_no_other_partition(
    rig: Rig, changed: dict[str, Any], said: str
) -> None:
    rig.send(50, "c", 1)
    rig.learn(OTHER)
    found = rig.store.peek(OTHER)
    assert found is not None
    manifest = replace(found.manifest, input={**found.manifest.input, **changed.get("input", {})})
    learner = LearnerState("c", {**found.learners["c"], **changed.get("fields", {})})
    claim = rig.store.claim(OTHER)
    claim.read(-1)
    claim.write(manifest, [learner], ())
    publishing = rig.publisher()
    for key in "cac":
        rig.ask(**ASKED | {"key": key})
    turn(publishing)
    assert [one["__streams.errors.exception"] for one in rig.refused()] == [b"no_state"] * 2
    assert said in rig.refused()[0]["__streams.errors.message"].decode()
    assert {record.key for record in rig.generated()} == {b"a"}
    rig.send(1, "c", 1)
    rig.learn(OTHER)
    rig.ask(**ASKED | {"key": "c"})
    turn(publishing)
    assert {record.key for record in rig.generated()} == {b"a", b"c"}


def test_a_state_that_is_too_far_behind_is_not_used(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MOST_BEHIND", 20)
    publishing = rig.publisher()
    turn(publishing)
    rig.send(30)
    rig.ask(**ASKED)
    turn(publishing)
    assert rig.refused()[0]["__streams.errors.exception"] == b"state_too_old"
    rig.learn()
    rig.ask(**ASKED)
    turn(publishing)
    assert len(rig.generated()) == 10


@pytest.mark.parametrize("already_read", [False, True])
def test_records_that_retention_took_before_they_were_read_are_not_passed_over(
    rig: Rig, already_read: bool
) -> None:
    publishing = rig.publisher()
    if already_read:
        turn(publishing)
    rig.send(30)
    rig.log.expire(SOURCE, 110)
    rig.ask(**ASKED)
    turn(publishing)
    assert rig.refused()[0]["__streams.errors.exception"] == b"state_too_old"
    assert b"removed by retention" in rig.refused()[0]["__streams.errors.message"]
    rig.learn_from(110)
    rig.ask(**ASKED)
    turn(publishing)
    assert len(rig.generated()) == 10


def test_an_end_that_runs_away_is_not_run_after(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that gets more than one poll brings, all the time."""
    publishing = rig.publisher()
    poll = MemoryTail.poll

    def growing(tail: MemoryTail, timeout_s: float = 0.0) -> Grown:
        rig.send(2 * tail._most)
        return poll(tail, timeout_s)

    monkeypatch.setattr(MemoryTail, "poll", growing)
    rig.ask(**ASKED)
    turn(publishing)
    assert len(rig.generated()) == 10


@pytest.mark.parametrize("what", ["begin", "position", "end"])
def test_an_input_that_is_not_readable_holds_up_no_others_requests(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    rig.send(100, "c", partition=1)
    rig.learn(OTHER)
    asked, dark = getattr(MemoryTail, what), True

    def maybe(tail: MemoryTail, source: TopicPartition, *given: int) -> Any:
        if dark and source == OTHER:
            raise BrokerUnavailable("no leader")
        return asked(tail, source, *given)

    monkeypatch.setattr(MemoryTail, what, maybe)
    publishing = rig.publisher()
    for number, key in enumerate("cac"):
        rig.ask(to=0, **ASKED | {"key": key, "correlation_id": f"0-{number}"})
    for number in range(2):
        rig.ask(to=1, **ASKED | {"correlation_id": f"1-{number}"})
    turn(publishing, 10)

    def ids() -> list[str]:
        return list(dict.fromkeys(headers(record)["streamgen_correlation_id"] for record in rig.generated()))

    assert ids() == ["1-0", "1-1"]
    dark = False
    rig.clock.sleep(answering.LOOK_S)
    turn(publishing, 10)
    assert sorted(ids()) == ["0-0", "0-1", "0-2", "1-0", "1-1"]
    assert len(rig.generated()) == 50
    assert rig.refused() == []


def test_many_requests_that_wait_stop_no_other_partitions_from_being_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_QUEUED", 5)
    rig.send(100, "c", partition=1)
    rig.learn(OTHER)
    end = MemoryTail.end

    def dark(tail: MemoryTail, source: TopicPartition) -> int:
        if source == OTHER:
            raise BrokerUnavailable("no leader")
        return end(tail, source)

    monkeypatch.setattr(MemoryTail, "end", dark)
    publishing = rig.publisher()
    for _ in range(20):
        rig.ask(to=0, **ASKED | {"key": "c"})
    turn(publishing, 5)
    for number in range(8):
        rig.ask(to=1, **ASKED | {"correlation_id": f"1-{number}"})
    turn(publishing, 10)
    answered = {headers(record)["streamgen_correlation_id"] for record in rig.generated()}
    assert answered == {f"1-{number}" for number in range(8)}
    monkeypatch.undo()
    rig.clock.sleep(answering.LOOK_S)
    turn(publishing, 30)
    assert len(rig.generated()) == 28 * 2 * 5


def test_slow_answers_are_given_in_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn may have time for one answer alone: the partitions' first requests come one after the other."""
    rig.send(100, "c", partition=1)
    rig.learn(OTHER)
    publishing = rig.publisher()
    drawn = publishing._drawn

    def slowly(draw: Any) -> Any:
        rig.clock.sleep(2 * answering.TURN_S)
        return drawn(draw)

    monkeypatch.setattr(publishing, "_drawn", slowly)
    for number in range(3):
        rig.ask(to=0, **ASKED | {"correlation_id": f"0-{number}"})
        rig.ask(to=1, **ASKED | {"key": "c", "correlation_id": f"1-{number}"})
    order: list[str] = []
    for _ in range(12):
        turn(publishing, 1)
        now = {headers(one)["streamgen_correlation_id"] for one in rig.generated()}
        order += sorted(now - set(order))
    assert sorted(order) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert [one[0] for one in order] in (["0", "1"] * 3, ["1", "0"] * 3)


def test_who_draws_for_long_stays_in_the_group(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = rig.transport()
    publishing = rig.publisher(transport)
    turn(publishing)
    monkeypatch.setattr(answering, "BEAT_S", 0.01)
    generate, poll = Task.generate, transport.poll
    may_end, polls = Event(), 0

    def slow(*arguments: Any) -> Any:
        assert may_end.wait(60)
        return generate(*arguments)

    def counted(*arguments: Any) -> Any:
        nonlocal polls
        polls += 1
        if polls > 5:
            may_end.set()
        return poll(*arguments)

    monkeypatch.setattr(Task, "generate", slow)
    monkeypatch.setattr(transport, "poll", counted)
    rig.ask(**ASKED)
    turn(publishing)
    assert len(rig.generated()) == 10


def test_what_is_lost_while_it_is_drawn_is_another_publishers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = rig.transport()
    publishing = rig.publisher(transport)
    turn(publishing)
    monkeypatch.setattr(answering, "BEAT_S", 0.01)
    generate, poll = Task.generate, transport.poll
    polled = Event()

    def losing(*arguments: Any) -> Any:
        transport.lose(*rig.log.partitions("in.generate"))
        assert polled.wait(60)
        return generate(*arguments)

    def noticed(*arguments: Any) -> Any:
        came = poll(*arguments)
        if came.lost:
            polled.set()
        return came

    monkeypatch.setattr(Task, "generate", losing)
    monkeypatch.setattr(transport, "poll", noticed)
    rig.ask(**ASKED)
    turn(publishing)
    assert rig.generated() == []
    monkeypatch.setattr(Task, "generate", generate)
    transport.assign(*rig.log.partitions("in.generate"))
    turn(publishing)
    assert len(rig.generated()) == 10


def test_a_model_that_fails_stops_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing = rig.publisher()
    with monkeypatch.context() as patched:
        patched.setattr("streamgen.learners.task.Task.generate", lambda *_: 1 / 0)
        rig.ask(**ASKED)
        turn(publishing)
    rig.ask(**ASKED)
    turn(publishing)
    assert rig.refused()[0]["__streams.errors.message"].startswith(b"the model failed: ZeroDivisionError")
    assert len(rig.generated()) == 10


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_request_that_memory_does_not_take_stops_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    generate = Task.generate

    def small(task: Task, key: str | None, length: int, *rest: Any) -> Any:
        if length > 5:
            raise error
        return generate(task, key, length, *rest)

    monkeypatch.setattr(Task, "generate", small)
    rig.ask(**ASKED | {"length": 50})
    rig.ask(**ASKED)
    turn(rig.publisher())
    assert rig.refused()[0]["__streams.errors.exception"] == b"too_large"
    assert len(rig.generated()) == 10


def test_many_columns_allow_fewer_records(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_VALUES", 30)
    assert answered(rig, **ASKED | {"length": 6}) == []
    (letter,) = rig.refused()
    assert letter["__streams.errors.exception"] == b"too_large"
    assert letter["__streams.errors.message"].startswith(
        b"length times count times 3 columns is 36; allowed: at most 30"
    )
    assert len(answered(rig, **ASKED)) == 10


def test_a_key_that_was_silent_for_too_long_is_unknown() -> None:
    rig = Rig(config(key_ttl="1h"))
    rig.send(50)
    rig.learn()
    rig.send(70, "b")
    assert answered(rig, **ASKED) == []
    assert b"silent" in rig.refused()[0]["__streams.errors.message"]


def test_a_key_whose_clock_was_set_back_is_not_silent() -> None:
    """Whether it is silent is told by its newest event time, wherever its clock stands."""
    rig = Rig(config(key_ttl="1h", window={"length": 8, "restart_after": 10}))
    rig.send(50)
    rig.n += 500
    rig.send(1)  # hours ahead, by mistake
    rig.n -= 500
    rig.send(100)
    rig.learn()
    rig.send(3)
    assert len(answered(rig, **ASKED)) == 10


def test_a_topic_that_was_made_again_has_no_state(rig: Rig) -> None:
    rig.log.delete_topic("in")
    rig.log.create_topic("in", 2)
    assert answered(rig, **ASKED) == []
    assert rig.refused()[0]["__streams.errors.exception"] == b"no_state"


# --- how often


@pytest.mark.parametrize("fault", [Fault.ABORT, Fault.UNKNOWN_COMMITTED, Fault.UNKNOWN_LOST, Fault.FENCED])
def test_every_request_is_answered_once_whatever_happens_to_a_commit(rig: Rig, fault: Fault) -> None:
    transport = rig.transport()
    transport.inject(None, fault)
    publishing = rig.publisher(transport)
    for n in range(4):
        rig.ask(**ASKED | {"correlation_id": str(n)})
        rig.ask_raw(b"{")
        turn(publishing)
    ids = [headers(record)["streamgen_correlation_id"] for record in rig.generated()]
    assert ids == [str(n) for n in range(4) for _ in range(10)]
    assert len(rig.refused()) == 4


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
def test_a_crash_loses_and_doubles_no_answer(rig: Rig, fault: Fault) -> None:
    transport = rig.transport()
    transport.inject(None, fault)
    publishing = rig.publisher(transport)
    for n in range(3):
        rig.ask(**ASKED | {"correlation_id": str(n)})
        if n == 1:
            with pytest.raises(Crash):
                turn(publishing)
            publishing = rig.publisher()
        turn(publishing)
    ids = [headers(record)["streamgen_correlation_id"] for record in rig.generated()]
    assert ids == [str(n) for n in range(3) for _ in range(10)]


def test_many_requests_go_in_several_transactions(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_PENDING", 25)
    monkeypatch.setattr(answering, "MAX_QUEUED", 3)
    transport = rig.transport()
    publishing = rig.publisher(transport)
    for n in range(12):
        rig.ask(**ASKED | {"correlation_id": str(n)})
    turn(publishing, 30)
    assert transport.published == 4
    ids = [headers(record)["streamgen_correlation_id"] for record in rig.generated()]
    assert ids == [str(n) for n in range(12) for _ in range(10)]


def test_what_is_lost_is_another_publishers(rig: Rig) -> None:
    transport = rig.transport()
    publishing = rig.publisher(transport)
    turn(publishing)
    transport.lose(*rig.log.partitions("in.generate"))
    rig.ask(**ASKED)
    publishing.turn()
    assert rig.generated() == []
    transport.assign(*rig.log.partitions("in.generate"))
    turn(publishing)
    assert len(rig.generated()) == 10


# --- at a rate


def test_sequences_come_at_a_rate() -> None:
    rig = Rig(config(generate={"every": "10s", "length": 4, "count": 2}))
    for key in ("a", "b"):
        rig.send(40, key)
    rig.learn()
    publishing = rig.publisher()
    turn(publishing)
    assert rig.generated() == []
    seen = []
    for _ in range(3):
        rig.wall += 10
        turn(publishing)
        seen.append(len(rig.generated()))
    assert seen == [16, 32, 48]
    assert {record.key for record in rig.generated()} == {b"a", b"b"}
    first = headers(rig.generated()[0])
    assert "streamgen_correlation_id" not in first
    assert first["streamgen_seed"] == "101"
    assert len({record.value for record in rig.generated()}) > 40  # another seed each time
    decoded(rig, rig.generated())


def test_only_the_keys_that_are_named_and_have_a_learner() -> None:
    rig = Rig(config(generate={"every": "10s", "length": 2, "keys": ["b", "none"]}))
    for key in ("a", "b"):
        rig.send(40, key)
    rig.learn()
    publishing = rig.publisher()
    turn(publishing)
    rig.wall += 10
    turn(publishing)
    assert [record.key for record in rig.generated()] == [b"b"] * 2


def test_what_was_lined_up_and_is_anothers_now_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(config(generate={"every": "10s", "length": 2}))
    rig.send(40)
    rig.learn()
    transport = rig.transport()
    publishing = rig.publisher(transport)
    turn(publishing)
    rig.wall += 10
    publishing._rates.turn(rig.source, rig.wall, publishing.followed, publishing._owned)
    assert publishing._rates.line
    transport.lose(*rig.log.partitions("in.generate"))
    turn(publishing)
    assert rig.generated() == []
    assert not publishing._rates.line


# --- metrics


def test_what_is_counted(rig: Rig) -> None:
    def value(name: str, **labels: str) -> float | None:
        return rig.metrics.registry.get_sample_value(name, labels)

    rig.send(4)
    rig.ask(**ASKED)
    rig.ask(kind="continue", key="never")
    rig.ask_raw(b"{")
    turn(rig.publisher())
    assert value("streamgen_generate_requests_total", topic="in", kind="continue") == 2
    assert value("streamgen_generate_requests_total", topic="in", kind="other") == 1
    assert value("streamgen_generate_errors_total", topic="in", reason="unknown_key") == 1
    assert value("streamgen_sequences_published_total", topic="in", kind="continue") == 2
    assert value("streamgen_generate_seconds_count", topic="in") == 3
    assert value("streamgen_generate_behind_records", topic="in", partition="0") == 4
    assert value("streamgen_generate_state_age_seconds", topic="in", partition="0") is not None
