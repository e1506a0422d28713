"""What the demo says about a run, on scores made by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from consumers.demo.judgement import Delivery, Judgement, Score, Source, delivery, judge, openings
from producers.data import Incident

HOUR_MS = 3_600_000
CLOSE_AFTER = 3


def scores(pattern: str) -> list[Score]:
    """One record an hour: `!` an anomaly, `.` none, `w` in warm-up, `l` late."""
    return [
        Score(
            key="k",
            timestamp=datetime.fromtimestamp(n * 3600, UTC),
            score=0.9 if kind == "!" else 0.1,
            threshold=0.5,
            is_anomaly=kind == "!",
            warming_up=kind == "w",
            late=kind == "l",
            expected={"value": 1.0},
            interval={"value": (0.0, 2.0)},
            source=Source("series", 0, n),
        )
        for n, kind in enumerate(pattern)
    ]


def window(first: int, last: int) -> Incident:
    return Incident(first * HOUR_MS, last * HOUR_MS, None)


def judged(pattern: str, *incidents: Incident) -> Judgement:
    return judge(incidents, scores(pattern), CLOSE_AFTER)


@pytest.mark.parametrize(
    ("pattern", "outcome", "first"),
    [
        ("ww......!!......", "caught", 8),
        ("ww....!.........", "caught", 6),  # both ends of the window belong to it
        ("ww........!.....", "caught", 10),
        ("ww...!..........", "missed", None),
        ("ww.........!....", "missed", None),
        ("ww....", "not reached", None),
        ("ww.....", "missed", None),  # reached, if only by its first record
        ("wwwwwwwwwwwwww!!", "not reached", None),  # over before anything was judged
        ("", "not reached", None),
    ],
)
def test_an_incident_is_caught_by_an_anomaly_in_its_window(
    pattern: str, outcome: str, first: int | None
) -> None:
    (finding,) = judged(pattern, window(6, 10)).findings
    assert finding.outcome == outcome
    assert (None if finding.first is None else finding.first.source.offset) == first


def test_incidents_are_counted_among_those_that_were_reached() -> None:
    judgement = judged("w....!....", window(4, 6), window(7, 8), window(50, 60))
    assert (judgement.caught, judgement.reached, len(judgement.findings)) == (1, 2, 3)
    assert "1 of 2 incidents caught (1 not reached)" in str(judgement)


@pytest.mark.parametrize(
    ("pattern", "false_alarms"),
    [
        ("w..........", 0),
        ("w.!........", 1),
        ("w.!.!..!...", 1),  # never three quiet records: one episode
        ("w!.......!..", 2),
        ("w....!!....", 0),  # opens in the window
        ("w...!!!....", 1),  # opens before it, though it goes on in it
        ("w.....!..!.", 0),  # opened in the window, still open after it
        ("w.....!...!", 1),
    ],
)
def test_an_episode_that_opens_outside_every_window_is_a_false_alarm(pattern: str, false_alarms: int) -> None:
    assert judged(pattern, window(5, 6)).false_alarms == false_alarms


def test_a_late_record_neither_opens_nor_quiets_an_episode() -> None:
    assert [one.source.offset for one in openings(scores("!ll.l.!...!"), CLOSE_AFTER)] == [0, 10]


def test_false_alarms_are_told_by_the_day_of_judged_event_time() -> None:
    judgement = judged("w" * 24 + "!" + "." * 23 + "!" + "." * 24)
    assert judgement.false_alarms == 2
    assert judgement.days == 2.0
    assert judgement.false_alarms_per_day == 1.0


def test_nothing_judged_is_no_division_by_zero() -> None:
    assert judged("www").false_alarms_per_day == 0.0
    assert str(judged("www")).startswith("still warming up")


def test_each_record_once() -> None:
    ends = {0: 3, 1: 2}
    found = delivery(ends, [(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 2)])
    assert found == Delivery(written=5, scored=4, dead_lettered=1, missing=0, repeated=0, foreign=0)
    assert found.exactly_once


@pytest.mark.parametrize(
    ("scored", "dead", "missing", "repeated", "foreign"),
    [
        ([(0, 0), (0, 1)], [], 1, 0, 0),
        ([(0, 0), (0, 1), (0, 2), (0, 1)], [], 0, 1, 0),
        ([(0, 0), (0, 1), (0, 2)], [(0, 2)], 0, 1, 0),  # scored and dead-lettered
        ([(0, 0), (0, 1), (0, 1)], [], 1, 1, 0),  # the counts alone would look right
        ([(0, 0), (0, 1), (0, 2), (0, 3)], [], 0, 0, 1),
        ([(0, 0), (0, 1), (1, 2)], [], 1, 0, 1),
    ],
)
def test_what_is_not_once_is_told(
    scored: list[tuple[int, int]], dead: list[tuple[int, int]], missing: int, repeated: int, foreign: int
) -> None:
    found = delivery({0: 3}, scored, dead)
    assert (found.missing, found.repeated, found.foreign) == (missing, repeated, foreign)
    assert not found.exactly_once


def test_a_record_of_the_scores_topic_is_read() -> None:
    body = {
        "key": "k", "timestamp": "2014-11-02T01:00:00.250Z", "score": 0.7, "p_value": 1e-6, "nll": 3.0,
        "is_anomaly": True, "threshold": 0.5, "warming_up": False, "late": False, "expected": {"a.b": None},
        "interval": {"a.b": [None, 2.0]}, "contributions": {"a.b": 3.0}, "imputed": [], "model": "m",
        "step": 1, "source": {"topic": "t", "partition": 3, "offset": 7},
    }  # fmt: skip
    read = msgspec.json.decode(msgspec.json.encode(body), type=Score)
    assert read.time_ms == 1_414_890_000_250
    assert read.place == (3, 7)
    assert read.interval == {"a.b": (None, 2.0)}
