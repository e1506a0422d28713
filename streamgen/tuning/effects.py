"""What came of a study, as tables: the effect of each setting, and which choice is the best.

Two choices are compared seed by seed, so that what a seed does to both is no part of the difference. Its
interval is Student's, at 95 %, over S seeds: it tells what other seeds would have given on the same data, and
not what other data would. The best is the one with the lowest score among those whose whole interval lies
below what there is; where there is none, what there is remains. A choice that has failed is worse than any
that has not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

from streamgen.tuning.factors import Choice, Factor, Search, as_it_is
from streamgen.tuning.study import Tried

SHOWN = 10  # of the best combinations


@dataclass(frozen=True, slots=True)
class Difference:
    """Of a choice to what there is, in the unit of the score, with its interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Better or worse where the interval leaves no doubt."""
        return "better" if self.high < 0 else "worse" if self.low > 0 else ""

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True, slots=True)
class Table:
    """Text, for a terminal and for a page."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __str__(self) -> str:
        every = [self.head, *self.rows]
        width = [max(len(row[n]) for row in every) for n in range(len(self.head))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)) for row in every]
        return "\n".join(line.rstrip() for line in lines)


def against(base: Tried, other: Tried) -> Difference:
    """Of two choices that are both through."""
    difference_S = other.score_S - base.score_S
    count = len(difference_S)
    half = float(student_t.ppf(0.975, count - 1) * difference_S.std(ddof=1) / math.sqrt(count))
    middle = float(difference_S.mean())
    return Difference(middle, middle - half, middle + half)


def best(base: Tried, tried: Iterable[Tried]) -> Tried:
    """See above."""
    better = [one for one in tried if one.whole and _verdict(base, one)[1] == "better"]
    return min([base, *better], key=lambda one: one.score)


def _verdict(base: Tried, one: Tried) -> tuple[str, str]:
    """The difference, where there is one, and what it comes to."""
    if one.failure is not None:
        return "", "failed"
    if one is base:
        return "", ""
    if base.failure is not None:
        return "", "better"
    difference = against(base, one)
    return str(difference), difference.verdict


def winners(factors: Sequence[Factor], base: Tried, tried: Sequence[Tried]) -> list[dict[str, str]]:
    """Of each setting the value that is clearly better by itself, the best such setting first."""
    before, found = as_it_is(factors), []
    for factor in factors:
        alone = [one for one in tried if {**one.choice, factor.name: before[factor.name]} == before]
        winner = best(base, alone)
        if winner is not base:
            found.append((winner.score, {factor.name: winner.choice[factor.name]}))
    return [winner for _, winner in sorted(found, key=lambda one: one[0])]


def tables(search: Search, factors: Sequence[Factor], tried: Sequence[Tried], unit: str) -> list[Table]:
    """What to show of a study whose first trial is what there is."""
    base, told_of = tried[0], [one for one in tried if one.whole or one.failure is not None]
    if search == "one":
        return [_alone(factors, base, told_of, unit)]
    ranked = sorted(told_of, key=lambda one: one.score)[:SHOWN]
    if base not in ranked:
        ranked.append(base)
    head = ("settings", unit, "± over seeds", "against as it is, 95 %", "", "CPU s")
    return [_marginal(factors, tried, unit), Table(head, [_row(factors, base, one) for one in ranked])]


def told(factors: Iterable[Factor], choice: Choice) -> str:
    """A choice in words: what differs from what there is."""
    before = as_it_is(factors)
    changed = [f"{name} {label}" for name, label in choice.items() if label != before[name]]
    return ", ".join(changed) or "as it is"


def _alone(factors: Sequence[Factor], base: Tried, tried: Sequence[Tried], unit: str) -> Table:
    rows = []
    for one in tried:
        settings, *figures = _row(factors, base, one)
        changed = [name for name, label in one.choice.items() if label != as_it_is(factors)[name]]
        if len(changed) == 1:
            rows.append((changed[0], one.choice[changed[0]], *figures))
        else:
            rows.append(("together" if changed else "as it is", settings if changed else "", *figures))
    return Table(("setting", "value", unit, "± over seeds", "against as it is, 95 %", "", "CPU s"), rows)


def _row(factors: Sequence[Factor], base: Tried, one: Tried) -> tuple[str, ...]:
    """Settings, score, its standard deviation over seeds, difference and verdict, CPU."""
    failed = one.failure is not None
    return (
        told(factors, one.choice),
        "–" if failed else f"{one.score:.4f}",
        "–" if failed else f"{one.score_S.std(ddof=1):.4f}",
        *_verdict(base, one),
        f"{one.seconds:.1f}",
    )


def _marginal(factors: Sequence[Factor], tried: Sequence[Tried], unit: str) -> Table:
    """Of each value, over all combinations that have it."""
    rows = []
    for factor in factors:
        for variant in factor.variants:
            having = [one for one in tried if one.choice[factor.name] == variant.label]
            score = [one.score for one in having if one.whole]
            shown = (f"{sum(score) / len(score):.4f}", f"{min(score):.4f}") if score else ("–", "–")
            rows.append((factor.name, variant.label, str(len(score)), str(len(having) - len(score)), *shown))
    return Table(("setting", "value", "through", "given up", f"mean {unit}", "best"), rows)
