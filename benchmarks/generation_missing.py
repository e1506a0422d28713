"""How well a learner generates whole windows of a series of which records are missing.

    python benchmarks/generation_missing.py DATA [--series stocks energy] [--shares 0.3 0.5 0.7]
        [--seeds 0 1 2] [--results DIR]

As GT-GAN (Jeon et al. 2022) and KoVAE (Naiman et al. 2024) do it: a share of the series' records, drawn at
random, has no values; the learner sees the rest, once; windows of 24 records that miss nothing are drawn, and
judged against all windows of the whole series (`generation.py`, field's protocol). Learner and settings are
those of `generation.py`. The figure is the discriminative score, a mean over the shares.

A finished run of a series, a share and a seed is kept in generation_missing.json and not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from generation import T, drawn_after, read, told
from kept import Kept
from machine import load, under

from streamgen.evaluation import cut, discriminative_score
from streamgen.records import Floats

# Mean of the three shares, of models trained in batch: Naiman et al. 2024, "Generative modeling of regular
# and irregular time series data via Koopman VAEs".
PUBLISHED = {"stocks": 0.118, "energy": 0.323}


def with_missing(value_ND: Floats, share: float, seed: int) -> Floats:
    """The records, a share of them without values."""
    gone_N = np.random.default_rng(seed).random(len(value_ND)) < share
    return np.where(gone_N[:, None], np.nan, value_ND)


def run(data: Path, name: str, share: float, seed: int) -> float:
    value_ND = read(data, name)
    real_NTD = cut(value_ND, T, 1)
    drawn_NTD, _ = drawn_after(with_missing(value_ND, share, seed), name, seed, len(real_NTD))
    return float(discriminative_score(real_NTD, drawn_NTD, seed))


def table(results: dict[str, float]) -> str:
    """By series and share, and the mean of the shares."""
    lines = [
        "| series | missing | discriminative score | seeds | published, trained in batch |",
        "|---|---|---:|---:|---:|",
    ]
    for name, published in PUBLISHED.items():
        scores: dict[str, list[float]] = {}
        for key, score in sorted(results.items()):
            series, share, _ = key.split("/")
            if series == name:
                scores.setdefault(share, []).append(score)
        for share, some in scores.items():
            lines.append(f"| {name} | {share} | {told(np.array(some))} | {len(some)} | – |")
        if scores:
            mean = np.mean([np.mean(some) for some in scores.values()])
            lines.append(f"| {name} | mean of these | {mean:.3f} | | {published} (of 0.3, 0.5 and 0.7) |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--series", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    parser.add_argument("--shares", nargs="+", type=float, default=[0.3, 0.5, 0.7])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    results = Kept(given.results / "generation_missing.json")
    before = load()
    for name in given.series:
        for seed in given.seeds:
            for share in given.shares:
                if f"{name}/{share}/{seed}" not in results:
                    results.keep(f"{name}/{share}/{seed}", run(given.data, name, share, seed))
    text = (
        "# Generation from a series with missing records\n\n"
        "Made by `python benchmarks/generation_missing.py DATA`; its docstring says what is measured. "
        f"{under(before)}\n\n{table(results)}\n"
    )
    (given.results / "generation_missing.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
