"""q(z|x): one file per family, with a class for the family and one for a distribution of the family.

`base.py` says what both must do.
"""

from kvae.model import parts
from kvae.model.posteriors.base import MEAN_DRAWS, Distribution, NamedTensors, Posterior, as_sizes
from kvae.model.posteriors.bottom_up import BottomUp, TwoLayers
from kvae.model.posteriors.full_covariance import CorrelatedGaussian, FullCovariance
from kvae.model.posteriors.gaussian import DiagonalGaussian, Gaussian
from kvae.model.posteriors.iaf import IAF, InverseAutoregressive

__all__ = [
    "IAF",
    "MEAN_DRAWS",
    "POSTERIORS",
    "BottomUp",
    "CorrelatedGaussian",
    "DiagonalGaussian",
    "Distribution",
    "FullCovariance",
    "Gaussian",
    "InverseAutoregressive",
    "NamedTensors",
    "Posterior",
    "TwoLayers",
    "as_sizes",
    "get",
    "name_of",
]

POSTERIORS: dict[str, type[Posterior]] = {
    "diagonal_gaussian": DiagonalGaussian,
    "full_covariance": FullCovariance,
    "iaf": IAF,
    "bottom_up": BottomUp,
}


def get(posterior: "str | Posterior") -> Posterior:
    """The posterior itself, or a new one from its name in `POSTERIORS`. Raises `UserError` if it is neither."""
    return parts.get("posterior", posterior, POSTERIORS, Posterior)


def name_of(posterior: Posterior) -> str:
    """The name of a posterior in `POSTERIORS`, or the name of its class if it is not there."""
    return parts.name_of(posterior, POSTERIORS)
