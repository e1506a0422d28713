"""What a model that learns online is. Every registered one passes `tests/conformance/test_models.py`.

N records, D features. A model keeps no state of its own: all of it is in the slab's rows, so that what a
learner knows is a function of its own records alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from streamgen.errors import InputError
from streamgen.models.likelihood import Likelihood
from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats, Ints
from streamgen.windows import Ticks

# Sequences that go on from the learner's newest record; that the stream could have had, whatever came before;
# a window with its missing values filled; and that go on while some values are fixed.
Kind = Literal["continue", "prior", "impute", "what-if"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Learner:
    """Whose row it is: the name that keys its noise."""

    seed: int
    topic: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model says of N records, each before it learned from it.

    `surprise_NS` is what calibration ranks: S questions asked of each record (higher is stranger; NaN: no
    opinion yet). `nll_N` is the negative log-likelihood in nats of steps δ (`scale`), NaN for a model that
    has none; `log_step_N` is the sum of log δ over the values that it judges: the two together are in nats of
    the input's own units. `expected_ND`, and the central 90 % interval
    `low_ND`–`high_ND`, are in input units. `contribution_ND` adds up to `nll_N` (to the first surprise
    where there is no likelihood). `step_N` counts the learner's updates before the record. `loss` and
    `seconds` have one entry for each update of this call; `skipped` names the rows whose update was left
    out for a loss or gradient that is not finite.
    """

    surprise_NS: Floats
    nll_N: Floats
    log_step_N: Floats
    expected_ND: Floats
    low_ND: Floats
    high_ND: Floats
    contribution_ND: Floats
    step_N: Ints
    loss: list[float]
    seconds: list[float]
    skipped: list[int]

    @classmethod
    def empty(cls, N: int, D: int, S: int) -> Scores:
        """Scores of N records that say nothing yet."""
        nan_ND = np.full((N, D), np.nan)
        return cls(
            surprise_NS=np.full((N, S), np.nan),
            nll_N=np.full(N, np.nan),
            log_step_N=np.full(N, np.nan),
            expected_ND=nan_ND,
            low_ND=nan_ND.copy(),
            high_ND=nan_ND.copy(),
            contribution_ND=np.zeros((N, D)),
            step_N=np.zeros(N, dtype=np.int64),
            loss=[],
            seconds=[],
            skipped=[],
        )


# Whether record n, of which the scores are written, is anomalous: asked once for each record, in their order.
Heed = Callable[[Scores, int], bool]


class OnlineModel(Protocol):
    """Scores a batch of records and learns from them, one learner's records in their order."""

    name: str
    cautious: bool  # it asks `heed` before it learns from a record (`caution`)
    kinds: tuple[Kind, ...]  # of sequences that it gives; none: it only detects
    surprises: int  # S

    def fields(self) -> Mapping[str, Field]:
        """A learner's state."""

    def start(self, slab: Slab, row: int, learner: Learner) -> None:
        """Give a new row its initial state: a function of the learner's name and the configuration."""

    def run(
        self,
        slab: Slab,
        row_N: Ints,
        value_ND: Floats,
        ticks: Ticks,
        learners: Sequence[Learner],
        learn: bool = True,
        heed: Heed | None = None,
    ) -> Scores:
        """Score each record, then learn from it. A late record is scored and changes nothing.

        `heed` is given to a cautious model: it says which records to learn from with caution.
        `learners[row]` names a row. The split of records into calls changes no bit of any result. Without
        `learn` no update is made and nothing is kept to learn from later: carried state, scales and open
        window move over the records, weights and what belongs to them stay.
        """

    def collect(self, slab: Slab, row: int) -> None:
        """Write into the row whatever the model keeps of it elsewhere, before the row is copied."""

    def adopt(self, slab: Slab, row: int, learner: Learner) -> None:
        """Take up a row that was loaded: undo of `collect`."""

    def release(self, slab: Slab, row: int) -> None:
        """The learner leaves the row: forget whatever the model keeps of it elsewhere. The row is then
        another learner's, given by `start` or `adopt`."""

    def generate(
        self,
        slab: Slab,
        row: int,
        learner: Learner,
        length: int,
        count: int,
        seed: int,
        kind: Kind = "continue",
        given_TD: Floats | None = None,
    ) -> Floats:
        """[count, length, D] sequences of one of the model's `kinds`, in input units; nothing is changed.

        `given_TD` [length, D] has the values that are known (impute) or fixed (what-if), NaN elsewhere; they
        come out as they are. What is imputed is a mean, so there is one such sequence. The window that is
        imputed ends at the learner's newest record; all else is of the times that follow it at the key's
        usual step. Raises `InputError` for another kind.
        """

    def likelihood(
        self, slab: Slab, row: int, learner: Learner, value_ND: Floats, ticks: Ticks, draws: int, seed: int
    ) -> Likelihood:
        """How likely the learner finds records that follow its newest one, which it does not learn from: see
        `likelihood`. Bounds are from so many `draws` of the latent. Nothing is changed. Raises `InputError`
        for a model that has no likelihood.
        """


def seen(value_ND: Floats) -> Bools:
    """Which values are there."""
    return ~np.isnan(value_ND)


def check_kind(model: OnlineModel, kind: Kind) -> None:
    """Raises `InputError` when the model gives no sequences of that kind."""
    if kind not in model.kinds:
        can = f"it gives {', '.join(model.kinds)}" if model.kinds else "it only detects"
        raise InputError(f"The model {model.name} gives no sequences of the kind {kind}: {can}.")
