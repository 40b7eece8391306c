"""The standard normal prior."""

import numpy as np

from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.priors.base import HALF_WIDTH, Prior, normal_numbers
from kvae.noise.keyed import Noise
from kvae.runtime import latent_points


@keras.saving.register_keras_serializable("kvae")
class StandardNormal(Prior):
    """p(z) = N(0, I); Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 3."""

    exact = True

    def log_prob(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        return tf.reduce_sum(densities.standard_normal_log_density(z), axis=-1)

    def sample(self, noise: Noise, condition: tf.Tensor | None = None) -> tf.Tensor:
        return normal_numbers(noise, self.latent_dim)

    def region(self, condition: tf.Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
        corner = np.full(self.latent_dim, HALF_WIDTH)
        return -corner, corner

    def quantiles(self, n: int) -> np.ndarray:
        return latent_points.normal_quantiles(n)


def is_standard_normal(prior: Prior) -> bool:
    """Whether closed forms for N(0, I) hold for a prior: it may be a subclass, but not one with another density."""
    return isinstance(prior, StandardNormal) and type(prior).log_prob is StandardNormal.log_prob
