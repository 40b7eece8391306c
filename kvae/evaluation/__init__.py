"""Evaluations of a model: means over a whole set with standard errors, in nats per image, and their protocol.

`EVALUATIONS` is the table of their names. `kvae evaluate` computes them, evaluation.json contains the results, and
`kvae verify` computes them again. Each draw depends only on the seed, on the index of the image in the set and on the
number of the draw. So a result depends neither on the batch size nor on the size of the chunks of draws.
"""

from kvae.evaluation.annealed import Annealed, Sandwich, ais, bdmc
from kvae.evaluation.classifier import Classification, classification
from kvae.evaluation.code_use import Information, information
from kvae.evaluation.defensive_estimate import Defensive, defensive
from kvae.evaluation.elbo_terms import ElboTerms, elbo
from kvae.evaluation.encoding import Encoded, encode
from kvae.evaluation.estimate import Estimate
from kvae.evaluation.evaluations import EVALUATIONS, Evaluation, Measured, evaluate, measure, results_of
from kvae.evaluation.evidence import Quadrature, quadrature
from kvae.evaluation.importance_weighted import Bounds, bounds, log_likelihood
from kvae.evaluation.inference_gaps import Gaps, gaps
from kvae.evaluation.lossless_compression import Compression, compress, compression, decompress
from kvae.evaluation.probes import Representation, representation
from kvae.evaluation.samples import SampleQuality, sample_quality

__all__ = [
    "EVALUATIONS",
    "Annealed",
    "Bounds",
    "Classification",
    "Compression",
    "Defensive",
    "ElboTerms",
    "Encoded",
    "Estimate",
    "Evaluation",
    "Gaps",
    "Information",
    "Measured",
    "Quadrature",
    "Representation",
    "SampleQuality",
    "Sandwich",
    "ais",
    "bdmc",
    "bounds",
    "classification",
    "compress",
    "compression",
    "decompress",
    "defensive",
    "elbo",
    "encode",
    "evaluate",
    "gaps",
    "information",
    "log_likelihood",
    "measure",
    "quadrature",
    "representation",
    "results_of",
    "sample_quality",
]
