"""How well a learner that saw a public series once generates windows of it.

    python benchmarks/generation.py DATA [--series stocks energy] [--seeds 0 1 2] [--results DIR]

DATA holds sequences/stocks.csv (TimeGAN's, Yoon et al. 2019) and sequences/energy.npz (timeVAE's, Desai et
al. 2021). The learner is `rvae` with the preset full, windows of 24 records at stride 1, one update each;
every record is learned when it comes, and never again but from the learner's own reservoir. Sequences are
drawn from the prior: each goes on from two records that the learner kept, which are not part of it.

- *Field's*: it learns the whole series; all its windows (stride 1) are judged against as many generated
  ones, as in the published papers. That is comparable with them, and lenient: judge and learner saw the same
  records, and windows that overlap are in both halves of the judge's split.
- *Held out*: it learns the first 80 %; windows of the last 20 % that do not overlap are judged against
  generated ones, and against one another (`streamgen.evaluation.evaluate`): the figure is the difference.
  Below 500 windows it is inconclusive, and called so.
- *Real past*: what as many real windows of the first 80 %, drawn at random, get in the held-out protocol. Who
  draws the past as it was gets that; what is below it is luck, or a guess of what is to come.

A finished run of a series, a seed and a protocol is kept in generation.json and not made again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept
from machine import load, under

from streamgen.config import WindowConfig
from streamgen.evaluation import (
    context_fid,
    cut,
    discriminative_score,
    evaluate,
    predictive_score,
)
from streamgen.models.online import Learner
from streamgen.models.rvae import RVAE, Settings
from streamgen.models.slab import Slab
from streamgen.records import Floats
from streamgen.windows import Clock

T = 24
STEP_MS = {"stocks": 86_400_000, "energy": 600_000}
SETTINGS: dict[str, Any] = {"name": "rvae", "preset": "full", "updates": 1}
CONCLUSIVE = 500  # windows that do not overlap
FIELDS: dict[str, Callable[[Floats, Floats, int], float]] = {
    "discriminative score": discriminative_score,
    "stronger judge": lambda real, drawn, seed: discriminative_score(real, drawn, seed, 64, 4000),
    "predictive score": predictive_score,
    "Context-FID": context_fid,
}
HELD_OUT = "discriminative score"
# Best published of models trained in batch: Yuan & Qiao 2024, "Diffusion-TS", tables 1 and 10.
PUBLISHED = {
    ("stocks", "discriminative score"): 0.067,
    ("energy", "discriminative score"): 0.122,
    ("energy", "Context-FID"): 0.089,
}


def read(data: Path, name: str) -> Floats:
    """[N, D] records of a series."""
    if name == "stocks":
        return np.loadtxt(data / "sequences" / "stocks.csv", delimiter=",", skiprows=1)
    return np.asarray(np.load(data / "sequences" / "energy.npz")["x"], dtype=np.float64)


def drawn_after(
    value_ND: Floats, name: str, seed: int, count: int, **changed: Any
) -> tuple[Floats, dict[str, float]]:
    """[count, T, D] windows of a learner that saw the records once, and what that cost; some of its settings
    may be changed."""
    me = Learner(seed=seed, topic=name, key=None)
    window = WindowConfig(length=T, stride=1)
    model = RVAE(Settings(**SETTINGS | changed), value_ND.shape[1], window, "cpu")
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), me)
    row_N = np.zeros(len(value_ND), dtype=np.int64)
    ticks = Clock(window).advance(slab, row_N, np.arange(len(value_ND)) * STEP_MS[name])
    began = time.process_time()
    model.run(slab, row_N, value_ND, ticks, [me])
    cost = {
        "CPU ms a record": 1e3 * (time.process_time() - began) / len(value_ND),
        "MiB a learner": slab.bytes_per_learner / 2**20,
    }
    return model.sequences(slab, 0, me).sample(T, count, seed), cost


def fields(data: Path, name: str, seed: int) -> dict[str, Any]:
    """The field's protocol, one series, one seed."""
    value_ND = read(data, name)
    real_NTD = cut(value_ND, T, 1)
    drawn_NTD, cost = drawn_after(value_ND, name, seed, len(real_NTD))
    judged = {}
    for figure, judge in FIELDS.items():
        judged[figure] = judge(real_NTD, drawn_NTD, seed)
    return {"cost": cost, "field's": judged}


