"""Evaluations of a model: means over a whole set with standard errors, in nats per image, and their protocol.

`EVALUATIONS` is the table of their names. `kvae evaluate` computes them, evaluation.json contains the results, and
`kvae verify` computes them again. Each draw depends only on the seed, on the index of the image in the set and on the
number of the draw. So a result depends neither on the batch size nor on the size of the chunks of draws.
"""

from kvae.evaluation.classifier import Classification, classification
from kvae.evaluation.defensive_estimate import Defensive, defensive
from kvae.evaluation.elbo_terms import ElboTerms, elbo
from kvae.evaluation.encoding import Encoded, encode
from kvae.evaluation.estimate import Estimate
from kvae.evaluation.evaluations import EVALUATIONS, Evaluation, evaluate, results_of
from kvae.evaluation.evidence import Quadrature, quadrature
from kvae.evaluation.importance_weighted import Bounds, bounds, log_likelihood
from kvae.evaluation.inference_gaps import Gaps, gaps

__all__ = [
    "EVALUATIONS",
    "Bounds",
    "Classification",
    "Defensive",
    "ElboTerms",
    "Encoded",
    "Estimate",
    "Evaluation",
    "Gaps",
    "Quadrature",
    "bounds",
    "classification",
    "defensive",
    "elbo",
    "encode",
    "evaluate",
    "gaps",
    "log_likelihood",
    "quadrature",
    "results_of",
]
