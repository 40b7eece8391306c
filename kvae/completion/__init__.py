"""Conditional completion: the distribution of the missing pixels of an image, given the observed ones.

- `variational` fits q(z | observed) for many images at once.
- `prediction` computes the mean of the missing pixels and draws them.
- `scoring` estimates log p(missing | observed).
- `baselines` gives the same score for simpler predictors.
- `complete` does the first three in one call, and `evaluate` compares its score with the baselines.
"""

from kvae.completion.baselines import pixel_mean_baseline, zero_filled_baseline
from kvae.completion.completions import Completion, complete, evaluate
from kvae.completion.scoring import LEAST_EFFECTIVE, Score, importance_estimate, quadrature_score, score
from kvae.completion.variational_inference import Inferred, article_options, infer

__all__ = [
    "LEAST_EFFECTIVE",
    "Completion",
    "Inferred",
    "Score",
    "article_options",
    "complete",
    "evaluate",
    "importance_estimate",
    "infer",
    "pixel_mean_baseline",
    "quadrature_score",
    "score",
    "zero_filled_baseline",
]
