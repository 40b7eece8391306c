"""p(x|z): log densities, means and draws from what a decoder returns. One class per likelihood, one file per kind.

`base.py` says what every likelihood must do.
"""

from kvae.model import parts
from kvae.model.likelihoods.base import Likelihood
from kvae.model.likelihoods.bernoulli import Bernoulli
from kvae.model.likelihoods.categorical import Categorical
from kvae.model.likelihoods.continuous_bernoulli import ContinuousBernoulli
from kvae.model.likelihoods.discretized_logistic import DiscretizedLogistic
from kvae.model.likelihoods.gaussian import Gaussian, GaussianPerPixel, SquaredError
from kvae.model.likelihoods.laplace import Laplace
from kvae.model.likelihoods.student_t import StudentT

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "GaussianPerPixel",
    "Laplace",
    "Likelihood",
    "SquaredError",
    "StudentT",
    "get",
    "name_of",
]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "gaussian_per_pixel": GaussianPerPixel,
    "laplace": Laplace,
    "student_t": StudentT,
    "discretized_logistic": DiscretizedLogistic,
    "categorical": Categorical,
    "squared_error": SquaredError,
}


def get(likelihood: "str | Likelihood") -> Likelihood:
    """The likelihood itself, or a new one from its name in `LIKELIHOODS`. Raises `UserError` if it is neither."""
    return parts.get("likelihood", likelihood, LIKELIHOODS, Likelihood)


def name_of(likelihood: Likelihood) -> str:
    """The name of a likelihood in `LIKELIHOODS`, or the name of its class if it is not there."""
    return parts.name_of(likelihood, LIKELIHOODS)