def held_out(data: Path, name: str, seed: int) -> dict[str, Any]:
    """The held-out protocol, one series, one seed."""
    value_ND = read(data, name)
    first = int(0.8 * len(value_ND))
    later_KTD = cut(value_ND[first:], T, T)
    drawn_KTD, _ = drawn_after(value_ND[:first], name, seed, len(later_KTD))
    return {"held out": less_null(later_KTD, drawn_KTD)}


def real_past(data: Path, name: str, seed: int) -> dict[str, Any]:
    """The held-out protocol, of real windows."""
    value_ND = read(data, name)
    first = int(0.8 * len(value_ND))
    later_KTD, past_NTD = cut(value_ND[first:], T, T), cut(value_ND[:first], T, 1)
    chosen_K = np.random.default_rng(seed).choice(len(past_NTD), len(later_KTD), replace=False)
    return {"real past": less_null(later_KTD, past_NTD[chosen_K])}


def less_null(later_KTD: Floats, drawn_KTD: Floats) -> dict[str, float]:
    """How far they are told apart, less how far real ones are."""

    def judged(real: Floats, drawn: Floats, judge_seed: int) -> dict[str, float]:
        return {HELD_OUT: discriminative_score(real, drawn, judge_seed)}

    (figure,) = evaluate(later_KTD, drawn_KTD, seeds=5, measures=(judged,))
    found = {"windows": len(later_KTD), "low": figure.low, "high": figure.high}
    return {**found, "difference": figure.value - figure.null}


PROTOCOLS = {"field's": fields, "held out": held_out, "real past": real_past}


def table(results: dict[str, Any]) -> str:
    """Means and spread over the seeds."""
    lines = [
        "| series | protocol | figure | mean ± deviation | seeds | best published, trained in batch |",
        "|---|---|---|---:|---:|---:|",
    ]
    for name in STEP_MS:
        runs = [one for key, one in sorted(results.items()) if key.startswith(f"{name}/")]
        if not runs:
            continue
        for figure in FIELDS:
            values = np.array([one["field's"][figure] for one in runs])
            published = PUBLISHED.get((name, figure), "–")
            lines.append(f"| {name} | field's | {figure} | {told(values)} | {len(runs)} | {published} |")
        for protocol in ("held out", "real past"):
            if out := [one[protocol] for one in runs if protocol in one]:
                few = (
                    "" if out[0]["windows"] >= CONCLUSIVE else f", inconclusive ({out[0]['windows']} windows)"
                )
                values = np.array([one["difference"] for one in out])
                what = f"{HELD_OUT} less its null{few}"
                lines.append(f"| {name} | {protocol} | {what} | {told(values)} | {len(out)} | – |")
        for figure in ("CPU ms a record", "MiB a learner"):
            values = np.array([one["cost"][figure] for one in runs])
            lines.append(f"| {name} | | {figure} | {told(values)} | {len(runs)} | |")
    return "\n".join(lines)


def told(values: Floats) -> str:
    return f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--series", nargs="+", choices=STEP_MS, default=list(STEP_MS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    results = Kept(given.results / "generation.json")
    before = load()
    for (protocol, judged), name, seed in product(PROTOCOLS.items(), given.series, given.seeds):
        one = results.get(f"{name}/{seed}", {})
        if protocol not in one:
            results.keep(f"{name}/{seed}", one | judged(given.data, name, seed))
    text = (
        "# Generation: what one pass over a series is worth\n\n"
        "Made by `python benchmarks/generation.py DATA`; its docstring says what is measured. "
        f"{under(before)}\n\n{table(results)}\n"
    )
    (given.results / "generation.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
