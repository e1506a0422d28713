"""All figures at once, each beside what real windows give against real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student_t

from streamgen.errors import InputError
from streamgen.evaluation.context import context_fid
from streamgen.evaluation.judges import check_ahead, discriminative_score, predictive_score
from streamgen.evaluation.moments import (
    autocorrelation_difference,
    cross_correlation_difference,
    marginal_difference,
)
from streamgen.evaluation.neighbours import NEIGHBOURS, copied, nearest, neighbourhood
from streamgen.evaluation.windows import checked, halves, thinned
from streamgen.records import Floats, Ints

# Figures by name, of real and generated windows, with a seed.
Measure = Callable[[Floats, Floats, int], Mapping[str, float]]
HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage", "held-out ELBO")
BLOCKS = 10  # of each half of the null, at least
FEWEST = 4 * (NEIGHBOURS + 1)  # windows of each kind


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure over several seeds.

    `value` is of the generated windows, `null` of real against real, both means over the seeds. The
    difference value − null has its 95 % interval `low`–`high` (Student's t over the seeds).
    """

    name: str
    better: Literal["lower", "higher"]
    value: float
    null: float
    low: float
    high: float

    @property
    def worse_than_real(self) -> bool:
        """Whether the generated windows are told from real ones beyond what chance does."""
        return self.low > 0 if self.better == "lower" else self.high < 0


def moments(real_NTD: Floats, generated_MTD: Floats, seed: int) -> Mapping[str, float]:
    """Distributions and correlations of the columns."""
    return {
        "marginal difference": marginal_difference(real_NTD, generated_MTD),
        "autocorrelation difference": autocorrelation_difference(real_NTD, generated_MTD),
        "cross-correlation difference": cross_correlation_difference(real_NTD, generated_MTD),
    }


def neighbours(real_NTD: Floats, generated_MTD: Floats, seed: int) -> Mapping[str, float]:
    """Precision, recall, density, coverage."""
    return neighbourhood(real_NTD, generated_MTD)._asdict()


def judges(real_NTD: Floats, generated_MTD: Floats, seed: int) -> Mapping[str, float]:
    """What networks make of them; minutes, where the others take seconds."""
    check_ahead(real_NTD)  # before the minutes
    return {
        "discriminative score": discriminative_score(real_NTD, generated_MTD, seed),
        "discriminative score, 64 units": discriminative_score(real_NTD, generated_MTD, seed, 64, 4000),
        "predictive score": predictive_score(real_NTD, generated_MTD, seed),
        "Context-FID": context_fid(real_NTD, generated_MTD, seed),
    }


QUICK: tuple[Measure, ...] = (moments, neighbours)


def evaluate(
    real_NTD: Floats,
    generated_MTD: Floats,
    seeds: int = 3,
    measures: Sequence[Measure] = (*QUICK, judges),
    training_KTD: Floats | None = None,
) -> list[Figure]:
    """Judge generated windows against real ones, in the order of their time.

    For each seed the real windows are halved at random in blocks of neighbours. One half is compared with the
    other, which is the null, and with as many generated windows, drawn at random: equal sizes, for all
    figures depend on them. Where fewer are generated, the other half is thinned over its whole time.
    `training_KTD`, what was learned, gives the figure of copies; the real windows must then be of records
    that were not. Raises `InputError` for windows that cannot be compared, or fewer than `FEWEST` of a kind.
    """
    checked(real_NTD, generated_MTD)
    if min(len(real_NTD), len(generated_MTD)) < FEWEST or seeds < 2:
        raise InputError(
            f"{len(real_NTD)} real and {len(generated_MTD)} generated windows over {seeds} seeds tell "
            f"nothing: give at least {FEWEST} of each and 2 seeds."
        )
    draws = [_drawn(len(real_NTD), len(generated_MTD), seed) for seed in range(seeds)]
    of_copies: list[tuple[float, float]] = []
    if training_KTD is not None:  # before the networks: what is wrong is then said at once
        real_N, generated_M = nearest(training_KTD, real_NTD), nearest(training_KTD, generated_MTD)
        of_copies = [
            (copied(real_N[mine], generated_M[drawn]), copied(real_N[mine], real_N[others]))
            for mine, others, drawn in draws
        ]
    found: dict[str, list[tuple[float, float]]] = {}
    for seed, (mine, others, drawn) in enumerate(draws):
        for measure in measures:
            null = measure(real_NTD[mine], real_NTD[others], seed)
            for name, value in measure(real_NTD[mine], generated_MTD[drawn], seed).items():
                found.setdefault(name, []).append((value, null[name]))
    if of_copies:
        found["copies"] = of_copies
    return [over_seeds(name, np.array(values)) for name, values in found.items()]


def _drawn(real: int, generated: int, seed: int) -> tuple[Ints, Ints, Ints]:
    """Which real windows, which others for the null, and as many generated ones."""
    rng = np.random.default_rng(seed)
    mine, others = halves(real, max(1, real // (2 * BLOCKS)), rng)
    count = min(len(others), generated)
    drawn = rng.permutation(generated)[:count]
    return mine, thinned(others, BLOCKS, count, rng), drawn


def over_seeds(name: str, value_S2: Floats) -> Figure:
    """The figure of a value and its null for each of S seeds, two at least."""
    difference_S = value_S2[:, 0] - value_S2[:, 1]
    count = len(difference_S)
    half = float(student_t.ppf(0.975, count - 1) * difference_S.std(ddof=1) / math.sqrt(count))
    value, null = value_S2.mean(axis=0).tolist()
    middle = float(difference_S.mean())
    better: Literal["lower", "higher"] = "higher" if name in HIGHER_IS_BETTER else "lower"
    return Figure(name, better, value, null, middle - half, middle + half)


def lines(figures: Sequence[Figure]) -> list[str]:
    """The figures as a table for a terminal."""
    width = max(len(one.name) for one in figures)
    rows = [
        f"{one.name:{width}}  {one.better:6}  {one.value:.4f}  {one.null:.4f}  "
        f"{one.low:+.4f} to {one.high:+.4f}{'  worse than real' if one.worse_than_real else ''}"
        for one in figures
    ]
    return [f"{'figure':{width}}  better  value   null    difference, 95 %", *rows]
