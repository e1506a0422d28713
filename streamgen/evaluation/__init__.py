"""How good generated sequences are: see docs/evaluation.md."""

from streamgen.evaluation.context import context_fid, frechet_distance
from streamgen.evaluation.judges import discriminative_score, predictive_score
from streamgen.evaluation.moments import (
    autocorrelation_difference,
    cross_correlation_difference,
    marginal_difference,
)
from streamgen.evaluation.neighbours import Neighbourhood, copies, neighbourhood
from streamgen.evaluation.report import QUICK, Figure, evaluate
from streamgen.evaluation.windows import cut

__all__ = [
    "QUICK",
    "Figure",
    "Neighbourhood",
    "autocorrelation_difference",
    "context_fid",
    "copies",
    "cross_correlation_difference",
    "cut",
    "discriminative_score",
    "evaluate",
    "frechet_distance",
    "marginal_difference",
    "neighbourhood",
    "predictive_score",
]
