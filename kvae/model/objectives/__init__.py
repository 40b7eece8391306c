"""Objectives, which training minimises, one class per objective; and the draws from q that they are computed from.

Everything is in nats per image: summed over pixels and latent dimensions, averaged over the K draws, one number per
image. `elbo` always has beta = 1; `loss` is what training minimises.
"""

from kvae.internal.errors import unknown
from kvae.model.objectives.base import KL_KINDS, Draws, Objective
from kvae.model.objectives.elbo import ELBO
from kvae.model.objectives.importance_weighted import importance_weighted_bound
from kvae.model.objectives.schedules import Beta, LinearWarmup, check_beta, is_number, is_variable

__all__ = [
    "ELBO",
    "KL_KINDS",
    "OBJECTIVES",
    "Beta",
    "Draws",
    "LinearWarmup",
    "Objective",
    "check_beta",
    "get",
    "importance_weighted_bound",
    "is_number",
    "is_variable",
]

OBJECTIVES: dict[str, type[Objective]] = {"elbo": ELBO}


def get(objective: "str | Objective") -> Objective:
    """The objective itself, or a new one from its name in `OBJECTIVES`. Raises `UserError` if it is neither."""
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str) and objective in OBJECTIVES:
        return OBJECTIVES[objective]()
    raise unknown("objective", objective, OBJECTIVES)
