"""Objectives, which training minimises, one class per objective; and the draws from q that they are computed from.

Everything is in nats per image: summed over pixels and latent dimensions, averaged over the K draws, one number per
image. `elbo` always has beta = 1; `loss` is what training minimises.
"""

import inspect
from typing import Any

from kvae.internal.errors import unknown
from kvae.model.objectives.base import KL_KINDS, Draws, Objective
from kvae.model.objectives.beta_tc import BetaTC
from kvae.model.objectives.capacity import Capacity
from kvae.model.objectives.elbo import ELBO
from kvae.model.objectives.free_bits import FreeBits
from kvae.model.objectives.importance_weighted import CIWAE, IWAE, MIWAE, PIWAE, DReG, importance_weighted_bound
from kvae.model.objectives.info import Info
from kvae.model.objectives.schedules import (
    SCHEDULES,
    Beta,
    CyclicalAnnealing,
    LinearWarmup,
    check_beta,
    is_number,
    is_variable,
)

__all__ = [
    "CIWAE",
    "ELBO",
    "IWAE",
    "KL_KINDS",
    "MIWAE",
    "OBJECTIVES",
    "PIWAE",
    "SCHEDULES",
    "Beta",
    "BetaTC",
    "Capacity",
    "CyclicalAnnealing",
    "DReG",
    "Draws",
    "FreeBits",
    "Info",
    "LinearWarmup",
    "Objective",
    "check_beta",
    "get",
    "importance_weighted_bound",
    "is_number",
    "is_variable",
    "with_options",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "elbo": ELBO,
    "iwae": IWAE,
    "dreg": DReG,
    "miwae": MIWAE,
    "ciwae": CIWAE,
    "piwae": PIWAE,
    "free_bits": FreeBits,
    "capacity": Capacity,
    "beta_tc": BetaTC,
    "info": Info,
}


def get(objective: "str | Objective") -> Objective:
    """The objective itself, or a new one from its name in `OBJECTIVES`. Raises `UserError` if it is neither."""
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str) and objective in OBJECTIVES:
        return OBJECTIVES[objective]()
    raise unknown("objective", objective, OBJECTIVES)


def with_options(objective: Any, options: dict[str, Any]) -> str:
    """How an objective with these options is written, as the end of a message; empty if it does not have them all."""
    cls = OBJECTIVES.get(objective) if isinstance(objective, str) else None
    if cls is None or not options.keys() <= inspect.signature(cls.__init__).parameters.keys():
        return ""
    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f" Write objective=kvae.objectives.{cls.__name__}({arguments})."
