"""Pictures of what the sequence models do, for docs/models.md.

    python benchmarks/model_pictures.py DATA FOLDER

- *rvae.png*: windows of Stocks, and windows that `rvae` draws from the prior after one pass over it, as
  `generation.py` has it; both chosen at random.
- *stream_ae.png*: three forecasts of nyc_taxi by `stream_ae` with the preset full, as `sequence_ablation.py`
  has it: 24 records ahead, from three places that are nine days and an hour apart, with what came.

DATA is as in those. One seed, chosen before anything was looked at: 0.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import generation
import numpy as np
import sequence_ablation
from sequence_ablation import AHEAD, DRAWS, STRIDE, T

from streamgen.config import WindowConfig
from streamgen.evaluation import cut
from streamgen.evaluation.page import panels, png
from streamgen.evaluation.pictures import pictures
from streamgen.models import build
from streamgen.models.online import Learner
from streamgen.models.slab import Slab
from streamgen.plotstyle import OTHER, SOFT, VALUE
from streamgen.records import Floats
from streamgen.windows import Clock

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SEED, PLACES, APART = 0, 3, 9 * 48 + 2
WIDE, NARROW = 0.2, 0.4  # opacity of the 80 % and the 50 % band


def of_rvae(data: Path) -> bytes:
    """Real and drawn windows side by side."""
    real_NTD = cut(generation.read(data, "stocks"), T, 1)
    drawn_NTD, _ = generation.drawn_after(generation.read(data, "stocks"), "stocks", SEED, len(real_NTD))
    columns = [str(d) for d in range(real_NTD.shape[2])]
    return next(one.png for one in pictures(real_NTD, drawn_NTD, columns) if one.name == "windows")


def of_stream_ae(data: Path) -> bytes:
    """Forecasts as fans, what came before, and what came."""
    series = sequence_ablation.read(data, "nyc_taxi")
    me, window = Learner(SEED, "nyc_taxi", None), WindowConfig(length=T, stride=STRIDE)
    model = build({"name": "stream_ae", "preset": "full"}, 1, window, "cpu")
    slab, clock = Slab({**model.fields(), **Clock.FIELDS}), Clock(window)
    model.start(slab, slab.add(), me)
    fans: list[tuple[int, Floats]] = []
    done = 0
    for place in range(PLACES):
        end = len(series.value_ND) // 2 + place * APART
        row_N = np.zeros(end - done, dtype=np.int64)
        ticks = clock.advance(slab, row_N, series.time_N[done:end])
        model.run(slab, row_N, series.value_ND[done:end], ticks, [me])
        fans.append((end, model.generate(slab, 0, me, AHEAD, DRAWS, seed=end)[..., 0]))
        done = end
    return png(partial(_fans, series.value_ND[:, 0], fans))


def _fans(value_N: Floats, fans: list[tuple[int, Floats]]) -> Drawing:
    drawing, axes = panels(1, len(fans), 2.8)
    ahead_T = np.arange(1, AHEAD + 1)
    for axis, (end, drawn_ST) in zip(axes[0], fans, strict=True):
        for share, opacity in ((0.8, WIDE), (0.5, NARROW)):
            low_T, high_T = np.quantile(drawn_ST, [0.5 - share / 2, 0.5 + share / 2], axis=0)
            axis.fill_between(ahead_T, low_T, high_T, color=OTHER, alpha=opacity, linewidth=0)
        axis.plot(np.arange(1 - T, AHEAD + 1), value_N[end - T : end + AHEAD], color=VALUE, linewidth=1.2)
        axis.plot(ahead_T, drawn_ST[0], color=OTHER, linewidth=0.8)
        axis.axvline(0.5, color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)))
        axis.set_xlabel("records from then on")
    return drawing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "stream_ae.png").write_bytes(of_stream_ae(given.data))
    (given.folder / "rvae.png").write_bytes(of_rvae(given.data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
