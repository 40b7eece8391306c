"""p(x|z): how a decoder's logits become densities, means and draws. One class a likelihood.

Each is a Keras layer, so that what it learns (the Gaussian's variance) trains and is saved with the model. Densities
stay float32 whatever the precision policy.
"""

import math
import numbers
import warnings
from typing import Any

from kvae import distributions, noise
from kvae.errors import UserError, unknown
from kvae.tensorflow import keras, tf


class Likelihood(keras.layers.Layer):
    """What the likelihoods share: calling one is `log_prob`."""

    #: whether the data must be 0 or 1 for the density to be one
    binary = False
    #: whether `log_prob` is a log density, with its constant
    normalized = True
    #: whether every pixel is treated alike, so that images may come as one axis of pixels, which compilers make faster
    elementwise = False
    #: whether `draw` is made of standard normal numbers, not of uniform ones
    takes_normals = False

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def call(self, x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return self.log_prob(x, logits)

    def log_prob(self, x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """log p(x|z) per element, nats, the shape of `logits`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method log_prob(x, logits), in nats per element.")

    def means(self, logits: tf.Tensor) -> tf.Tensor:
        """E[x|z], in [0, 1], the shape of `logits`."""
        return tf.sigmoid(logits)

    def draw(self, logits: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        """A draw of p(x|z) made of random numbers: uniform on [0, 1), or standard normal where `takes_normals`.

        Only operations that LiteRT has built in, so that the draw can be exported.

        Args:
            logits: `[B, *image]`.
            numbers: `[B, *image]` float32, independent.

        Returns:
            `[B, *image]` float32, in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method draw(logits, numbers) to sample images.")

    def sample(self, logits: tf.Tensor, key: tuple) -> tf.Tensor:
        """A draw of p(x|z) for logits `[B, *image]`, float32; `key` as in `kvae.noise.uniform`."""
        numbers = noise.normal if self.takes_normals else noise.uniform
        return self.draw(logits, numbers(tuple(logits.shape[1:]), *key))


@keras.saving.register_keras_serializable("kvae")
class Bernoulli(Likelihood):
    """Binary pixels: p(x=1|z) = sigmoid(logits)."""

    binary = True
    elementwise = True

    def log_prob(self, x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return distributions.bernoulli_log_density(x, logits)

    def draw(self, logits: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        return tf.cast(numbers < tf.sigmoid(logits), tf.float32)


@keras.saving.register_keras_serializable("kvae")
class ContinuousBernoulli(Likelihood):
    """Grey pixels on [0, 1]; Loaiza-Ganem and Cunningham, "The continuous Bernoulli" (2019)."""

    elementwise = True

    def log_prob(self, x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return distributions.continuous_bernoulli_log_density(x, logits)

    def means(self, logits: tf.Tensor) -> tf.Tensor:
        """E[x|z] = 1 / (1 - exp(-l)) - 1 / l (their equation 8 in logits), 1/2 + l / 12 - l^3 / 720 near l = 0."""
        small = tf.abs(logits) < 0.2
        safe = tf.where(small, tf.ones_like(logits), logits)
        series = 0.5 + logits / 12 - tf.pow(logits, 3) / 720
        return tf.where(small, series, -1 / tf.math.expm1(-safe) - 1 / safe)

    def draw(self, logits: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        """By the inverse distribution function, log(u e^l + 1 - u) / l, mirrored so that the exponential never grows:
        F(x; l) = 1 - F(1 - x; -l)."""
        magnitude = tf.maximum(tf.abs(logits), 0.05)
        mirrored = tf.where(logits > 0, 1 - numbers, numbers)
        x = -tf.math.log1p(mirrored * tf.math.expm1(-magnitude)) / magnitude  # for -|l|
        # Near l = 0 the quotient loses its digits where log1p(x) is log(1 + x), as in LiteRT; the series errs by 7e-7.
        bend = numbers * (1 - numbers) * logits
        series = numbers + bend * (0.5 + (1 - 2 * numbers) * logits / 6)
        x = tf.where(tf.abs(logits) < 0.05, series, tf.where(logits > 0, 1 - x, x))
        return tf.clip_by_value(x, 0.0, 1.0)


@keras.saving.register_keras_serializable("kvae")
class Gaussian(Likelihood):
    """Grey pixels with mean sigmoid(logits) and one variance for all pixels, fixed or learned.

    A learned variance is the sigma-VAE of Rybkin, Daniilidis and Levine, "Simple and Effective VAE Training with
    Calibrated Decoders" (2021).

    Args:
        variance: a positive number, or `"learned"` (it starts at 0.1).
    """

    takes_normals = True
    elementwise = True

    def __init__(self, variance: float | str = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if variance == "learned":
            start = 0.1
        elif isinstance(variance, numbers.Real) and not isinstance(variance, bool) and 0 < variance < math.inf:
            start = variance = float(variance)
        else:
            raise UserError(f'Expected a positive variance or "learned". Received {variance!r}.')
        self.variance = variance
        self.log_variance = self.add_weight(
            name="log_variance",
            shape=(),
            initializer=keras.initializers.Constant(math.log(start)),
            trainable=variance == "learned",
        )
        self.built = True

    def log_prob(self, x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        log_var = tf.convert_to_tensor(self.log_variance)
        return distributions.gaussian_log_density(x, tf.sigmoid(logits), log_var)

    def draw(self, logits: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        """A draw of the Gaussian, clipped to [0, 1] as every picture is."""
        draw = distributions.reparameterize(tf.sigmoid(logits), tf.convert_to_tensor(self.log_variance), numbers)
        return tf.clip_by_value(draw, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "variance": self.variance}


@keras.saving.register_keras_serializable("kvae")
class SquaredError(Gaussian):
    """Half the squared error, 1/2 (x - sigmoid(logits))^2: the Gaussian of variance 1 without its constant.

    What many write-ups print. Its `log_prob` is no log density: it lacks -1/2 log 2 pi = -0.919 nats a pixel, which
    changes no gradient but every reported `elbo` and `reconstruction`.
    """

    normalized = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(1.0, **kwargs)

    def log_prob(self, x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return -0.5 * tf.square(x - tf.sigmoid(logits))

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().get_config().items() if name != "variance"}


LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "squared_error": SquaredError,
}


def get(likelihood: "str | Likelihood") -> Likelihood:
    """A likelihood from its name (`bernoulli`, `continuous_bernoulli`, `gaussian`, `squared_error`) or as it is.

    Raises:
        UserError: neither.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if not isinstance(likelihood, str) or likelihood not in LIKELIHOODS:
        raise unknown("likelihood", likelihood, LIKELIHOODS)
    return LIKELIHOODS[likelihood]()


def name_of(likelihood: Likelihood) -> str:
    """The name by which `get` knows a likelihood, or the class's name where it is the user's own."""
    known = {kind: name for name, kind in LIKELIHOODS.items()}
    return known.get(type(likelihood), type(likelihood).__name__)


def warn_if_binary(likelihood: Likelihood) -> None:
    """Warns that grey pixels are about to meet `likelihood`, where that is one of binary pixels."""
    if likelihood.binary:
        warnings.warn(
            "Grey pixels under a Bernoulli likelihood: the loss is then a cross entropy, not a log density, and no "
            'bound on log p(x). Binarize the data, or use likelihood="continuous_bernoulli" or "gaussian".',
            UserWarning,
            stacklevel=4,
        )
