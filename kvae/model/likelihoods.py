"""p(x|z): log densities, means and draws from the parameters that a decoder returns. One class per likelihood.

A likelihood is a Keras layer, so that its weights (the variance of the Gaussian) are trained and saved with the model.
Densities are float32 under every precision policy.
"""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

import numpy as np

from kvae.internal.errors import KvaeWarning, UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, parts
from kvae.model.hints import Array
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream

Shape = tuple[int, ...]


class Likelihood(parts.Part):
    """Base class of the likelihoods. A subclass must define `log_prob_of_pixels`, `mean` and `sample`.

    Attributes:
        support: the possible pixel values: the lowest, the highest, and whether only whole numbers are possible.
        normalized: whether `log_prob` is a log density, with its normalizing constant.
    """

    support: tuple[float, float, bool] = (0.0, 1.0, False)
    normalized = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "log_prob" in cls.__dict__:
            raise TypeError(
                f"Expected {cls.__name__} to define log_prob_of_pixels(x, parameters), in nats per pixel, which "
                "log_prob of the base class masks and sums. Received a class that defines log_prob itself."
            )

    def build(self, image_shape: Shape) -> None:
        """Makes the weights of the likelihood, if it has any."""

    def parameters_shape(self, image_shape: Shape) -> Shape:
        """Shape of the decoder's output for an image: `image_shape`, or `(*image_shape, n)` for n numbers per pixel."""
        return tuple(image_shape)

    def log_prob(self, x: tf.Tensor, parameters: tf.Tensor, observed: Array | None = None) -> tf.Tensor:
        """log p(x|z) in nats per image.

        The pixels are flattened to one axis, which compiled code computes faster (docs/PERFORMANCE.md).

        Args:
            x: images, `[B, *image]`. A missing pixel may have any value.
            parameters: output of the decoder, `[B, *parameters_shape]` or `[K, B, *parameters_shape]`.
            observed: booleans that broadcast to x, True for the pixels that are summed. All pixels by default.

        Returns:
            `[B]` or `[K, B]`.
        """
        x, parameters = (tf.cast(tf.convert_to_tensor(part), tf.float32) for part in (x, parameters))
        image_shape = tuple(x.shape[1:])
        wanted = self.parameters_shape(image_shape)
        if observed is not None:
            observed = tf.broadcast_to(observed, tf.shape(x))
            x = tf.where(observed, x, _inner_value(*self.support[:2]))  # any value with a finite density and gradient
        log_prob = self.log_prob_of_pixels(
            _flatten_pixels(x, image_shape, image_shape), _flatten_pixels(parameters, tuple(wanted), image_shape)
        )
        if observed is not None:
            observed = _flatten_pixels(observed, image_shape, image_shape)
            log_prob = tf.where(observed, log_prob, tf.zeros_like(log_prob))
        return tf.reduce_sum(log_prob, axis=-1)

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        """log p(x|z) in nats per pixel.

        Args:
            x: images, `[B, P]`; the pixels and channels of an image are one axis.
            parameters: output of the decoder, `[..., B, P]`, or `[..., B, P, n]` for n numbers per pixel.

        Returns:
            `[..., B, P]`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method log_prob_of_pixels(x, parameters).")

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """E[x|z] of each pixel; parameters `[..., *parameters_shape]` -> `[..., *image]`."""
        raise NotImplementedError(f"{type(self).__name__} needs a method mean(parameters), E[x|z] of every pixel.")

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """x ~ p(x|z), with operations that are built into LiteRT, so that the draw can be exported.

        Args:
            parameters: output of the decoder, `[B, *parameters_shape]`.
            noise: source of the random numbers, whose stream is `Stream.PIXELS`.

        Returns:
            `[B, *image]` float32.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method sample(parameters, noise) to draw images.")

    def as_bytes(self, x: tf.Tensor) -> tf.Tensor:
        """Images as uint8: 0..255 covers the support, or [0, 1] if the support is not bounded."""
        low, high, _ = self.support
        if not (math.isfinite(low) and math.isfinite(high)):
            low, high = 0.0, 1.0
        scaled = x * 255 if (low, high) == (0.0, 1.0) else (x - low) * (255 / (high - low))
        return tf.cast(tf.round(tf.clip_by_value(scaled, 0.0, 255.0)), tf.uint8)

    @property
    def binary(self) -> bool:
        """Whether the only possible pixel values are 0 and 1."""
        return self.support == (0.0, 1.0, True)

    def check_pixels(self, x: Array, stacklevel: int = 2) -> None:
        """Checks the pixel values of images, before they are used for training or evaluation.

        Args:
            x: images, an array of numbers.
            stacklevel: stack level of the warning, as for `warnings.warn` in this method. 2, the caller, by default.

        Raises:
            UserError: if x has no numbers, or a pixel is NaN or outside the support.

        Warns:
            KvaeWarning: if pixels in the support are not whole numbers, but the support has whole numbers only.
        """
        values, (low, high, whole) = np.asarray(x), self.support
        if values.size == 0 or values.dtype.kind not in "fiub":
            raise UserError(
                f"Expected an array of at least one image. Received {values.dtype} of shape {values.shape}."
            )
        least, most = values.min(), values.max()
        if not (low <= least and most <= high and np.isfinite(least) and np.isfinite(most)):  # also refuses NaN
            raise self.impossible_pixels(least, most)
        if whole and values.dtype.kind == "f" and (values != np.rint(values)).any():
            self.warn_of_grey(stacklevel + 1)

    def impossible_pixels(self, least: Any, most: Any) -> UserError:
        """The error for images with values from `least` to `most`, which the support does not have."""
        low, high, _ = self.support
        hint = " Divide uint8 images by 255, or load them with kvae.data.load." if (low, high) == (0, 1) else ""
        return UserError(f"Expected pixels in [{low:g}, {high:g}]. Received values from {least} to {most}.{hint}")

    def warn_of_grey(self, stacklevel: int = 2) -> None:
        """Warns that pixels are not whole numbers, but the support has whole numbers only."""
        if self.binary:
            text = (
                "Grey pixels under a Bernoulli likelihood, which is for pixels that are 0 or 1: the loss is then a "
                "cross entropy and not a log density. So the ELBO is no bound on log p(x), and cannot be compared with "
                "that of another likelihood. Binarize the data, or use "
                'likelihood="continuous_bernoulli" or "gaussian".'
            )
        else:
            name = type(self).__name__
            text = (
                f"Expected whole numbers as pixels: only these have a density under {name}. Received other numbers, so "
                "the loss is no log density."
            )
        warnings.warn(text, KvaeWarning, stacklevel=stacklevel + 1)


