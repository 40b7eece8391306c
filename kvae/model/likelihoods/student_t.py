"""Student's t distribution, for grey pixels."""

import math
import numbers
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.likelihoods.one_variance import OneVariance
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream

MANY_DEGREES = 1e3


@keras.saving.register_keras_serializable("kvae")
class StudentT(OneVariance):
    """Grey pixels with mean sigmoid(logits) and Student's t distribution around it, with one variance for all pixels.

        p(x|z) = G((n + 1) / 2) / (G(n / 2) sqrt(n pi) s) (1 + (x - m)^2 / (n s^2))^(-(n + 1) / 2)

    with m = sigmoid(logits), n degrees of freedom and the gamma function G. It has heavier tails than a Gaussian, which
    it becomes for large n. In the paper the degrees are learned, here they are fixed. Takahashi et al., "Student-t
    Variational Autoencoder for Robust Density Estimation" (2018).

    Args:
        variance: a positive number, or `"learned"` for a weight. 1 by default.
        degrees: degrees of freedom, above 2, so that there is a variance. 4 by default.
        start: as for `Gaussian`.
        rate: as for `Gaussian`.

    Raises:
        UserError: as `Gaussian`, or if `degrees` is not above 2.
    """

    def __init__(
        self,
        variance: float | str = 1.0,
        degrees: float = 4.0,
        start: float = 0.1,
        rate: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(variance, start, rate, **kwargs)
        if not isinstance(degrees, numbers.Real) or not 2 < float(degrees) < math.inf:
            raise UserError(f"Expected a finite number of degrees above 2. Received {degrees!r}.")
        self.degrees: float = float(degrees)

    @property
    def log_scale(self) -> tf.Tensor:
        """The logarithm of the scale s, `[]`; the variance is s^2 n / (n - 2) for n degrees of freedom."""
        return 0.5 * (self.log_variance + math.log1p(-2.0 / self.degrees))

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.student_t_log_density(x, tf.sigmoid(parameters), self.log_scale, self.degrees)

    def unclipped_sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """A draw from two uniform numbers u and v: sqrt(n (u^(-2 / n) - 1)) cos(2 pi v).

        Bailey, "Polar Generation of Random Variates with the t-Distribution" (1994).
        """
        pairs = noise.uniform((*parameters.shape[1:], 2), Stream.PIXELS)
        exponent = -2.0 / self.degrees * tf.math.log(1.0 - pairs[..., 0])  # 1 - u is above 0
        if self.degrees < MANY_DEGREES:
            # The power is 1 at least, but may be rounded to less.
            square = tf.maximum(self.degrees * (tf.exp(exponent) - 1.0), 0.0)
        else:  # The power is so near to 1 that the difference would be mostly rounding: the first terms of its series.
            terms = 1.0 + exponent / 2.0 * (1.0 + exponent / 3.0 * (1.0 + exponent / 4.0))
            square = -2.0 * tf.math.log(1.0 - pairs[..., 0]) * terms
        distance = tf.sqrt(square) * tf.cos(2.0 * math.pi * pairs[..., 1])
        return tf.sigmoid(parameters) + tf.exp(self.log_scale) * distance

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "degrees": self.degrees}
