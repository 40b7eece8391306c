"""The Bernoulli, for binary pixels."""

from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.likelihoods.base import Likelihood, uniforms
from kvae.noise.keyed import Noise


@keras.saving.register_keras_serializable("kvae")
class Bernoulli(Likelihood):
    """Binary pixels: p(x=1|z) = sigmoid(logits), where the logits are the output of the decoder.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C.1.
    """

    support = (0.0, 1.0, True)

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.bernoulli_log_density(x, parameters)

    def log_prob_table(self, x: tf.Tensor, parameters: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        logits = tf.reshape(tf.cast(parameters, tf.float32), [tf.shape(parameters)[0], -1])
        x, weights = (
            tf.reshape(tf.cast(part, tf.float32), [tf.shape(x)[0], -1])
            for part in (x * tf.cast(observed, x.dtype), observed)
        )
        return tf.matmul(logits, x, transpose_b=True) - tf.matmul(tf.nn.softplus(logits), weights, transpose_b=True)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(parameters)

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        return tf.cast(uniforms(parameters, noise) < tf.sigmoid(parameters), tf.float32)
