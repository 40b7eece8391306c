"""The continuous Bernoulli, for grey pixels."""

from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.likelihoods.base import Likelihood, uniforms
from kvae.noise.keyed import Noise


@keras.saving.register_keras_serializable("kvae")
class ContinuousBernoulli(Likelihood):
    """Grey pixels on [0, 1], with the density of the Bernoulli times the constant that makes it integrate to 1.

        p(x|z) = C m^x (1 - m)^(1 - x),   m = sigmoid(logits),   C = 2 artanh(1 - 2 m) / (1 - 2 m), or 2 for m = 1/2

    Loaiza-Ganem and Cunningham, "The continuous Bernoulli" (2019), equations 1 and 2.
    """

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.continuous_bernoulli_log_density(x, parameters)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """E[x|z] = 1 / (1 - exp(-l)) - 1 / l for logits l (equation 8), and 1/2 + l / 12 - l^3 / 720 near l = 0.

        It is always computed for -|l|, so that the exponential does not overflow: E(l) = 1 - E(-l).
        """
        logits = parameters
        small = tf.abs(logits) < 0.2
        magnitude = tf.where(small, tf.ones_like(logits), tf.abs(logits))
        of_minus_magnitude = 1 / magnitude + tf.exp(-magnitude) / tf.math.expm1(-magnitude)
        series = 0.5 + logits / 12 - tf.pow(logits, 3) / 720
        return tf.where(small, series, tf.where(logits > 0, 1 - of_minus_magnitude, of_minus_magnitude))

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """Draws by the inverse distribution function, log(u e^l + 1 - u) / l.

        It is always computed for -|l|, so that the exponential does not overflow: F(x; l) = 1 - F(1 - x; -l).
        """
        logits, numbers = parameters, uniforms(parameters, noise)
        magnitude = tf.maximum(tf.abs(logits), 0.05)
        mirrored = tf.where(logits > 0, 1 - numbers, numbers)
        x = -tf.math.log1p(mirrored * tf.math.expm1(-magnitude)) / magnitude  # for -|l|
        # Near l = 0 the quotient loses digits if log1p(x) is computed as log(1 + x), as in LiteRT. The series has an
        # error of 7e-7.
        scaled = numbers * (1 - numbers) * logits
        series = numbers + scaled * (0.5 + (1 - 2 * numbers) * logits / 6)
        x = tf.where(tf.abs(logits) < 0.05, series, tf.where(logits > 0, 1 - x, x))
        return tf.clip_by_value(x, 0.0, 1.0)
