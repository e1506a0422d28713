"""What learning a series once, record by record, costs against learning it in batch.

    python benchmarks/generation_batch.py DATA [--seeds 0 1 2] [--results DIR]

Both have the network, settings and number of updates of `generation.py`, on Stocks. *Online* is that of
`generation.py`: an update a record, on the newest window and 31 of those before. *Batch* has all windows, and
the units of the whole series, before its first update: each update is on 32 windows drawn from all. The
difference of the figures (`generation.py`, field's protocol) is what a stream costs. DATA is as there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
from generation import FIELDS, SETTINGS, STEP_MS, T, drawn_after, read
from machine import load, under

from streamgen.config import WindowConfig
from streamgen.evaluation import cut
from streamgen.models.online import Learner, Scores
from streamgen.models.rvae import RVAE, Settings
from streamgen.models.slab import Slab
from streamgen.models.windowed import Parts, Windowed
from streamgen.records import Floats
from streamgen.windows import Clock

NAME = "stocks"
FIGURES = ("discriminative score", "stronger judge", "Context-FID")


def drawn_after_batch(value_ND: Floats, seed: int, count: int) -> Floats:
    """[count, T, D] windows of a learner that had all windows from its first update on."""
    me = Learner(seed=seed, topic=NAME, key=None)
    window = WindowConfig(length=T, stride=1)
    settings = Settings(**SETTINGS | {"reservoir": len(value_ND), "recent": 0.0})
    model = RVAE(settings, value_ND.shape[1], window, "cpu")
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), me)
    row_N = np.zeros(len(value_ND), dtype=np.int64)
    ticks = Clock(window).advance(slab, row_N, np.arange(len(value_ND)) * STEP_MS[NAME])

    def kept_only(self: Windowed, slab: Slab, row: int, learner: Learner, *_: object) -> None:
        self.reservoir.keep(slab, row, learner)

    with patch.object(Windowed, "learn", kept_only):
        model.run(slab, row_N, value_ND, ticks, [me])
    reservoir = model.windowed.reservoir

    def of_all(slab: Slab, row: int, count: int, noise: np.random.Generator) -> Parts:
        slot_B = noise.integers(len(value_ND) - T + 1, size=count)
        return tuple(part[slot_B] for part in reservoir.kept(slab, row))

    scores = Scores.empty(0, value_ND.shape[1], model.surprises)
    with patch.object(reservoir, "batch", of_all), patch.object(reservoir, "keep", lambda *_: None):
        for _ in range(len(value_ND) - T + 1):
            model.windowed.learn(slab, 0, me, scores, model.loss_and_gradient)
    return model.sequences(slab, 0, me).sample(T, count, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    before = load()
    value_ND = read(given.data, NAME)
    real_NTD = cut(value_ND, T, 1)
    found: dict[str, list[tuple[float, float]]] = {figure: [] for figure in FIGURES}
    for seed in given.seeds:
        online_NTD, _ = drawn_after(value_ND, NAME, seed, len(real_NTD))
        batch_NTD = drawn_after_batch(value_ND, seed, len(real_NTD))
        for figure in FIGURES:
            pair = tuple(FIELDS[figure](real_NTD, drawn, seed) for drawn in (online_NTD, batch_NTD))
            found[figure].append((pair[0], pair[1]))
            print(seed, figure, *pair, flush=True)
    lines = ["| figure | online | batch | online minus batch ± deviation |", "|---|---:|---:|---:|"]
    for figure, pairs in found.items():
        pair_S2 = np.array(pairs)
        online, batch = pair_S2.mean(0)
        difference_S = pair_S2[:, 0] - pair_S2[:, 1]
        spread = f" ± {difference_S.std(ddof=1):.3f}" if len(pairs) > 1 else ""
        lines.append(f"| {figure} | {online:.3f} | {batch:.3f} | {difference_S.mean():+.3f}{spread} |")
    text = (
        "# Learning online against learning in batch, at an equal number of updates\n\n"
        "Made by `python benchmarks/generation_batch.py DATA`; its docstring says what is measured. Stocks, "
        f"seeds {', '.join(map(str, given.seeds))}; {under(before)}\n\n" + "\n".join(lines) + "\n"
    )
    (given.results / "generation_batch.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
