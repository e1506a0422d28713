"""What each part of `rvae` (preset full) is worth to the sequences that it generates.

    python benchmarks/generation_ablation.py DATA [--only NAME ...] [--seeds 0 1] [--results DIR]

Stocks, one pass, windows from the prior judged by the field's protocol (`generation.py`, whose settings these
are): each row changes or leaves out one part. DATA is as there. A finished run of a row and a seed is kept in
generation_ablation.json and not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from generation import FIELDS, T, drawn_after, read, told
from kept import Kept
from machine import load, under

from streamgen.evaluation import cut

NAME = "stocks"
FIGURES = ("discriminative score", "stronger judge", "Context-FID")
COSTS = ("CPU ms a record", "MiB a learner")
GAUSSIAN = {"joint": 0, "components": 1, "dof": 1000.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "from the mixture": {"joint": 0},
    "one Gaussian, whitened": GAUSSIAN,
    "one Gaussian a column": GAUSSIAN | {"normalisation": "robust"},
    "no whitening": {"normalisation": "robust"},
    "standard units": {"normalisation": "standard"},
    "the newest window alone": {"reservoir": 0},
    "half a minibatch": {"batch": 16},
    "two updates": {"updates": 2},
    "six updates": {"updates": 6},
    "uniform replay": {"recent": 0.0},
    "replay by recency alone": {"recent": 1.0},
    "newest weights": {"ema": 0.0},
    "longer averages": {"ema": 0.999},
    "free bits 0.2": {"free_bits": 0.2},
    "no KL term": {"kl_weight": 0.0},
    "ReLU": {"activation": "relu"},
    "SGD": {"optimizer": "sgd", "learning_rate": 0.1},
    "AdamW": {"optimizer": "adamw"},
    "step size .001": {"learning_rate": 0.001},
    "32 units": {"hidden": 32},
    "two layers": {"layers": 2},
}


def run(data: Path, variant: str, seed: int) -> dict[str, float]:
    value_ND = read(data, NAME)
    real_NTD = cut(value_ND, T, 1)
    drawn_NTD, cost = drawn_after(value_ND, NAME, seed, len(real_NTD), **VARIANTS[variant])
    return {figure: float(FIELDS[figure](real_NTD, drawn_NTD, seed)) for figure in FIGURES} | cost


def table(results: dict[str, dict[str, float]]) -> str:
    lines = [
        f"| | seeds | {' | '.join((*FIGURES, *COSTS))} |",
        f"|---|---:|{'---:|' * len((*FIGURES, *COSTS))}",
    ]
    for variant in VARIANTS:
        runs = [one for name, one in sorted(results.items()) if name.rpartition("/")[0] == variant]
        if runs:
            cells = [told(np.array([one[key] for one in runs])) for key in (*FIGURES, *COSTS)]
            lines.append(f"| {variant} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    results = Kept(given.results / "generation_ablation.json")
    before = load()
    for seed in given.seeds:
        for variant in given.only:
            if f"{variant}/{seed}" not in results:
                results.keep(f"{variant}/{seed}", run(given.data, variant, seed))
    text = (
        "# What the parts of rvae are worth to what it generates\n\n"
        "Made by `python benchmarks/generation_ablation.py DATA`; its docstring says what is measured. "
        f"{under(before)}\n\n{table(results)}\n"
    )
    (given.results / "generation_ablation.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
