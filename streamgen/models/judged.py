"""What a mixture over whole records says of one: the scores that the sequence models share.

Shapes: D features, K components.
"""

from __future__ import annotations

import numpy as np
import torch

from streamgen.models.contributions import shares
from streamgen.models.mixture_t import MixtureT, quantiles
from streamgen.models.online import Scores
from streamgen.models.scale import Scale
from streamgen.records import Floats

EDGES = 0.05, 0.95  # of the 90 % interval


def judged(
    scores: Scores, n: int, value_D: Floats, mixture: MixtureT, origin_D: Floats, unit_D: Floats,
    before: Scale,
) -> Floats:  # fmt: skip
    """Write into `scores` what record n is worth by a mixture of y = (x − origin) / unit.

    The nll is in nats of steps, whatever the mixture's units. A feature that never had a value before has no
    part in it. The interval of a value that is there is of what was expected before the record; that of a
    missing one is, like its `expected`, of what is likely beside those that are there. Returns the derivative
    of the nll for the log scale of each axis, [D] (`stretch`); zero when there was nothing to judge.
    """
    known_D = before.count_D > 0
    seen_D = ~np.isnan(value_D) & known_D
    y_D = np.where(seen_D, np.clip((value_D - origin_D) / unit_D, -1e6, 1e6), 0.0)
    device = mixture.factor_DD.device
    y_1D, mask_1D = (torch.from_numpy(one[None]).to(device) for one in (y_D, seen_D))
    worth = mixture.judge(y_1D, mask_1D)
    nll, tail = float(worth.nll_N), float(worth.tail_N)
    if seen_D.any():
        delta_D = before.delta()[seen_D]
        nll += float(np.log(unit_D[seen_D] / delta_D).sum())
        strangeness, drift = (ask(value_D, seen_D, mixture.dof) for ask in (before.strangeness, before.drift))
        scores.nll_N[n], scores.log_step_N[n] = nll, np.log(delta_D).sum()
        scores.surprise_NS[n] = nll, strangeness, drift
        quadratic_D = worth.quadratic_ND[0].cpu().numpy()
        scores.contribution_ND[n] = shares(nll, tail, quadratic_D, seen_D)
    weight_K = torch.exp(mixture.log_weight_NK[0].double()).cpu().numpy()
    location_KD = mixture.location_NKD()[0].cpu().numpy()
    spread_KD = mixture.spread_NKD()[0].cpu().numpy()
    of_D = np.where(known_D, origin_D, np.nan)
    scores.expected_ND[n] = of_D + unit_D * worth.expected_ND[0].cpu().numpy()
    table = quantiles(mixture.dof)
    edge_2D = np.stack([table.of(share, weight_K, location_KD, spread_KD) for share in EDGES])
    if seen_D.any() and not seen_D[known_D].all():
        weight_K, location_KD, spread_KD = (part[0].cpu().numpy() for part in mixture.given(y_1D, mask_1D))
        table = quantiles(mixture.dof + int(seen_D.sum()))
        beside_2D = np.stack([table.of(share, weight_K, location_KD, spread_KD) for share in EDGES])
        edge_2D = np.where(seen_D, edge_2D, beside_2D)
    scores.low_ND[n], scores.high_ND[n] = of_D + unit_D * edge_2D
    return np.asarray(worth.stretch_ND[0].cpu().numpy() * bool(seen_D.any()))
