"""The whole of it: choices are tried until all are or the time is up, and what came of them is judged."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamgen.errors import ConfigError, InputError
from streamgen.tuning.effects import best, winners
from streamgen.tuning.factors import Choice, Factor, Search, Subject, as_it_is, settings_of
from streamgen.tuning.study import Report, Study, Tried
from streamgen.tuning.trial import Trial


@dataclass(frozen=True, slots=True)
class Outcome:
    """`tried` begins with what there is. `complete`: nothing is left to try."""

    tried: list[Tried]
    best: Tried
    complete: bool


def compare(
    study: Study,
    trial: Trial,
    choices: Iterable[Choice],
    subject: Subject,
    factors: Sequence[Factor],
    search: Search,
    seeds: int,
    seconds: float,
    report: Report,
) -> Outcome:
    """Go on with a study for so many seconds. Raises `InputError` when there is not even time for the
    settings as they are."""
    deadline = time.monotonic() + seconds

    def run(some: Iterable[Choice]) -> bool:
        return study.run(trial, some, lambda choice: settings_of(factors, choice), seeds, deadline, report)

    complete = run(choices)
    tried = study.tried()
    if not tried or tried[0].choice != as_it_is(factors):
        raise InputError(
            "The time was over before the settings as they are had been through the data once: give more of "
            "it (--budget), or fewer records (--records) or seeds (--seeds)."
        )
    if search == "one" and complete:
        # The winners do not add up: a setting may be good only where another is as it was. So each of them is
        # added to what is best, and stays where that is better still.
        better = winners(factors, tried[0], tried)
        chosen = _of(tried, {**tried[0].choice, **better[0]}) if better else tried[0]
        for winner in better[1:]:
            more = {**chosen.choice, **winner}
            if not _can_be(subject, factors, more):
                continue
            complete = run([more])
            tried = study.tried()
            if not complete:
                break
            added = _of(tried, more)
            chosen = best(chosen, [added])
    return Outcome(tried, best(tried[0], tried), complete)


def _of(tried: Iterable[Tried], choice: Choice) -> Tried:
    return next(one for one in tried if one.choice == choice)


def _can_be(subject: Subject, factors: Sequence[Factor], choice: Choice) -> bool:
    try:
        subject.applied(settings_of(factors, choice), reduce=True)
    except ConfigError:
        return False
    return True
