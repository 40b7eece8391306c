"""Conditional completion: what the missing pixels of an image may be, given those that are observed.

`variational` fits q(z | observed) for many images at once, `prediction` draws the missing pixels and their mean,
`scoring` tells log p(missing | observed), `baselines` what simpler predictors would score. `complete` is all of it.
"""

from kvae.completion.baselines import pixel_mean_baseline, zero_filled_baseline
from kvae.completion.completions import Completion, complete, evaluate
from kvae.completion.scoring import Score, importance_estimate, quadrature_score, score
from kvae.completion.variational import Inferred, article_options, infer

__all__ = [
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
