"""The discretized logistic distribution, for pixels with many levels."""

import numbers
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.likelihoods.base import Likelihood, Shape, log_between, uniforms
from kvae.noise.keyed import Noise

LARGEST_SCALE = 1.0  # of a pixel in [0, 1]: then all levels are almost equally probable
SMALLEST_SCALE = 1 / 8  # in steps between two levels: then one level has a probability of 0.96
FEW_LEVELS = 16


@keras.saving.register_keras_serializable("kvae")
class DiscretizedLogistic(Likelihood):
    """Probabilities of the levels k / (levels - 1): a logistic distribution, rounded, with a scale for each pixel.

    Each level has the mass of the logistic distribution around the mean in its bin, half a step to both sides; the
    bins of the first and the last level extend to infinity. Salimans et al., "PixelCNN++: Improving the PixelCNN with
    Discretized Logistic Mixture Likelihood and Other Modifications" (2017), equation 2, with one component; Kingma et
    al., "Improving Variational Inference with Inverse Autoregressive Flow" (2016).

    The decoder returns two numbers per pixel, a and b: the location is sigmoid(a), and the scale s is between an eighth
    of a step and 1, log s = log low + (log high - log low) sigmoid(b). Evaluations then have `bits_per_dimension`.

    Args:
        levels: number of levels, at least 2. 256 by default, the levels of images of 8 bits.

    Raises:
        UserError: if `levels` is not a whole number in 2..65536.
    """

    def __init__(self, levels: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels: int = check_levels(levels, 2, 2**16)

    def parameters_shape(self, image_shape: Shape) -> Shape:
        return (*image_shape, 2)

    def _location_and_log_scale(self, parameters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        low = SMALLEST_SCALE / (self.levels - 1)
        return tf.sigmoid(parameters[..., 0]), log_between(low, LARGEST_SCALE, parameters[..., 1])

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        """Nats per pixel. A pixel between two levels counts as the nearest."""
        return densities.discretized_logistic_log_mass(x, *self._location_and_log_scale(parameters), self.levels)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """E[x|z]: exact up to 16 levels.

        For more, it is that of a draw that is clipped to [0, 1] but not rounded to a level,
        s [softplus(m / s) - softplus((m - 1) / s)] for a location m and a scale s. It differs from E[x|z] by less than
        half a step, and by less than 0.025 steps if s is at least half a step.
        """
        location, log_scale = self._location_and_log_scale(parameters)
        steps, precision = self.levels - 1, tf.exp(-log_scale)
        if self.levels <= FEW_LEVELS:  # The sum over all k of P(the level is k or a higher one) is E[k].
            exceeded = [tf.sigmoid((location - (k - 0.5) / steps) * precision) for k in range(1, self.levels)]
            return tf.add_n(exceeded) / steps
        difference = _softplus(location * precision) - _softplus((location - 1.0) * precision)
        return tf.clip_by_value(difference * tf.exp(log_scale), 0.0, 1.0)

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """A draw by the inverse distribution function, m + s log(u / (1 - u)), rounded to the nearest level."""
        location, log_scale = self._location_and_log_scale(parameters)
        u, steps = uniforms(location, noise), self.levels - 1
        x = location + tf.exp(log_scale) * (tf.math.log(u) - tf.math.log(1.0 - u))  # -infinity for u = 0
        return tf.round(tf.clip_by_value(x, 0.0, 1.0) * steps) / steps

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": self.levels}


def check_levels(levels: Any, least: int, most: int) -> int:
    """A number of levels as an int. Raises `UserError` if it is not a whole number from `least` to `most`."""
    if isinstance(levels, bool) or not isinstance(levels, numbers.Integral) or not least <= int(levels) <= most:
        raise UserError(f"Expected levels to be a whole number in {least}..{most}. Received {levels!r}.")
    return int(levels)


def _softplus(x: tf.Tensor) -> tf.Tensor:
    """log(1 + e^x), with operations that are built into LiteRT and ONNX."""
    return tf.maximum(x, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))
