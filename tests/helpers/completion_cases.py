"""Small models, images and masks with known posteriors, which the tests of completion share."""

import numpy as np
from oracles import LinearModel, Plane
from own_parts import TwoNumberGaussian
from scipy import stats
from small_models import built, scaled_decoder, tiny

import kvae
from kvae.completion import masks
from kvae.model import networks
from kvae.model.posteriors import Gaussian

TOP = masks.named("top", (4, 4, 1))
SHORT = {"steps": 20}  # where it is not the quality of q that is tested

# What is computed in batches or chunks of another size may be rounded otherwise: some eps of 10 nats in float32.
ROUNDING = {"rtol": 0, "atol": 1e-4}


def untrained(image_shape=(4, 4, 1), latent_dim=2, likelihood="bernoulli"):
    """A model whose pixels depend visibly, but smoothly, on z: the posterior given some is nearly Gaussian."""
    return scaled_decoder(tiny(latent_dim=latent_dim, likelihood=likelihood, seed=1), image_shape, 1.5)


def convolutional(image_shape):
    encoder = networks.ConvEncoder(2, filters=(4,), dense_units=8, activation="tanh", seed=1)
    return scaled_decoder(kvae.VAE(encoder=encoder, seed=1), image_shape, 1.5)


def two_numbers():
    """x ~ N(mean, variance), both of them the decoder's."""
    return built((4, 4, 1), latent_dim=2, hidden_units=(8,), likelihood=TwoNumberGaussian(), seed=1)


class Case:
    """A model, four images that it generated, each with its own mask, and the grid that has their exact values."""

    def __init__(self, vae, likelihood="bernoulli"):
        self.vae, self.likelihood = vae, likelihood
        self.x = vae.generate(4, seed=3).numpy()
        self.mask = np.random.default_rng(5).uniform(size=self.x.shape) < 0.6
        self.flat_mask = self.mask.reshape(4, -1)
        dense = isinstance(vae.decoder, networks.MLPDecoder)
        self.plane = Plane(vae, self.x, likelihood, None if dense else self.decode)

    def decode(self, z):
        return np.float64(self.vae.decode(z)).reshape(len(z), -1)


CASES = {
    "colour, odd size": lambda: Case(untrained((3, 5, 3))),
    "continuous Bernoulli": lambda: Case(untrained((5, 3, 1), 2, "continuous_bernoulli"), "continuous_bernoulli"),
    "Gaussian": lambda: Case(untrained((3, 4, 1), 2, "gaussian"), "gaussian"),
    "convolutions": lambda: Case(convolutional((5, 3, 2))),
}


class LinearCase:
    """A linear model of 3 latent dimensions whose posterior given the left half is factorized, and 4 images."""

    observed = np.array([[1, 0]] * 4, bool)[..., None]  # of images (4, 2, 1)

    def __init__(self):
        rng = np.random.default_rng(0)
        self.pixels = self.observed.ravel()
        weights = 0.4 * rng.normal(size=(8, 3))
        orthogonal, _ = np.linalg.qr(rng.normal(size=(4, 3)))
        weights[self.pixels] = orthogonal * [0.5, 0.3, 0.1]
        self.model = LinearModel(weights, np.full(8, 0.5), 0.3, (4, 2, 1))
        self.vae = self.model.vae
        flat = self.model.bias + rng.normal(size=(4, 3)) @ weights.T + 0.3 * rng.normal(size=(4, 8))
        self.flat = np.clip(flat, 0, 1).astype(np.float32)
        self.x = self.flat.reshape(-1, 4, 2, 1)

    def posteriors(self, pixels=None):
        """Means `[4, 3]` and precisions `[4, 3, 3]` given these pixels."""
        found = [self.model.posterior(flat, self.pixels if pixels is None else pixels) for flat in self.flat]
        return np.stack([part.mean for part in found]), np.linalg.inv([part.covariance for part in found])

    def log_evidence(self, pixels=None):
        return np.array(
            [self.model.log_evidence(flat, self.pixels if pixels is None else pixels) for flat in self.flat]
        )


def repeated(x, times):
    """Every image `times` times: their estimates are independent, since the draws depend on the place of an image."""
    return np.repeat(x, times, axis=0)


def same_q_for_all(count, mean, log_var):
    """The same q for each of `count` images, with both dimensions equal."""
    return Gaussian(np.full((count, 2), mean, np.float32), np.full((count, 2), log_var, np.float32))


def assert_within_standard_errors(found, expected, standard_error):
    np.testing.assert_array_less(np.abs(found - expected), 4 * standard_error)


def assert_same_completion(found, expected):
    """Two completions that only rounding may tell apart."""
    np.testing.assert_allclose(found.inferred.mean, expected.inferred.mean, **ROUNDING)
    np.testing.assert_allclose(found.means, expected.means, **ROUNDING)
    np.testing.assert_allclose(found.score.log_density, expected.score.log_density, **ROUNDING)
    # Of pixels that are 0 or 1, rounding could flip one in 10^5.
    assert np.array_equal(found.draws, expected.draws)


class MovedCase:
    """A linear model with the prior N(m + c, 2^2 I), c being the condition of an image, and the closed form of each."""

    centre, conditions = np.array([3.0, -5.0]), np.array([0.0, 2.0, -4.0], np.float32)
    pixels = np.array([1, 1, 0, 1, 0, 1], bool)
    observed = pixels.reshape(3, 2, 1)

    def __init__(self):
        rng = np.random.default_rng(0)
        weights, _ = np.linalg.qr(rng.normal(size=(6, 2)))
        weights[self.pixels] = np.linalg.qr(rng.normal(size=(4, 2)))[0] * [0.4, 0.2]  # a posterior that is factorized
        bias = 0.5 - weights @ self.centre  # pixels about 0.5 where there is no condition
        given = weights, bias, 0.3, (3, 2, 1)
        self.vae = LinearModel(*given, self.centre, 2.0, condition_shape=()).vae
        self.models = [LinearModel(*given, self.centre + c, 2.0) for c in self.conditions]
        self.flat = rng.uniform(size=(3, 6)).astype(np.float32)
        self.x = self.flat.reshape(3, 3, 2, 1)

    def each(self, measure, *arguments):
        """A closed form of every image, under the prior of its condition."""
        return [getattr(model, measure)(flat, *arguments) for model, flat in zip(self.models, self.flat, strict=True)]

    def log_missing(self):
        return [
            stats.multivariate_normal(*predictive).logpdf(flat[~self.pixels])
            for predictive, flat in zip(self.each("predictive", self.pixels), self.flat, strict=True)
        ]
