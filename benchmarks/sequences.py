"""How well `rvae` learns to predict and to generate a public series in a single pass.

    python benchmarks/sequences.py DATA [--only NAME ...] [--results benchmarks/results]

DATA holds stocks.csv: 3,685 daily records of 6 prices and volumes, the file that TimeGAN (Yoon et al. 2019)
published with its code (github.com/jsyoon0823/TimeGAN, data/stock_data.csv). Windows are 24 records at stride
1. Nothing is learned twice from the stream itself: what `full` repeats comes from its own reservoir. The
likelihood is of each record before it was learned, over the second half of the file. The peer in the same run
expects the last value: of each step an independent Student-t, its scale chosen on the first half. The
sequences are as many samples from the prior as there are windows in the file.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from machine import load, processor

from streamgen.config import WindowConfig
from streamgen.models.online import Learner
from streamgen.models.rvae import RVAE, Settings
from streamgen.models.scale import Scale, fields
from streamgen.models.slab import Slab
from streamgen.records import Floats
from streamgen.windows import Clock

T = 24
DAY_MS = 86_400_000
ME = Learner(seed=0, topic="stocks", key=None)
FULL: dict[str, object] = {"preset": "full", "reservoir": 4096}
VARIANTS: dict[str, dict[str, object]] = {
    "light": {"preset": "light"},
    "full": FULL,
    "full, one near-Gaussian for the mixture": {**FULL, "components": 1, "dof": 1000.0},
    "full, ten times the free bits": {**FULL, "free_bits": 0.2},
}


def last_value_nll(value_ND: Floats) -> float:
    """Mean nats of steps a record, second half, of the peer; δ runs as it does in the models."""
    from scipy.stats import t

    slab = Slab(fields(value_ND.shape[1]))
    now = Scale.of(slab, slab.add())
    steps = []
    for value_D in value_ND:
        steps.append((value_D - now.last_D) / now.delta())
        now.observe(value_D, np.ones(len(value_D), dtype=np.bool_))
    first_ND, second_ND = np.array_split(np.array(steps[2:]), 2)
    total = 0.0
    for past_N, future_N in zip(first_ND.T, second_ND.T, strict=True):
        scale = min(np.geomspace(0.05, 5.0, 60), key=lambda s: -t(4.0, scale=s).logpdf(past_N).mean())
        total -= t(4.0, scale=scale).logpdf(future_N).mean()
    return total


def autocorrelation(window_WTD: Floats) -> Floats:
    """[T − 1, D] of lags 1 … within windows, about the mean of all."""
    centred = window_WTD - window_WTD.mean((0, 1))
    products = [(centred[:, lag:] * centred[:, :-lag]).mean((0, 1)) for lag in range(1, T)]
    return np.array(products) / (centred**2).mean((0, 1))


def differences(real_WTD: Floats, drawn_WTD: Floats) -> list[float]:
    """Of the values' distributions (Wasserstein-1 in standard deviations), of autocorrelations, and of the
    correlations of the steps: means over features, lags and pairs."""
    D = real_WTD.shape[2]
    share = np.linspace(0.0005, 0.9995, 1000)
    real_QD, drawn_QD = (np.quantile(one.reshape(-1, D), share, axis=0) for one in (real_WTD, drawn_WTD))
    marginal = np.abs(real_QD - drawn_QD).mean(0) / real_WTD.std((0, 1))
    steps = [np.corrcoef(np.diff(one, axis=1).reshape(-1, D).T) for one in (real_WTD, drawn_WTD)]
    lagged = np.abs(autocorrelation(real_WTD) - autocorrelation(drawn_WTD)).mean()
    return [float(marginal.mean()), float(lagged), float(np.abs(steps[0] - steps[1]).mean())]


def row(name: str, value_ND: Floats) -> str:
    """Learn the file once and draw from what was learned: a line of the table."""
    N, D = value_ND.shape
    window = WindowConfig(length=T, stride=1)
    model = RVAE(Settings(name="rvae", **VARIANTS[name]), D, window, "cpu")  # type: ignore[arg-type]
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), ME)
    row_N = np.zeros(N, dtype=np.int64)
    ticks = Clock(window).advance(slab, row_N, np.arange(N) * DAY_MS)
    began = time.process_time()
    scores = model.run(slab, row_N, value_ND, ticks, [ME])
    seconds = time.process_time() - began
    real_WTD = np.lib.stride_tricks.sliding_window_view(value_ND, T, axis=0).transpose(0, 2, 1)
    drawn_WTD = model.sequences(slab, 0, ME).sample(T, len(real_WTD), seed=1)
    second = slice(N // 2, None)
    inside = (value_ND >= scores.low_ND) & (value_ND <= scores.high_ND)
    figures = [float(scores.nll_N[second].mean()), float(inside[second].mean())]
    told = " | ".join(f"{figure:.3f}" for figure in figures + differences(real_WTD, drawn_WTD))
    return f"| {name} | {told} | {1e3 * seconds / N:.1f} | {slab.bytes_per_learner / 2**20:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    before = load()
    value_ND = np.loadtxt(given.data / "stocks.csv", delimiter=",", skiprows=1)
    rows = []
    for name in given.only:
        rows.append(row(name, value_ND))
        print(rows[-1], flush=True)
    text = (
        "# Sequences: one pass over 3,685 days of a stock\n\n"
        f"Made by `python benchmarks/sequences.py DATA`; its docstring says what is measured. {processor()}; "
        f"load average {before:.1f} before and {load():.1f} after.\n\n"
        "| | nll of a record, nats | inside the 90 % interval | difference of values "
        "| of autocorrelations | of step correlations | CPU ms a record | MiB a learner |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|\n"
        f"| last value | {last_value_nll(value_ND):.3f} | | | | | | |\n" + "\n".join(rows) + "\n"
    )
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "sequences.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
