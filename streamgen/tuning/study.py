"""Which choices are tried, in what time, and what is kept of them: an Optuna study in a file.

Every choice is one trial of the study: all seeds go through the data side by side, and their mean is what is
compared. A trial that is done is in the file, so a study that was killed goes on with what it has; the trial
that was under way begins again. One that has failed is in the file as such, and is not tried again.

With `halving` a choice that is not among the best third after a ninth, or a third, of the data is given up
(successive halving, asynchronous: Li et al. 2020).
"""

from __future__ import annotations

import fcntl
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamgen.errors import InputError, MissingDependency, StateError
from streamgen.records import Floats
from streamgen.tuning.factors import Choice, Search
from streamgen.tuning.trial import PARTS, Failed, Point, Trial

FILE, LOCK = "study.db", "study.lock"
_THIRD = 3  # of the trials goes on, at a ninth and at a third of the data

Report = Callable[[str], None]  # is told what is tried now


@dataclass(frozen=True, slots=True)
class Tried:
    """A choice, its curve for each seed ([S, points]; fewer points where it was given up or has failed), CPU
    seconds of a pass, whether it is through, and else what has failed, if something has."""

    choice: Choice
    curve_SP: Floats
    seconds: float
    whole: bool = True
    failure: str | None = None

    @property
    def score_S(self) -> Floats:
        """The last score of each seed that is known."""
        return np.asarray(self.curve_SP[:, -1])

    @property
    def score(self) -> float:
        """Mean over the seeds; of what has failed none is worse."""
        return math.inf if self.failure else float(self.score_S.mean())


class _TimeIsUp(Exception):
    pass


class Study:
    """The study in a folder, begun or gone on with; to be closed.

    Raises `StateError` for a folder in which another process is at work, or whose file is no study,
    `InputError` for one that cannot be written, and `MissingDependency` without Optuna.
    """

    def __init__(self, folder: Path, search: Search) -> None:
        try:
            import optuna
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError:
            raise MissingDependency(
                "Tuning needs the package optuna: pip install 'streamgen-kafka[tune]'."
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self._optuna = folder, optuna
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / LOCK).open("wb")
        except OSError as error:
            raise InputError(f"Cannot write {folder}: {error.strerror or error}.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise StateError(f"Another process works on the study in {folder}: wait for its end.") from None
        path = folder / FILE
        try:
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        except (SQLAlchemyError, RuntimeError) as error:
            self._lock.close()
            raise StateError(
                f"{path} cannot be used as a study ({type(error).__name__}): choose another folder."
            ) from None
        halving = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=PARTS // _THIRD**2, reduction_factor=_THIRD, min_early_stopping_rate=0
        )
        self._study = optuna.create_study(
            study_name="tune",
            storage=self._storage,
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=0),  # draws nothing: every trial is given
            pruner=halving if search == "halving" else optuna.pruners.NopPruner(),
        )
        for one in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            self._study.tell(one.number, state=optuna.trial.TrialState.FAIL)  # it was killed

    @property
    def facts(self) -> dict[str, Any] | None:
        """What is compared over which data; None: nobody has said so yet."""
        facts: dict[str, Any] | None = self._study.user_attrs.get("facts")
        return facts

    def agree(self, facts: Mapping[str, Any]) -> None:
        """What is to be compared now. Raises `StateError` for another than what the study was begun with."""
        now, kept = json.loads(json.dumps(dict(facts))), self.facts
        if kept is None:
            self._study.set_user_attr("facts", now)
        elif now != kept:
            differing = sorted(key for key in kept.keys() | now.keys() if kept.get(key) != now.get(key))
            raise StateError(
                f"{self.folder} has a study with other {' and '.join(differing)}: go on with it as it was "
                "begun, or choose another folder."
            )

    def tried(self) -> list[Tried]:
        """What is known, in the order in which it was tried."""
        states = (self._optuna.trial.TrialState.COMPLETE, self._optuna.trial.TrialState.PRUNED)
        return [
            Tried(
                dict(one.user_attrs["choice"]),
                np.array(one.user_attrs["curves"], dtype=np.float64),
                float(one.user_attrs["seconds"]),
                one.state == self._optuna.trial.TrialState.COMPLETE,
                one.user_attrs.get("failure"),
            )
            for one in self._study.get_trials(deepcopy=False, states=states)
        ]

    def run(
        self,
        trial: Trial,
        choices: Iterable[Choice],
        settings_of: Callable[[Choice], Mapping[str, Any]],
        seeds: int,
        deadline: float,
        report: Report,
    ) -> bool:
        """Try those that were not tried; whether all were before `deadline` (`time.monotonic`).

        A call that goes on finishes the first that it begins: or a slow one would be begun by every call, and
        what is behind it never."""
        known = {_key(one.choice) for one in self.tried()}
        finished = not known
        for choice in choices:
            if _key(choice) in known:
                continue
            if time.monotonic() >= deadline:
                return False
            report(_text(settings_of(choice)))
            try:
                self._try(trial, choice, settings_of(choice), seeds, deadline if finished else math.inf)
            except _TimeIsUp:
                return False
            known.add(_key(choice))
            finished = True
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._lock.close()

    def _try(
        self, trial: Trial, choice: Choice, settings: Mapping[str, Any], seeds: int, deadline: float
    ) -> None:
        one = self._study.ask()
        one.set_user_attr("choice", dict(choice))
        passes = [trial(settings, seed) for seed in range(seeds)]
        points: list[list[Point]] = []
        pruned, failure = False, None
        try:
            for part in range(trial.points):
                points.append([_next(one_pass, deadline) for one_pass in passes])
                mean = sum(point.score for point in points[-1]) / seeds
                if not math.isnan(mean):
                    one.report(mean, (part + 1) * PARTS // trial.points)
                    pruned = part + 1 < trial.points and one.should_prune()
                if pruned:
                    break
            for one_pass in passes:  # nothing is left but what the pass has to say of itself
                next(one_pass, None)
        except Failed as error:  # the choice is known to be bad
            failure = str(error)
            one.set_user_attr("failure", failure)
        except BaseException:
            self._study.tell(one, state=self._optuna.trial.TrialState.FAIL)
            raise
        curves = [[part[seed].score for part in points] for seed in range(seeds)]
        one.set_user_attr("curves", curves)
        seconds = sum(point.seconds for point in points[-1]) / seeds if points else 0.0
        one.set_user_attr("seconds", seconds)
        if pruned or failure is not None:
            self._study.tell(one, state=self._optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(one, mean)


def _next(one_pass: Iterator[Point | None], deadline: float) -> Point:
    for point in one_pass:
        if point is not None:
            return point
        if time.monotonic() >= deadline:
            raise _TimeIsUp
    raise AssertionError("a trial has fewer points than it promised")


def _key(choice: Choice) -> str:
    return json.dumps(dict(choice), sort_keys=True)


def _text(settings: Mapping[str, Any]) -> str:
    shown = (f"{key} {'null' if value is None else value}" for key, value in settings.items())
    return ", ".join(shown) or "as it is"
