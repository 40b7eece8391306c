"""What likelihoods with one variance for all pixels share: the Gaussian, the Laplace and Student's t distribution."""

import math
import numbers
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model.likelihoods.base import Likelihood
from kvae.noise.keyed import Noise


@keras.saving.register_keras_serializable("kvae")
class OneVariance(Likelihood):
    """Grey pixels with mean sigmoid(logits) and one variance for all pixels, fixed or learned.

    Args:
        variance: a positive number, or `"learned"` for a weight. 1 by default.
        start: the initial value of a learned variance, positive. 0.1 by default.
        rate: how fast a learned variance changes, positive. With Adam, its logarithm changes by about `rate` times the
            learning rate in each step. 1 by default, which is too slow for a training of few steps: then take 10.

    Raises:
        UserError: if `variance` is neither, or if `start` or `rate` is not positive.
    """

    def __init__(self, variance: float | str = 1.0, start: float = 0.1, rate: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("start", start), ("rate", rate)):
            if not _is_positive(value):
                raise UserError(f"Expected a positive {name} of a learned variance. Received {value!r}.")
        self.start = initial = float(start)
        self.rate = float(rate)
        if variance != "learned":
            if not _is_positive(variance):
                raise UserError(f'Expected a positive variance or "learned". Received {variance!r}.')
            variance = initial = float(variance)
        self.variance = variance
        self._weight = self.add_weight(
            name="log_variance",
            shape=(),
            initializer=keras.initializers.Constant(math.log(initial)),
            trainable=variance == "learned",
        )

    @property
    def log_variance(self) -> tf.Tensor:
        """The logarithm of the variance, `[]`: `rate` times as far from that of the start as the weight is."""
        weight = tf.convert_to_tensor(self._weight)
        if self.rate == 1.0 or self.variance != "learned":
            return weight
        start = math.log(self.start)
        return start + self.rate * (weight - start)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(parameters)

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """A draw clipped to [0, 1], as all images are."""
        return tf.clip_by_value(self.unclipped_sample(parameters, noise), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "variance": self.variance, "start": self.start, "rate": self.rate}


def _is_positive(value: Any) -> bool:
    """Whether a value is a positive and finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < float(value) < math.inf
