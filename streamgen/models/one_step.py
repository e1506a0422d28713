"""The likelihood of records one after the other, as any online model scores them (`likelihood`).

Shapes: N records in their order, D features.
"""

from __future__ import annotations

import numpy as np

from streamgen.models.likelihood import Likelihood
from streamgen.models.online import Learner, OnlineModel
from streamgen.models.scale import Scale
from streamgen.models.slab import Slab
from streamgen.records import Floats
from streamgen.windows import Ticks


def one_step(
    model: OnlineModel, slab: Slab, row: int, learner: Learner, value_ND: Floats, ticks: Ticks
) -> Likelihood:
    """Each record's likelihood given those before it. A copy of the learner is led over them: carried state
    and scales move on, weights stay, and the learner itself is not touched."""
    alone = Slab(slab.fields, str(slab.device))
    alone.load(alone.add(), slab.row(row))
    alone.load_shared(slab.shared())
    N = len(value_ND)
    log_p_N, last_value_N, values_N = np.zeros(N), np.zeros(N), np.zeros(N, dtype=np.int64)
    row_1 = np.zeros(1, dtype=np.int64)
    for n in range(N):
        if ticks.late_N[n]:
            continue
        before = Scale.of(alone, 0)
        judged_D = ~np.isnan(value_ND[n]) & (before.count_D > 0)
        step_D, delta_D = np.abs(value_ND[n] - before.last_D)[judged_D], before.delta()[judged_D]
        one = slice(n, n + 1)
        scores = model.run(alone, row_1, value_ND[one], ticks.of(one), [learner], learn=False)
        if judged_D.any():
            values_N[n] = judged_D.sum()
            log_p_N[n] = -scores.nll_N[0] - np.log(delta_D).sum()
            last_value_N[n] = -(np.log(2.0 * delta_D) + step_D / delta_D).sum()
    return Likelihood(log_p_N, last_value_N, values_N)
