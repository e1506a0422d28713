"""Which settings of an online model (preset light) are the best over many series, and not on one.

    python benchmarks/defaults.py DATA [--model stream_ae] [--series NAME ...] [--records 4000]
        [--seeds 0 1] [--results DIR]

Each choice changes one setting, and is judged as `streamgen tune` judges it: one pass over the first records
of a series, each scored before it is learned from, in nats per value of the data's own units. Differences are
to the defaults with the same seed. DATA holds sequences/ (Stocks, Energy), nab/data/ (streams of each real
category) and smd/ (a server's 38 metrics).

What is best on average may be bad somewhere: the table has the mean over the series, of how many each choice
is better on (the mean of the seeds), and the worst series. A finished pass is kept in defaults.json, one of
`rvae` in defaults_rvae.json.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from kept import Kept
from machine import load, under

from streamgen.cli.files import file_input
from streamgen.records import Floats
from streamgen.tuning.prequential import Prequential
from streamgen.tuning.stream import of_file
from streamgen.tuning.trial import Failed

OPTIMISERS: list[dict[str, Any]] = [
    {"optimizer": "adamw"},
    *({"optimizer": "momentum", "learning_rate": rate} for rate in (0.01, 0.05)),
    *({"optimizer": "sgd", "learning_rate": rate} for rate in (0.1, 0.5)),
]
ACTIVATIONS: list[dict[str, Any]] = [{"activation": kind} for kind in ("leaky_relu", "relu", "silu")]
CHOICES: dict[str, list[dict[str, Any]]] = {
    "stream_ae": [
        {},
        *({"learning_rate": rate} for rate in (0.0005, 0.001, 0.004, 0.008)),
        *OPTIMISERS,
        *({"normalisation": kind} for kind in ("none", "minmax", "standard")),
        *ACTIVATIONS,
        *({"schedule": kind} for kind in ("warmup", "inverse_sqrt")),
        *({"clip_norm": norm} for norm in (0.3, None)),
        *({"hidden": units} for units in (16, 64)),
        {"layers": 2},
    ],
    "rvae": [
        {},
        *({"learning_rate": rate} for rate in (0.001, 0.01)),
        *OPTIMISERS,
        *({"normalisation": kind} for kind in ("none", "minmax", "standard", "robust")),
        *ACTIVATIONS,
        {"schedule": "warmup"},
        {"hidden": 64},
        {"layers": 2},
        *({"latent": dimensions} for dimensions in (2, 16)),
        {"components": 1},
        *({"kl_weight": weight} for weight in (0.3, 3.0)),
        {"free_bits": 0.2},
    ],
}
NAB = {
    "AWS": "realAWSCloudwatch/ec2_cpu_utilization_24ae8d.csv",
    "AdExchange": "realAdExchange/exchange-2_cpc_results.csv",
    "nyc_taxi": "realKnownCause/nyc_taxi.csv",
    "ambient": "realKnownCause/ambient_temperature_system_failure.csv",
    "Traffic": "realTraffic/TravelTime_387.csv",
    "Tweets": "realTweets/Twitter_volume_AAPL.csv",
}
SERIES = ("stocks", "energy", *NAB, "smd")


def told(choice: dict[str, Any]) -> str:
    return ", ".join(f"{key} {'none' if value is None else value}" for key, value in choice.items())


def write(data: Path, name: str, records: int, path: Path) -> None:
    """The first records of a series as CSV."""
    if name in NAB:
        lines = (data / "nab" / "data" / NAB[name]).read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: records + 1]))
        return
    if name == "stocks":
        value_ND: Floats = np.loadtxt(data / "sequences" / "stocks.csv", delimiter=",", skiprows=1)
    elif name == "energy":
        value_ND = np.load(data / "sequences" / "energy.npz")["x"]
    else:
        value_ND = np.load(data / "smd" / "machine-1-6.npz")["train"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"x{d}" for d in range(value_ND.shape[1])])
        writer.writerows(value_ND[:records].tolist())


def judged(model: str, path: Path, seeds: list[int], known: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Each pass that is not known, with its score; none is worse than one that has failed."""
    config, choice = file_input(None, model, None, None, None)
    trial = Prequential(config, of_file(path, choice), "cpu")
    for settings in CHOICES[model]:
        for seed in seeds:
            name = f"{path.stem}/{told(settings)}/{seed}"
            if name not in known:
                score = float("nan")
                try:
                    for point in trial(settings, seed):
                        score = point.score if point is not None else score
                except Failed:
                    score = float("inf")
                yield name, score


def table(model: str, results: dict[str, float], names: list[str], seeds: list[int]) -> str:
    """Differences to the defaults."""
    choices = CHOICES[model]
    score_SCK = np.array(
        [[[results[f"{name}/{told(one)}/{seed}"] for seed in seeds] for one in choices] for name in names]
    )
    difference_SC = (score_SCK - score_SCK[:, :1]).mean(axis=2)
    lines = [
        f"| setting | mean | better on | worst | {' | '.join(names)} |",
        f"|---|---:|---:|---:|{'---:|' * len(names)}",
    ]
    for one, difference_S in zip(choices[1:], difference_SC.T[1:], strict=True):
        cells = " | ".join(f"{x:+.3f}" for x in difference_S)
        lines.append(
            f"| {told(one)} | {difference_S.mean():+.3f} | {(difference_S < 0).sum()} of {len(names)} "
            f"| {difference_S.max():+.3f} | {cells} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", choices=CHOICES, default="stream_ae")
    parser.add_argument("--series", nargs="+", choices=SERIES, default=list(SERIES))
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    page = "defaults" if given.model == "stream_ae" else f"defaults_{given.model}"
    results = Kept(given.results / f"{page}.json")
    before = load()
    with TemporaryDirectory() as folder:
        for name in given.series:
            path = Path(folder) / f"{name}.csv"
            write(given.data, name, given.records, path)
            for done, score in judged(given.model, path, given.seeds, results):
                results.keep(done, score)
    text = (
        f"# The defaults of {given.model}, over many series\n\n"
        f"Made by `python benchmarks/defaults.py DATA --model {given.model}`; its docstring says what is "
        "measured. "
        f"Nats per value less those of the defaults: below 0 is better. The first {given.records} records, "
        f"seeds {', '.join(map(str, given.seeds))}; {under(before)}\n\n"
        f"{table(given.model, results, given.series, given.seeds)}\n"
    )
    (given.results / f"{page}.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
