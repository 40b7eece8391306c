"""What every evaluation shares: the batches of a set with the places of their examples, and a mean with its error."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model.vae import VAE

BATCH = 100  # examples at a time, for arrays


class Estimate(NamedTuple):
    """A quantity of every example, in nats, and its mean over the set."""

    per_example: np.ndarray  # [N]

    @property
    def mean(self) -> float:
        """The mean over the examples."""
        return float(self.per_example.mean(dtype=np.float64))

    @property
    def standard_error(self) -> float | None:
        """Standard deviation over the examples / sqrt(N): the error of the mean as an estimate for further examples.

        None for a single example, whose deviation is not known.
        """
        if len(self.per_example) < 2:
            return None
        return float(self.per_example.std(dtype=np.float64, ddof=1) / math.sqrt(len(self.per_example)))


def count_batches(data: Any) -> int | None:
    """The number of batches in `data`, None if it is not known."""
    if isinstance(data, tf.data.Dataset):
        count = int(data.cardinality())
        return count if count >= 0 else None
    return -(-len(data[0] if isinstance(data, tuple) else data) // BATCH)


def batches(vae: VAE, data: Any) -> Iterator[tuple[tf.Tensor, Any, tf.Tensor]]:
    """The batches of a set.

    Args:
        vae: a built model.
        data: a `tf.data.Dataset` of batches, or an array `[N, *image]`; for a model with a condition batches (x, y), or
            the arrays (x, y).

    Yields:
        x `[B, *image]`, the condition `[B, ...]` or None, and the places of the examples in the set, `[B]`.

    Raises:
        UserError: if there are no data, they have another shape, or the model is not built.
    """
    if vae.image_shape is None:
        raise UserError("Expected a model that was trained, or built with build((None, 28, 28, 1)). Received neither.")
    place = 0
    for batch in _pieces(data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        x = tf.cast(tf.convert_to_tensor(x), tf.float32)
        if tuple(x.shape[1:]) != vae.image_shape:
            raise UserError(
                f"Expected images of shape {vae.image_shape}, those that the model was trained on. "
                f"Received {tuple(x.shape[1:])}."
            )
        vae.check_pixels(x)
        if vae.condition_shape is None:
            condition = None
        elif y is None:
            raise UserError("Expected data (x, y): y is the condition of this model. Received x alone.")
        else:
            condition = tf.cast(tf.convert_to_tensor(y), tf.float32)
        yield x, condition, tf.range(place, place + x.shape[0])
        place += x.shape[0]
    if place == 0:
        raise UserError("Expected at least one example to evaluate. Received none.")


def _pieces(data: Any) -> Iterator[Any]:
    """Batches of a dataset as they are, or pieces of arrays: x, or (x, y)."""
    if isinstance(data, tf.data.Dataset):
        yield from data
        return
    arrays = data if isinstance(data, tuple) else (data,)
    for start in range(0, len(arrays[0]), BATCH):
        yield tuple(array[start : start + BATCH] for array in arrays)
