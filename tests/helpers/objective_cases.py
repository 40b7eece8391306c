"""Objectives of every kind, and a model in float64 that is small enough for finite differences."""

import numpy as np

from kvae import objectives
from kvae.internal.tensorflow import tf
from kvae.model import densities
from kvae.model.posteriors import Gaussian

IMAGES, PIXELS, LATENT, DRAWS = 5, 4, 2, 6
# Of each kind an object whose options are not the defaults.
CASES = {
    "elbo": lambda: objectives.ELBO(1.5, samples=DRAWS),
    "iwae": lambda: objectives.IWAE(DRAWS),
    "dreg": lambda: objectives.DReG(DRAWS),
    "miwae": lambda: objectives.MIWAE(DRAWS, groups=3),
    "piwae": lambda: objectives.PIWAE(DRAWS, groups=3),
    "ciwae": lambda: objectives.CIWAE(DRAWS, weight=0.3),
    "free_bits": lambda: objectives.FreeBits(0.4, samples=DRAWS),
    "capacity": lambda: objectives.Capacity(3.0, 0.5, samples=DRAWS),
    "beta_tc": lambda: objectives.BetaTC(4.0, samples=DRAWS, data_size=23),
    "info": lambda: objectives.Info(0.3, 9.0, samples=DRAWS),
}
DEEP = [name for name in CASES if name != "dreg"]  # whose losses have the gradients of their values


class Float64Model:
    """Linear encoder and decoder without biases, Bernoulli pixels, in float64 with fixed noise.

    Args:
        images: number of images.
        draws: number of draws per image, K.
        seed: seed of the images, the weights and the noise.
    """

    def __init__(self, images=IMAGES, draws=DRAWS, seed=0):
        rng = np.random.default_rng(seed)
        self.x = rng.integers(0, 2, (images, PIXELS)).astype(np.float64)
        self.noise = rng.normal(size=(draws, images, LATENT))
        # The mean, the log variance, the logits.
        shapes = ((PIXELS, LATENT), (PIXELS, LATENT), (LATENT, PIXELS))
        self.weights = [rng.normal(scale=0.7, size=shape) for shape in shapes]

    def draws(self, weights=None, kl="analytic"):
        """The `Draws` for these weights, by default the own ones."""
        for_mean, for_log_var, for_logits = self.weights if weights is None else weights
        q = Gaussian(tf.matmul(self.x, for_mean), tf.matmul(self.x, for_log_var))
        z = densities.reparameterize(*q, self.noise)
        logits = tf.einsum("kbd,dp->kbp", z, for_logits)
        log_likelihood = tf.reduce_sum(densities.bernoulli_log_density(self.x, logits), axis=-1)
        log_prior = tf.reduce_sum(densities.standard_normal_log_density(z), axis=-1)
        log_q, per_dimension = q.log_prob(z), densities.gaussian_kl(*q)
        closed = tf.reduce_sum(per_dimension, axis=-1)
        sampled = tf.reduce_mean(log_q - log_prior, axis=0)
        return objectives.Draws(
            z, log_likelihood, log_prior, log_q, closed if kl == "analytic" else sampled, per_dimension, q
        )
