"""p(z): the log density of the latent space, draws, and the region with its probability mass. One class per file.

`base.py` says what every prior must do.
"""

from kvae.model import parts
from kvae.model.priors.base import Prior
from kvae.model.priors.flow import Flow
from kvae.model.priors.hierarchical import Hierarchical
from kvae.model.priors.mixture import Mixture
from kvae.model.priors.standard_normal import StandardNormal, is_standard_normal
from kvae.model.priors.vamp import VampPrior

__all__ = [
    "PRIORS",
    "Flow",
    "Hierarchical",
    "Mixture",
    "Prior",
    "StandardNormal",
    "VampPrior",
    "get",
    "is_standard_normal",
    "name_of",
]

PRIORS: dict[str, type[Prior]] = {
    "standard_normal": StandardNormal,
    "mixture": Mixture,
    "vamp": VampPrior,
    "flow": Flow,
    "hierarchical": Hierarchical,
}


def get(prior: "str | Prior") -> Prior:
    """The prior itself, or a new one from its name in `PRIORS`. Raises `UserError` if it is neither."""
    return parts.get("prior", prior, PRIORS, Prior)


def name_of(prior: Prior) -> str:
    """The name of a prior in `PRIORS`, or the name of its class if it is not there."""
    return parts.name_of(prior, PRIORS)