def _is_positive(value: Any) -> bool:
    """Whether a value is a positive and finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def _inner_value(low: float, high: float) -> float:
    """A number between `low` and `high`, each of which may be infinite."""
    if math.isfinite(low) and math.isfinite(high):
        return (low + high) / 2
    return low + 1.0 if math.isfinite(low) else high - 1.0 if math.isfinite(high) else 0.0


def _flatten_pixels(tensor: tf.Tensor, shape: Shape, image_shape: Shape) -> tf.Tensor:
    """Makes one axis of the pixels, P per image: `[..., *image]` -> `[..., P]`, `[..., *image, n]` -> `[..., P, n]`.

    If `shape` does not start with `image_shape`, all its axes become one: `[..., *shape]` -> `[..., size]`.
    """
    leading = len(tensor.shape) - len(shape)
    pixels, rest = math.prod(image_shape), shape[len(image_shape) :]
    if shape[: len(image_shape)] != image_shape:
        pixels, rest = math.prod(shape), ()
    flat = tf.reshape(tensor, tf.concat([tf.shape(tensor)[:leading], [pixels, *rest]], axis=0))
    return tf.ensure_shape(flat, [*tensor.shape[:leading], pixels, *rest])


@keras.saving.register_keras_serializable("kvae")
class Bernoulli(Likelihood):
    """Binary pixels: p(x=1|z) = sigmoid(logits), where the logits are the output of the decoder."""

    support = (0.0, 1.0, True)

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.bernoulli_log_density(x, parameters)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(parameters)

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        return tf.cast(_uniforms(parameters, noise) < tf.sigmoid(parameters), tf.float32)


@keras.saving.register_keras_serializable("kvae")
class ContinuousBernoulli(Likelihood):
    """Grey pixels on [0, 1]; Loaiza-Ganem and Cunningham, "The continuous Bernoulli" (2019)."""

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.continuous_bernoulli_log_density(x, parameters)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """E[x|z] = 1 / (1 - exp(-l)) - 1 / l for logits l (equation 8), and 1/2 + l / 12 - l^3 / 720 near l = 0."""
        logits = parameters
        small = tf.abs(logits) < 0.2
        safe = tf.where(small, tf.ones_like(logits), logits)
        series = 0.5 + logits / 12 - tf.pow(logits, 3) / 720
        return tf.where(small, series, -1 / tf.math.expm1(-safe) - 1 / safe)

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """Draws by the inverse distribution function, log(u e^l + 1 - u) / l.

        It is always computed for -|l|, so that the exponential does not overflow: F(x; l) = 1 - F(1 - x; -l).
        """
        logits, numbers = parameters, _uniforms(parameters, noise)
        magnitude = tf.maximum(tf.abs(logits), 0.05)
        mirrored = tf.where(logits > 0, 1 - numbers, numbers)
        x = -tf.math.log1p(mirrored * tf.math.expm1(-magnitude)) / magnitude  # for -|l|
        # Near l = 0 the quotient loses digits if log1p(x) is computed as log(1 + x), as in LiteRT. The series has an
        # error of 7e-7.
        scaled = numbers * (1 - numbers) * logits
        series = numbers + scaled * (0.5 + (1 - 2 * numbers) * logits / 6)
        x = tf.where(tf.abs(logits) < 0.05, series, tf.where(logits > 0, 1 - x, x))
        return tf.clip_by_value(x, 0.0, 1.0)


@keras.saving.register_keras_serializable("kvae")
class Gaussian(Likelihood):
    """Grey pixels with mean sigmoid(logits) and one variance for all pixels, fixed or learned.

    The model with a learned variance is the sigma-VAE of Rybkin, Daniilidis and Levine, "Simple and Effective VAE
    Training with Calibrated Decoders" (2021).

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

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.gaussian_log_density(x, tf.sigmoid(parameters), self.log_variance)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(parameters)

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """A draw of the Gaussian, clipped to [0, 1] as all images are."""
        numbers = noise.normal(tuple(parameters.shape[1:]), Stream.PIXELS)
        draw = densities.reparameterize(tf.sigmoid(parameters), self.log_variance, numbers)
        return tf.clip_by_value(draw, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "variance": self.variance, "start": self.start, "rate": self.rate}


