"""What every likelihood p(x|z) must do, and how its pixels are checked.

A likelihood is a Keras layer, so that its weights (the variance of the Gaussian) are trained and saved with the model.
Densities are float32 under every precision policy.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from kvae.internal.blocks import blocks_of
from kvae.internal.errors import KvaeWarning, UserError
from kvae.internal.tensorflow import tf
from kvae.model import given_images, parts
from kvae.model.hints import Array
from kvae.noise.keyed import Noise
from kvae.noise.streams import Stream

Shape = tuple[int, ...]
# A pixel is between two levels if it is further than this from the nearest, in steps. float16 rounds k/255 by 0.06.
LEVEL_TOLERANCE = 0.1


class Likelihood(parts.Part):
    """Base class of the likelihoods. A subclass must define `log_prob_of_pixels`, `mean` and `sample`.

    Attributes:
        support: the possible pixel values: the lowest, the highest, and whether only whole numbers are possible.
        normalized: whether `log_prob` is a log density, with its normalizing constant.
        levels: number of possible values of a pixel, if these are k / (levels - 1) for k = 0 ... levels - 1; else None.
            A likelihood with levels rounds each pixel to the nearest.
    """

    support: tuple[float, float, bool] = (0.0, 1.0, False)
    normalized = True
    levels: int | None = None

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
            observed: mask `[H, W]`, `[B, H, W]` or of a shape that broadcasts to x, True for the pixels that are
                summed. All pixels by default.

        Returns:
            `[B]` or `[K, B]`.
        """
        x, parameters = (tf.cast(tf.convert_to_tensor(part), tf.float32) for part in (x, parameters))
        image_shape = tuple(x.shape[1:])
        wanted = self.parameters_shape(image_shape)
        if observed is not None:
            mask = given_images.as_mask(observed, image_shape)
            try:
                observed = tf.broadcast_to(mask, tf.shape(x))
            except (ValueError, tf.errors.InvalidArgumentError):
                raise given_images.wrong_mask(observed, x.shape) from None
            x = tf.where(observed, x, _inner_value(*self.support[:2]))  # any value with a finite density and gradient
        log_prob = self.log_prob_of_pixels(
            flatten_pixels(x, image_shape, image_shape), flatten_pixels(parameters, tuple(wanted), image_shape)
        )
        if observed is not None:
            observed = flatten_pixels(observed, image_shape, image_shape)
            log_prob = tf.where(observed, log_prob, tf.zeros_like(log_prob))
        return tf.reduce_sum(log_prob, axis=-1)

    def log_prob_table(self, x: tf.Tensor, parameters: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """log p(x|z) of every image with the parameters of every z, nats. One product is enough for some likelihoods.

        Args:
            x: images, `[B, *image]` float32, finite also where pixels are missing.
            parameters: output of the decoder, `[G, *parameters_shape]`.
            observed: True for the pixels that are summed, `[B, *image]`.

        Returns:
            `[G, B]`.
        """
        columns = tf.map_fn(
            lambda image: self.log_prob(image[0][None], parameters[:, None], image[1][None])[:, 0],
            (x, observed),
            fn_output_signature=tf.float32,
        )
        return tf.transpose(columns)

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

    def unclipped_sample(self, parameters: tf.Tensor, noise: Noise) -> tf.Tensor:
        """x ~ p(x|z) exactly; arguments and result as of `sample`.

        A likelihood whose `sample` clips its draws to the range of pixels, although its density does not end there,
        defines it. By default it is `sample`.
        """
        return self.sample(parameters, noise)

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

    @property
    def discrete(self) -> bool:
        """Whether only some values of a pixel are possible, so that p(x|z) is a probability and not a density."""
        return self.support[2] or self.levels is not None

    def is_possible(self, x: Any, round: Any = np.rint) -> Any:
        """Whether each pixel within the support has one of the values that a discrete likelihood knows.

        Args:
            x: pixels, any shape.
            round: the function that rounds them: that of NumPy, or `tf.round` for tensors.
        """
        if self.levels is None:
            return x == round(x)
        scaled = x * (self.levels - 1)
        return abs(scaled - round(scaled)) <= LEVEL_TOLERANCE

    def check_pixels(self, x: Array, stacklevel: int = 2) -> None:
        """Checks the pixel values of images, before they are used for training or evaluation.

        Args:
            x: images, an array of numbers.
            stacklevel: stack level of the warning, as for `warnings.warn` in this method. 2, the caller, by default.

        Raises:
            UserError: if x has no numbers, or a pixel is NaN or outside the support.

        Warns:
            KvaeWarning: if pixels in the support are not among the values of a discrete likelihood.
        """
        values, (low, high, _) = np.asarray(x), self.support
        if values.size == 0 or values.dtype.kind not in "fiub":
            raise UserError(
                f"Expected an array of at least one image. Received {values.dtype} of shape {values.shape}."
            )
        least, most = values.min(), values.max()
        if not (low <= least and most <= high and np.isfinite(least) and np.isfinite(most)):  # also refuses NaN
            raise self.impossible_pixels(least, most)
        blocks = blocks_of(np.atleast_1d(values)) if self.discrete and values.dtype.kind == "f" else ()
        if not all(self.is_possible(some).all() for some in blocks):
            self.warn_of_grey(stacklevel + 1)

    def impossible_pixels(self, least: Any, most: Any) -> UserError:
        """The error for images with values from `least` to `most`, which the support does not have."""
        low, high, _ = self.support
        hint = " Divide uint8 images by 255, or load them with kvae.data.load." if (low, high) == (0, 1) else ""
        return UserError(f"Expected pixels in [{low:g}, {high:g}]. Received values from {least} to {most}.{hint}")

    def warn_of_grey(self, stacklevel: int = 2) -> None:
        """Warns that pixels are not among the values of a discrete likelihood."""
        if self.levels is not None:
            steps = self.levels - 1
            text = (
                f"Expected pixels k/{steps} for whole k, the {self.levels} levels of {type(self).__name__}. Received "
                "others, each of which is rounded to the nearest level: the ELBO is then a bound on log p(x) of the "
                f"rounded images. Round the images first, x = np.round(x * {steps}) / {steps}, or take as many levels "
                "as they have."
            )
        elif self.binary:
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


def _inner_value(low: float, high: float) -> float:
    """A number between `low` and `high`, each of which may be infinite."""
    if math.isfinite(low) and math.isfinite(high):
        return (low + high) / 2
    return low + 1.0 if math.isfinite(low) else high - 1.0 if math.isfinite(high) else 0.0


def flatten_pixels(tensor: tf.Tensor, shape: Shape, image_shape: Shape) -> tf.Tensor:
    """Makes one axis of the pixels, P per image: `[..., *image]` -> `[..., P]`, `[..., *image, n]` -> `[..., P, n]`.

    If `shape` does not start with `image_shape`, all its axes become one: `[..., *shape]` -> `[..., size]`.
    """
    leading = len(tensor.shape) - len(shape)
    pixels, rest = math.prod(image_shape), shape[len(image_shape) :]
    if shape[: len(image_shape)] != image_shape:
        pixels, rest = math.prod(shape), ()
    flat = tf.reshape(tensor, tf.concat([tf.shape(tensor)[:leading], [pixels, *rest]], axis=0))
    return tf.ensure_shape(flat, [*tensor.shape[:leading], pixels, *rest])


def uniforms(pixels: tf.Tensor, noise: Noise) -> tf.Tensor:
    """One uniform number for each pixel of a tensor `[B, *image]`, in its shape."""
    return noise.uniform(tuple(pixels.shape[1:]), Stream.PIXELS)


def log_between(low: float, high: float, number: tf.Tensor) -> tf.Tensor:
    """The logarithm of a number between two positive bounds, from any number that a decoder returns.

    log low + (log high - log low) sigmoid(number), which is in the middle at 0. So a learned scale of a pixel cannot
    go to 0, where the density of a pixel that is always predicted exactly would be infinite.
    """
    return math.log(low) + math.log(high / low) * tf.sigmoid(number)
