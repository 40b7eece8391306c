"""The check of the pixels and of the labels of every batch, before a step sees it.

Arrays and datasets of `kvae.data.load` are checked once, on the host, before `fit` begins. All other batches are
checked here: in the graph, but on the host and outside of XLA, which ignores assertions.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kvae.data.in_memory import ImageDataset
from kvae.internal.blocks import blocks_of
from kvae.internal.errors import stacklevel_of_user
from kvae.internal.tensorflow import tf
from kvae.model import conditions, given_images

MARK = "kvae found impossible pixels"
LABELS = "kvae found labels that are no class"
OTHER = "kvae found other images as y"


def check_pixels(likelihood: Any, x: Any) -> bool:
    """Checks the pixels of an array, or what a dataset of `kvae.data.load` tells about them.

    Args:
        likelihood: the `kvae.likelihoods.Likelihood`.
        x: an array, a dataset, or anything else, which is not checked here.

    Returns:
        Whether the pixels are known to be possible. Otherwise `PixelCheck` checks each batch.

    Raises:
        UserError: if pixels lie outside of the likelihood's support.

    Warns:
        KvaeWarning: if pixels are not among the values of a discrete likelihood.
    """
    if isinstance(x, ImageDataset) and x.binary is not None:
        if x.binary or not likelihood.discrete or likelihood.levels == 256:  # grey pixels are k/255
            return True
        if likelihood.levels is None:
            likelihood.warn_of_grey(stacklevel_of_user())
            return True
        if x.in_memory is None or x.in_memory.images.dtype != np.uint8:
            return False
        present = np.zeros(256, np.bool_)
        for some in blocks_of(x.in_memory.images):
            present[np.asarray(some)] = True
        x = np.flatnonzero(present) / np.float32(255)
    if isinstance(x, tf.data.Dataset) or not (hasattr(x, "shape") and hasattr(x, "dtype")):
        return False
    likelihood.check_pixels(x, stacklevel_of_user())
    return True


class PixelCheck:
    """Refuses batches with a pixel that the likelihood cannot have, and remembers whether there were grey ones.

    Args:
        likelihood: the `kvae.likelihoods.Likelihood`.
        condition_shape: `condition_shape` of the model, so that labels that are no class of it are refused too.
    """

    def __init__(self, likelihood: Any, condition_shape: Any = None) -> None:
        self._likelihood = likelihood
        self._condition_shape = condition_shape
        self._warns = True
        with tf.init_scope(), tf.device("CPU"):
            self._grey = tf.Variable(False, trainable=False)

    def begin(self, *, known: bool) -> None:
        """Forgets earlier batches. `known` tells that a warning of grey pixels has already been given if needed."""
        self._warns = not known
        self._grey.assign(False)

    def warn_of_grey(self) -> None:
        """Warns, once, if there were pixels that are not among the values of a discrete likelihood."""
        if self._warns and bool(self._grey.numpy()):  # a variable made under a strategy is always true
            self._warns = False
            self._likelihood.warn_of_grey(stacklevel_of_user())

    def __call__(self, data: Any) -> Any:
        """The same batch, x or (x, y), which `refuse_batch` has checked and whose grey pixels are remembered."""
        x, *rest = self.refuse_batch(data if isinstance(data, tuple | list) else (data,))
        if not hasattr(x, "dtype") or not hasattr(x, "shape"):
            return data  # `batch_of` refuses it.
        if self._likelihood.discrete and x.dtype.is_floating:
            with tf.device("CPU"), tf.control_dependencies([self._grey.assign(self._grey | self._is_grey(x))]):
                x = tf.identity(x)
        return (x, *rest) if isinstance(data, tuple | list) else x

    def refuse_batch(self, batch: Any) -> tuple[Any, ...]:
        """The same batch (x,) or (x, y), or an `InvalidArgumentError` at run time if the model cannot have it."""
        x, *rest = batch
        if not hasattr(x, "dtype") or not hasattr(x, "shape"):
            return tuple(batch)
        x = self.refuse(tf.convert_to_tensor(x))
        if rest and isinstance(rest[0], tf.Tensor | np.ndarray):
            y = tf.convert_to_tensor(rest[0])
            if self._condition_shape is None:
                x = _refuse_other_images(x, y)
            rest[0] = self.refuse_labels(y)
        return (x, *rest)

    def check(self, data: Any) -> None:
        """Checks a batch x or (x, y) at once. Raises `UserError` for a pixel or label that the model cannot have."""
        x, *rest = data if isinstance(data, tuple | list) else (data,)
        with self.raising_user_errors():
            if tf.is_tensor(x) and tf.executing_eagerly():  # else it is the batch of several replicas
                self.refuse(x)
                if rest and tf.is_tensor(rest[0]):
                    self.refuse_labels(rest[0])

    def _is_grey(self, x: tf.Tensor) -> tf.Tensor:
        return tf.logical_not(tf.reduce_all(self._likelihood.is_possible(x, tf.round)))

    def refuse(self, x: tf.Tensor) -> tf.Tensor:
        """The same images, or an `InvalidArgumentError` at run time if the likelihood cannot have one of their pixels.

        Everything that depends on the result waits for the check.
        """
        low, high, _ = self._likelihood.support
        with tf.device("CPU"):
            values = tf.cast(x, tf.float32)
            possible = tf.reduce_all((values >= low) & (values <= high) & tf.math.is_finite(values))
            with tf.control_dependencies([tf.cond(possible, lambda: True, lambda: _fail(values))]):
                return tf.identity(x)

    def refuse_labels(self, y: tf.Tensor) -> tf.Tensor:
        """The same conditions, or an `InvalidArgumentError` at run time if they are labels and one is no class."""
        if self._condition_shape is None or y.shape.rank != 1 or not conditions.may_be_labels(y, self._condition_shape):
            return y
        with tf.device("CPU"):
            labels = tf.cast(y, tf.int64)
            ends = (tf.reduce_min(labels), tf.reduce_max(labels))
            known = tf.reduce_all((labels >= 0) & (labels < self._condition_shape[0]))
            with tf.control_dependencies([tf.cond(known, lambda: True, lambda: _stop(LABELS, *ends))]):
                return tf.identity(y)

    @contextmanager
    def raising_user_errors(self) -> Iterator[None]:
        """Raises the `UserError` of the likelihood for a failed check within the block."""
        try:
            yield
        except tf.errors.OpError as error:
            self.raise_if_failed(error)
            raise

    def raise_if_failed(self, error: Exception) -> None:
        """Raises the `UserError` of the likelihood if `error` comes from this check."""
        found = re.search(rf"{MARK}: (\S+) to (\S+?)\]", str(error))
        if found:
            raise self._likelihood.impossible_pixels(*found.groups()) from None
        if OTHER in str(error):
            raise given_images.other_images() from None
        found = re.search(rf"{LABELS}: (\S+) to (\S+?)\]", str(error))
        if found:
            conditions.check_labels(np.array(found.groups(), np.int64), self._condition_shape)


def _refuse_other_images(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The same images x, or an `InvalidArgumentError` at run time if y has images of their shape that are not these."""
    sides = tuple(y.shape[1:]) if y.shape.rank else ()
    if not sides or None in sides or sides not in (tuple(x.shape[1:]), tuple(x.shape[1:-1])):
        return x
    with tf.device("CPU"):
        same = tf.reduce_all(tf.reshape(tf.cast(x, tf.float32), [-1]) == tf.reshape(tf.cast(y, tf.float32), [-1]))
        with tf.control_dependencies([tf.cond(same, lambda: True, lambda: _stop(OTHER, 0, 0))]):
            return tf.identity(x)


def _fail(values: tf.Tensor) -> bool:
    """An assertion that fails, with the range of the values in its message."""
    is_nan = tf.reduce_any(tf.math.is_nan(values))
    least, most = (tf.where(is_nan, float("nan"), reduce(values)) for reduce in (tf.reduce_min, tf.reduce_max))
    return _stop(MARK, least, most)


def _stop(mark: str, least: tf.Tensor, most: tf.Tensor) -> bool:
    tf.debugging.Assert(False, [tf.strings.format(mark + ": {} to {}]", (least, most))])
    return True