@keras.saving.register_keras_serializable("kvae")
class SquaredError(Gaussian):
    """Half the squared error, 1/2 (x - sigmoid(logits))^2: the Gaussian of variance 1 without its constant.

    Many publications report it. Its `log_prob` is not a log density: the constant -1/2 log 2 pi = -0.919 nats per pixel
    is missing. This changes no gradient, but every reported `elbo` and `reconstruction`.
    """

    normalized = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(1.0, **kwargs)

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return -0.5 * tf.square(x - tf.sigmoid(parameters))

    def get_config(self) -> dict[str, Any]:
        return {
            name: value for name, value in super().get_config().items() if name not in ("variance", "start", "rate")
        }


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "squared_error": SquaredError,
}


def get(likelihood: str | Likelihood) -> Likelihood:
    """The likelihood itself, or a new one from its name in `LIKELIHOODS`. Raises `UserError` if it is neither."""
    return parts.get("likelihood", likelihood, LIKELIHOODS, Likelihood)


def name_of(likelihood: Likelihood) -> str:
    """The name of a likelihood in `LIKELIHOODS`, or the name of its class if it is not there."""
    return parts.name_of(likelihood, LIKELIHOODS)


def _uniforms(parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
    """One uniform number for each number of the decoder's output, `[B, *image]`."""
    return noise.uniform(tuple(parameters.shape[1:]), Stream.PIXELS)
