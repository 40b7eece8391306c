"""The categorical distribution, for pixels with few levels."""

from typing import Any

import numpy as np

from kvae.internal.tensorflow import keras, tf
from kvae.model.likelihoods.base import Likelihood, Shape, uniforms
from kvae.model.likelihoods.discretized_logistic import check_levels
from kvae.noise.keyed import Noise

MOST_LEVELS = 256


@keras.saving.register_keras_serializable("kvae")
class Categorical(Likelihood):
    """Any probabilities of a few levels k / (levels - 1), the softmax of as many logits per pixel.

    van den Oord et al., "Pixel Recurrent Neural Networks" (2016), section 2.2, for 256 levels.

    One of the logits can be fixed, so the decoder returns levels - 1 numbers per pixel: the logits of the first and the
    last level are 0 and t, the first number, and that of a level k between them is k t / (levels - 1) plus a number of
    its own. So decoders can begin with bright and dark pixels (`output_bias`) as for other likelihoods. With two levels
    it would be the Bernoulli. Evaluations have `bits_per_dimension`.

    Args:
        levels: number of levels, in 3..256. 4 by default.

    Raises:
        UserError: if `levels` is not a whole number in 3..256.
    """

    def __init__(self, levels: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels: int = check_levels(levels, 3, MOST_LEVELS)

    def parameters_shape(self, image_shape: Shape) -> Shape:
        return (*image_shape, self.levels - 1)

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        """Nats per pixel. A pixel between two levels counts as the nearest."""
        logits = self._logits(parameters)
        of_level = tf.one_hot(tf.cast(tf.round(x * (self.levels - 1)), tf.int32), self.levels, dtype=logits.dtype)
        return tf.reduce_sum(of_level * logits, axis=-1) - tf.reduce_logsumexp(logits, axis=-1)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        levels = tf.constant(self._values()[:, None], tf.float32)
        return self._image(tf.matmul(self._probabilities(parameters), levels), parameters)

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """A draw by the inverse distribution function: the number of levels whose sum of probabilities is below u."""
        numbers = tf.reshape(uniforms(parameters[..., 0], noise), (-1, 1))
        below = tf.cumsum(self._probabilities(parameters), axis=-1)[:, :-1] <= numbers
        count = tf.reduce_sum(tf.cast(below, tf.float32), axis=-1)
        return self._image(count / (self.levels - 1), parameters)

    def _values(self) -> Any:
        """The values of the levels, `[levels]`."""
        return np.arange(self.levels) / (self.levels - 1)

    def _logits(self, parameters: tf.Tensor) -> tf.Tensor:
        """The logits of all levels, `[..., levels - 1]` -> `[..., levels]`."""
        trend = parameters[..., :1] * tf.constant(self._values(), parameters.dtype)
        ends = [[0, 0]] * (len(parameters.shape) - 1) + [[1, 1]]
        return trend + tf.pad(parameters[..., 1:], ends)

    def _probabilities(self, parameters: tf.Tensor) -> tf.Tensor:
        """The probabilities of all levels, with all pixels in one axis, because LiteRT broadcasts no five axes."""
        return tf.nn.softmax(self._logits(tf.reshape(parameters, (-1, self.levels - 1))))

    def _image(self, pixels: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        """Pixels in one axis as images, in the shape of what the decoder returned for them."""
        images = tf.reshape(pixels, tf.shape(parameters)[:-1])
        images.set_shape(parameters.shape[:-1])  # `tf.ensure_shape` is not built into LiteRT.
        return images

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": self.levels}
