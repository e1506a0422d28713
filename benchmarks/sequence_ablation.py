"""What `stream_ae` predicts of public series in a single pass, and what each of its parts is worth.

    python benchmarks/sequence_ablation.py DATA [--only VARIANT ...] [--series NAME ...] [--seeds 0 1 2]
        [--results PAGE]

DATA holds sequences/stocks.csv and sequences/energy.npz (as published with TimeGAN and timeVAE) and nab/data
of the Numenta Anomaly Benchmark. Windows are 24 records; a learner sees each record once, and what it learns
again comes from its own reservoir. Energy is its first 4,000 records. Figures are of the second half of a
series:

- nats per value: the negative log-likelihood of each record before it was learned, in running steps δ;
- minus last value: the same, less that of a random walk whose steps are independent Student-t's: at each
  record the scale and degrees of freedom that were best so far, of a grid;
- minus its axes: less that of a random walk whose steps are a multivariate Student-t on the same whitening,
  chosen likewise: what is left is what the network adds;
- inside 80 %: values that lie between the 10 % and the 90 % quantile of 200 forecasts, 1 to 24 records
  ahead, from every 23rd record on; with its standard error over the forecasts, for those of a day are right
  or wrong together;
- inside the scores' 90 %: values in the interval that a score gives;
- CPU ms a record, of scoring and learning, and bytes of a learner.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from machine import load, under
from scipy.special import gammaln

from streamgen.config import WindowConfig
from streamgen.models import build
from streamgen.models.axes import Axes
from streamgen.models.online import Learner
from streamgen.models.scale import Scale
from streamgen.models.scale import fields as scale_fields
from streamgen.models.slab import Slab
from streamgen.models.whitening import Whitening
from streamgen.models.whitening import fields as whitening_fields
from streamgen.records import Bools, Floats, Ints
from streamgen.windows import Clock

T, AHEAD, DRAWS = 24, 24, 200
EVERY = 23  # records between forecasts: they begin at every hour of the day
FULL: dict[str, object] = {"preset": "full"}
STRIDE = 6
NAB = {
    "nyc_taxi": "realKnownCause/nyc_taxi.csv",
    "ambient_temperature": "realKnownCause/ambient_temperature_system_failure.csv",
    "ec2_cpu_5f5533": "realAWSCloudwatch/ec2_cpu_utilization_5f5533.csv",
}
SERIES = ("stocks", "energy", *NAB)


@dataclass(frozen=True)
class Variant:
    """One thing changed from `full`."""

    settings: dict[str, object] = field(default_factory=dict)
    stride: int = STRIDE
    without: str = ""  # a part that no setting leaves out


VARIANTS: dict[str, Variant] = {
    "full": Variant(),
    "light": Variant({"preset": "light"}),
    "one component": Variant({"components": 1}),
    "one near-Gaussian": Variant({"components": 1, "dof": 1000.0}),
    "robust units, no whitening": Variant({"normalisation": "robust"}),
    "minmax": Variant({"normalisation": "minmax"}),
    "the newest window alone": Variant({"reservoir": 1, "batch": 1}),
    "32 windows a minibatch": Variant({"batch": 32}),
    "one update": Variant({"updates": 1}),
    "six updates": Variant({"updates": 6}),
    "burn-in of 1": Variant({"burn_in": 1}),
    "SGD": Variant({"optimizer": "sgd", "learning_rate": 0.1}),
    "AdamW": Variant({"optimizer": "adamw"}),
    "inverse square root": Variant({"schedule": "inverse_sqrt", "learning_rate": 0.005}),
    "every 24th record": Variant(stride=T),
    "no swing": Variant(without="swing"),
    "no stretch": Variant(without="stretch"),
    "no fan": Variant(without="fan"),
}


@dataclass(frozen=True)
class Series:
    value_ND: Floats
    time_N: Ints  # ms


def read(data: Path, name: str) -> Series:
    """A public series: values, and times in ms."""
    if name == "stocks":
        value_ND = np.loadtxt(data / "sequences/stocks.csv", delimiter=",", skiprows=1)
        return Series(value_ND, np.arange(len(value_ND)) * 86_400_000)
    if name == "energy":
        value_ND = np.load(data / "sequences/energy.npz")["x"][:4000].astype(np.float64)
        return Series(value_ND, np.arange(len(value_ND)) * 600_000)
    path = next(iter((data / "nab/data").glob(f"*/{name}.csv")), data / "nab/data" / NAB.get(name, name))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp() for row in rows]
    values = np.array([[float(row["value"])] for row in rows])
    return Series(values, np.array([int(1000 * one) for one in times]))


def log_t(square_G: Floats, dof_G: Floats, count: int) -> Floats:
    """log density of `count` features of unit scale at a squared distance, by degrees of freedom."""
    half_G = 0.5 * (dof_G + count)
    constant_G = gammaln(half_G) - gammaln(dof_G / 2) - 0.5 * count * np.log(dof_G * np.pi)
    return np.asarray(constant_G - half_G * np.log1p(square_G / dof_G))


def last_value(series: Series) -> tuple[float, float]:
    """Mean nats per value of the two random walks (docstring), second half."""
    N, D = series.value_ND.shape
    slab = Slab({**scale_fields(D), **whitening_fields("step", D)})
    row = slab.add()
    now, axes = Scale.of(slab, row), Whitening.of(slab, row, "step")
    scale_S, dof_V = np.geomspace(0.02, 5.0, 80), np.array([2.1, 3.0, 4.0, 8.0, 30.0, 300.0])
    scale_G, dof_G = (one.ravel() for one in np.meshgrid(scale_S, dof_V))
    sum_DG, sum_G = np.zeros((D, len(dof_G))), np.zeros(len(dof_G))
    nll = np.zeros((N, 2))
    for n, value_D in enumerate(series.value_ND):
        if n:
            y_D = (value_D - now.last_D) / now.delta()
            each_DG = log_t((y_D[:, None] / scale_G) ** 2, dof_G, 1) - np.log(scale_G)
            factor_DD = axes.factor()
            e_D = np.linalg.solve(factor_DD, y_D)
            volume = np.log(np.diag(factor_DD)).sum()
            all_G = log_t((e_D**2).sum() / scale_G**2, dof_G, D) - D * np.log(scale_G) - volume
            nll[n] = -each_DG[np.arange(D), sum_DG.argmax(1)].mean(), -all_G[sum_G.argmax()] / D
            sum_DG += each_DG
            sum_G += all_G
        before_D = now.last_D.copy()
        now.observe(value_D, np.ones(D, dtype=np.bool_))
        if n:
            axes.observe((value_D - before_D) / now.delta(), np.ones(D, dtype=np.bool_))
    apart, together = nll[N // 2 :].mean(0)
    return float(apart), float(together)


@contextmanager
def left_out(part: str) -> Iterator[None]:
    """The model without one of its parts."""
    with ExitStack() as stack:
        if part == "swing":
            stack.enter_context(patch.object(Axes, "swing", lambda self, swing_D: 0.0 * swing_D))
        if part == "stretch":
            stack.enter_context(patch("streamgen.models.stretch.observe"))
        if part == "fan":
            stack.enter_context(patch("streamgen.models.fan.due", return_value=False))
        yield


def figures(series: Series, name: str, topic: str, seed: int) -> list[float]:
    """Nats per value, shares inside the scores' and the forecasts' intervals, the standard error of the
    latter, CPU ms a record, bytes of a learner."""
    variant = VARIANTS[name]
    N, D = series.value_ND.shape
    me = Learner(seed, topic, None)
    light = variant.settings.get("preset") == "light"
    window = WindowConfig(length=T, stride=None if light else variant.stride)
    model = build({"name": "stream_ae", **FULL, **variant.settings}, D, window, "cpu")
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), me)
    clock, cpu = Clock(window), 0.0
    nll: list[Floats] = []
    inside: list[Bools] = []
    within: list[Bools] = []
    for n in range(0, N, EVERY):
        part, ahead = slice(n, n + EVERY), slice(n, n + AHEAD)
        if n >= N // 2 and n + AHEAD <= N:
            drawn_BTD = model.generate(slab, 0, me, AHEAD, DRAWS, seed=n)
            low_TD, high_TD = np.quantile(drawn_BTD, [0.1, 0.9], axis=0, method="weibull")
            inside.append((series.value_ND[ahead] >= low_TD) & (series.value_ND[ahead] <= high_TD))
        began = time.process_time()
        row_N = np.zeros(len(series.value_ND[part]), dtype=np.int64)
        ticks = clock.advance(slab, row_N, series.time_N[part])
        told = model.run(slab, row_N, series.value_ND[part], ticks, [me])
        cpu += time.process_time() - began
        nll.append(told.nll_N)
        value_ND = series.value_ND[part]
        within.append((value_ND >= told.low_ND) & (value_ND <= told.high_ND))
    per_value = np.concatenate(nll)[N // 2 :].mean() / D
    held = float(np.concatenate(within)[N // 2 :].mean())
    share_F = np.array([one.mean() for one in inside])
    error = share_F.std(ddof=1) / np.sqrt(len(share_F))
    return [
        *(float(per_value), held, float(share_F.mean()), float(error)),
        *(1e3 * cpu / N, float(slab.bytes_per_learner)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--series", nargs="+", default=list(SERIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--results", type=Path, help="the page that the rows are added to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    before, lines = load(), []
    for topic in given.series:
        series = read(given.data, topic)
        apart, together = last_value(series)
        lines.append(f"| {topic} | last value | {apart:.3f} | 0 | {apart - together:+.3f} | | | | |")
        print(lines[-1], flush=True)
        for name in given.only:
            with left_out(VARIANTS[name].without):
                rows = np.array([figures(series, name, topic, seed) for seed in given.seeds])
            nll, held, covered, error, ms, size = rows.mean(0)
            spread = f" ± {rows[:, 0].std():.3f}" if len(rows) > 1 else ""
            lines.append(
                f"| {topic} | {name} | {nll:.3f}{spread} | {nll - apart:+.3f} | {nll - together:+.3f} "
                f"| {held:.3f} | {covered:.3f} ± {error:.3f} | {ms:.1f} | {size / 1000:,.0f} |"
            )
            print(lines[-1], flush=True)
    if given.results is not None:
        head = (
            f"\nSeeds {', '.join(map(str, given.seeds))}; {under(before)}\n\n"
            f"| series | | nats per value | minus last value | minus its axes "
            "| inside the scores' 90 % | inside the forecasts' 80 % | CPU ms a record | kB a learner |\n"
            "|---|---|---:|---:|---:|---:|---:|---:|---:|\n"
        )
        with given.results.open("a") as file:
            file.write(head + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
