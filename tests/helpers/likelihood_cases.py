"""Every likelihood of one number per pixel with its density in SciPy, and likelihoods as a user may write them."""

import math

import numpy as np
import pytest
from scipy import special, stats

from kvae.internal.tensorflow import tf
from kvae.model import likelihoods

LIKELIHOODS = {
    "bernoulli": likelihoods.Bernoulli,
    "continuous_bernoulli": likelihoods.ContinuousBernoulli,
    "gaussian": lambda: likelihoods.Gaussian(0.01),
    "learned_gaussian": lambda: likelihoods.Gaussian("learned"),
    "squared_error": likelihoods.SquaredError,
    "laplace": lambda: likelihoods.Laplace(0.01),
    "student_t": lambda: likelihoods.StudentT(0.02),
}
each = pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS)
NOISE = {
    "bernoulli": "uniform",
    "continuous_bernoulli": "uniform",
    "gaussian": "normal",
    "learned_gaussian": "normal",
    "squared_error": "normal",
    "laplace": "uniform",
}
each_with_its_noise = pytest.mark.parametrize(
    ("make", "kind"), [(LIKELIHOODS[name], kind) for name, kind in NOISE.items()], ids=NOISE
)
IMAGE = (3, 2, 2)


def continuous_bernoulli_density(x, logit):
    """lambda^x (1 - lambda)^(1 - x) up to a constant."""
    return math.exp(logit * x - max(logit, 0.0))


def continuous_bernoulli_log_density(x, logits):
    """The distance of x from the likelier edge is a truncated exponential of rate |logit|."""
    rate = np.abs(logits)
    return stats.truncexpon.logpdf(np.where(logits > 0, 1 - x, x), rate, scale=1 / rate)


# Nats per pixel, float64.
EXPECTED = {
    "bernoulli": lambda x, logits: x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits),
    "continuous_bernoulli": continuous_bernoulli_log_density,
    "gaussian": lambda x, logits: stats.norm.logpdf(x, special.expit(logits), math.sqrt(0.01)),
    "learned_gaussian": lambda x, logits: stats.norm.logpdf(x, special.expit(logits), math.sqrt(0.1)),
    "squared_error": lambda x, logits: -0.5 * (x - special.expit(logits)) ** 2,
    "laplace": lambda x, logits: stats.laplace.logpdf(x, special.expit(logits), math.sqrt(0.01 / 2)),
    "student_t": lambda x, logits: stats.t.logpdf(x, 4, special.expit(logits), math.sqrt(0.02 / 2)),
}
each_by_name = pytest.mark.parametrize("name", LIKELIHOODS)


class Given:
    """Noise of one kind that is the numbers it was given; `asked` lists what for."""

    def __init__(self, kind, numbers):
        self.kind, self.numbers, self.asked = kind, tf.convert_to_tensor(numbers), []

    def normal(self, shape, stream):
        return self._given("normal", shape, stream)

    def uniform(self, shape, stream):
        return self._given("uniform", shape, stream)

    def _given(self, kind, shape, stream):
        assert (kind, tuple(shape)) == (self.kind, tuple(self.numbers.shape[1:]))
        self.asked.append(stream)
        return self.numbers


class Laplace(likelihoods.Likelihood):
    """Two numbers per pixel: where it lies and the logarithm of the scale. `shapes` is what the density was given."""

    support = (-math.inf, math.inf, False)

    def parameters_shape(self, image_shape):
        return (*image_shape, 2)

    def log_prob_of_pixels(self, x, parameters):
        self.shapes = (tuple(x.shape), tuple(parameters.shape))
        location, log_scale = parameters[..., 0], parameters[..., 1]
        return -tf.abs(x - location) * tf.exp(-log_scale) - log_scale - math.log(2.0)


class Counts(likelihoods.Likelihood):
    support = (0, 255, True)


class Spread(likelihoods.Likelihood):
    support = (-1.0, 1.0, False)


class Positive(likelihoods.Likelihood):
    support = (0.0, math.inf, False)


# Inputs are float32 and expected values float64: a few float32 eps of densities up to 10.
DENSITY_TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
