"""Gaussians with one variance for all pixels, or with one for each."""

import numbers
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities
from kvae.model.likelihoods.base import Likelihood, Shape, log_between
from kvae.model.likelihoods.one_variance import OneVariance
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream

LARGEST_VARIANCE = 1.0  # of a pixel in [0, 1]; that of pixels that are all 0 or 1 is 1/4 at most


@keras.saving.register_keras_serializable("kvae")
class Gaussian(OneVariance):
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

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.gaussian_log_density(x, tf.sigmoid(parameters), self.log_variance)

    def unclipped_sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        return _draw(tf.sigmoid(parameters), self.log_variance, noise)


@keras.saving.register_keras_serializable("kvae")
class SquaredError(Gaussian):
    """Half the squared error, 1/2 (x - sigmoid(logits))^2: the Gaussian of variance 1 without its constant.

    Many publications report it. Its `log_prob` is not a log density: the constant -1/2 log 2 pi = -0.919 nats per pixel
    is missing. This changes no gradient, but every reported `elbo` and `reconstruction`. Compared with a learned
    variance in Rybkin, Daniilidis and Levine, "Simple and Effective VAE Training with Calibrated Decoders" (2021).
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


@keras.saving.register_keras_serializable("kvae")
class GaussianPerPixel(Likelihood):
    """Grey pixels, each with a mean and a variance of its own, which both depend on z.

    The decoder returns two numbers per pixel, a and b: the mean is sigmoid(a), and the variance exp(v) with
    v = log least + (log 1 - log least) sigmoid(b). So the variance stays between `least_variance` and 1: without a
    bound, the density of a pixel that is always predicted exactly, such as one of a plain background, grows to
    infinity. Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), appendix C.2; Mattei and Frellsen,
    "Leveraging the Exact Likelihood of Deep Latent Variable Models" (2018), on the bound.

    Args:
        least_variance: the bound of the variance, above 0 and below 1. 1e-4 by default, a standard deviation of 2.55
            of 255 levels of grey.

    Raises:
        UserError: if `least_variance` is not between 0 and 1.
    """

    def __init__(self, least_variance: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(least_variance, numbers.Real) or not 0 < float(least_variance) < LARGEST_VARIANCE:
            raise UserError(f"Expected least_variance between 0 and 1. Received {least_variance!r}.")
        self.least_variance: float = float(least_variance)

    def parameters_shape(self, image_shape: Shape) -> Shape:
        return (*image_shape, 2)

    def log_variance(self, parameters: tf.Tensor) -> tf.Tensor:
        """The logarithm of the variance of each pixel; `[..., 2]` -> `[...]`."""
        return log_between(self.least_variance, LARGEST_VARIANCE, parameters[..., 1])

    def log_prob_of_pixels(self, x: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
        return densities.gaussian_log_density(x, self.mean(parameters), self.log_variance(parameters))

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(parameters[..., 0])

    def sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """A draw of the Gaussian, clipped to [0, 1] as all images are."""
        return tf.clip_by_value(self.unclipped_sample(parameters, noise), 0.0, 1.0)

    def unclipped_sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        return _draw(self.mean(parameters), self.log_variance(parameters), noise)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "least_variance": self.least_variance}


def _draw(mean: tf.Tensor, log_variance: tf.Tensor, noise: Noise) -> tf.Tensor:
    return densities.reparameterize(mean, log_variance, noise.normal(tuple(mean.shape[1:]), Stream.PIXELS))
