"""The Laplace distribution, for grey pixels."""

import math

from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.likelihoods.base import uniforms
from kvae.model.likelihoods.one_variance import OneVariance
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream


@keras.saving.register_keras_serializable("kvae")
class Laplace(OneVariance):
    """Grey pixels with mean sigmoid(logits) and one variance 2 s^2: the absolute error, divided by the scale s.

        p(x|z) = 1 / (2 s) exp(-|x - m| / s),   m = sigmoid(logits)

    It is less sensitive to single pixels with a large error than a Gaussian. Kendall and Gal, "What Uncertainties Do We
    Need in Bayesian Deep Learning for Computer Vision?" (2017). The arguments are those of `Gaussian`.
    """

    @property
    def log_scale(self) -> tf.Tensor:
        """The logarithm of the scale s, `[]`."""
        return 0.5 * (self.log_variance - math.log(2.0))

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.laplace_log_density(x, tf.sigmoid(parameters), self.log_scale)

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """A draw by the inverse distribution function, clipped to [0, 1] as all images are."""
        centred = uniforms(parameters, noise) - 0.5
        distance = -tf.exp(self.log_scale) * tf.math.log(1.0 - 2.0 * tf.abs(centred))  # infinite for the number 0
        mean = tf.sigmoid(parameters)
        return tf.clip_by_value(tf.where(centred < 0, mean - distance, mean + distance), 0.0, 1.0)

    def unclipped_sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """A draw as the difference of two exponential numbers, which is never infinite."""
        pairs = tf.math.log(1.0 - noise.uniform((*parameters.shape[1:], 2), Stream.PIXELS))  # 1 - u is above 0
        return tf.sigmoid(parameters) + tf.exp(self.log_scale) * (pairs[..., 0] - pairs[..., 1])
