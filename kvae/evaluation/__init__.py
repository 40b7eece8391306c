"""Numbers to publish: means over a whole set with their standard errors, in nats per example, and their protocol.

`EVALUATIONS` names them; `kvae evaluate` runs them, evaluation.json keeps them, and `kvae verify` derives them again.
Every draw is a function of (seed, place of the example in the set, number of the draw), so a result depends neither
on the batch size nor on how the draws are cut into chunks.
"""

from kvae.evaluation.elbo_estimate import ElboTerms, elbo
from kvae.evaluation.estimate import Estimate
from kvae.evaluation.importance_weighted import log_likelihood
from kvae.evaluation.table import EVALUATIONS, Evaluation, evaluate, results_of

__all__ = ["EVALUATIONS", "ElboTerms", "Estimate", "Evaluation", "elbo", "evaluate", "log_likelihood", "results_of"]
