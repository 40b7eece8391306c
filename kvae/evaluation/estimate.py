"""Shared by all evaluations: the batches of a set with the indices of their images, and means with their errors."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae.internal import finite
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import given_images
from kvae.model.conditions import check_condition, in_memory
from kvae.model.pixel_check import check_pixels
from kvae.model.vae import VAE

BATCH = 100  # images per batch of an array


class Estimate(NamedTuple):
    """A quantity of each image, in the unit of its evaluation such as nats, and its mean over the set."""

    per_example: np.ndarray  # [N]

    @property
    def mean(self) -> float:
        """The mean over the images."""
        return float(self.per_example.mean(dtype=np.float64))

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean as an estimate of its expectation: standard deviation / sqrt(N).

        It is None for a single image, whose standard deviation is not known.
        """
        if len(self.per_example) < 2:
            return None
        return float(self.per_example.std(dtype=np.float64, ddof=1) / math.sqrt(len(self.per_example)))

    def __repr__(self) -> str:
        """The mean and its standard error, and not the number of each image."""
        error = None if self.standard_error is None else float(f"{self.standard_error:.3g}")
        return f"Estimate(mean={self.mean:.7g}, standard_error={error}, images={len(self.per_example)})"


def count_batches(data: Any) -> int | None:
    """The number of batches in `data`, or None if it is not known."""
    if isinstance(data, tf.data.Dataset):
        count = int(data.cardinality())
        return count if count >= 0 else None
    x = data[0] if isinstance(data, tuple) else data
    if isinstance(x, list) and len(x) == 1:
        x = x[0]
    try:
        count = len(x)
    except TypeError:  # a generator, or a loader of a stream
        return None
    return -(-count // BATCH) if isinstance(x, list) or hasattr(x, "shape") else count  # a loader counts batches


def batches(vae: VAE, data: Any) -> Iterator[tuple[tf.Tensor, Any, tf.Tensor]]:
    """The batches of a set.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset`, loader or generator of batches x, or an array `[N, *image]`. For a conditional model,
            batches (x, y) or the arrays (x, y).

    Yields:
        x `[B, *image]`, the condition `[B, ...]` or None, and the indices of the images in the set, `[B]`.

    Raises:
        UserError: if there are no data, if they have sample weights, if the images have another shape than the model's
            or pixels that its likelihood does not allow, if the condition is missing, or if the model is not built or
            has a weight that is NaN or infinite.
    """
    for x, y, index in _with_y(vae, data):
        if vae.condition_shape is None:
            condition = None
        elif y is None:
            raise UserError("Expected data (x, y), because y is the condition of this model. Received x alone.")
        else:
            condition = check_condition(y, vae.condition_shape, int(x.shape[0]))
        yield x, condition, index


def labelled_batches(vae: VAE, data: Any) -> Iterator[tuple[tf.Tensor, np.ndarray]]:
    """The batches of a set with a label for each image.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches (x, label), or the arrays (x, label). Labels are whole numbers.

    Yields:
        x `[B, *image]` and the labels `[B]`.

    Raises:
        UserError: as `batches`, and if the images have no labels, or labels that are no whole numbers.
    """
    for x, y, _ in _with_y(vae, data):
        if y is None:
            raise UserError("Expected data (x, label) for this evaluation. Received x alone.")
        labels = np.asarray(y)
        if not np.issubdtype(labels.dtype, np.integer) or labels.size != len(labels) or len(labels) != x.shape[0]:
            raise UserError(
                f"Expected labels [{x.shape[0]}], a whole number for each image. Received an array of shape "
                f"{labels.shape} of {labels.dtype}."
            )
        yield x, labels.ravel()


def _with_y(vae: VAE, data: Any) -> Iterator[tuple[tf.Tensor, Any, tf.Tensor]]:
    """x `[B, *image]`, y as it is given or None, and the indices of the images, `[B]`."""
    finite.check_trained(vae)
    start = 0
    for batch in _split(data, vae.image_shape, vae.condition_shape):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        if weights is not None:
            raise given_images.no_weights()
        x = given_images.with_channels(tf.cast(tf.convert_to_tensor(x), tf.float32), vae.image_shape)
        check_pixels(vae.likelihood, x)
        yield x, y, tf.range(start, start + x.shape[0])
        start += x.shape[0]
    if start == 0:
        raise UserError("Expected at least one image to evaluate. Received none.")


def parts_of(batch: tuple[tf.Tensor, Any, tf.Tensor], size: int) -> Iterator[tuple[tf.Tensor, Any, tf.Tensor]]:
    """A batch of `batches` in parts of about equal size, of at most `size` images, and of no more than `BATCH`."""
    images = len(batch[0])
    size = -(-images // -(-images // min(max(size, 1), BATCH)))
    for start in range(0, images, size):
        x, condition, index = (None if part is None else part[start : start + size] for part in batch)
        yield x, condition, index


def _split(data: Any, image_shape: Any, condition_shape: Any) -> Iterator[Any]:
    """The batches of a dataset or loader unchanged, or an array x or arrays (x, y) in batches of `BATCH` images."""
    arrays = data if isinstance(data, tuple) else (data,)
    arrays = (given_images.as_array(arrays[0], image_shape), *arrays[1:])
    if not isinstance(arrays[0], np.ndarray | tf.Tensor):
        yield from data
        return
    if len(arrays) > 1:
        arrays = (arrays[0], in_memory(arrays[1], condition_shape, len(arrays[0])), *arrays[2:])
    for start in range(0, len(arrays[0]), BATCH):
        yield tuple(None if array is None else array[start : start + BATCH] for array in arrays)
