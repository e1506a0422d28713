"""How likely a learner finds records that it has not learned from, in nats and in the data's own units.

A score is in nats of steps, y = (x − x before) / δ. Of the data itself the density has the Jacobian of that:

    log p(x) = log p(y) − Σ_d log δ_d                      over the values that are there

What it is to be compared with is the last value: of each step an independent Laplace whose scale is the
learner's running mean step, −log 2δ − |x − x before| / δ. No model that is worse has learned anything.

Shapes: N records in their order, B windows, K draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgen.records import Floats, Ints


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of B windows, each taken by itself: lower bounds of log p(x_1 … x_T), nats, and how many values they
    are of. `elbo_B` ≤ `importance_B` ≤ log p, the first two in every draw, the last on average."""

    elbo_B: Floats
    importance_B: Floats
    values_B: Ints

    @classmethod
    def of(cls, log_weight_KB: Floats, log_unit_B: Floats, values_B: Ints) -> Bounds:
        """From log p(y, z) − log q(z | y) of K draws of z: their mean is the evidence lower bound, the
        logarithm of the mean of their exponentials the importance-weighted one (Burda, Grosse & Salakhutdinov
        2015, "Importance weighted autoencoders"). `log_unit_B` is the logarithm of the Jacobian."""
        most_B = log_weight_KB.max(axis=0)
        importance_B = most_B + np.log(np.exp(log_weight_KB - most_B).mean(axis=0))
        return cls(log_weight_KB.mean(axis=0) - log_unit_B, importance_B - log_unit_B, values_B)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What N records are worth that follow a learner's newest.

    `log_p_N` is log p(x_n | all before it), nats; `last_value_N` the same of the last value (above). Both
    are 0 of a record that is late or in which nothing could be judged; `values_N` counts what was judged.
    `bounds`: of the windows of the records, one after the other, for a model that has a latent of a window.
    """

    log_p_N: Floats
    last_value_N: Floats
    values_N: Ints
    bounds: Bounds | None = None
