"""Counter-based random numbers: a number depends on what it is used for, not on how many were drawn before.

A number is a hash of (seed, key, index of the element). So the pixel noise of image i in epoch e is the same for every
batch size, order and number of workers, and after a resume. The hash uses only built-in uint32 operations, so `uniform`
gives the same bits in eager mode, in a graph, under XLA and in NumPy. `normal` applies `erfinv`, whose implementations
agree to 4 units in the last place, but under XLA only to 3e-5 beyond three standard deviations. Numbers that must be
the same on every runtime, those of the image of a seed, come from `kvae.noise.portable`.
"""

import math
from typing import Any, Protocol

import numpy as np

from kvae.internal.tensorflow import tf
from kvae.noise import portable, streams
from kvae.noise.streams import Stream


class Noise(Protocol):
    """A source of random numbers for a batch of B images. It is passed to every function that draws.

    `Keyed` below is for training and evaluation, `kvae.noise.portable.Portable` for the images of seeds.
    """

    def normal(self, shape: tuple[int, ...], stream: Stream) -> Any:
        """Standard normal numbers, `[B, *shape]` float32."""

    def uniform(self, shape: tuple[int, ...], stream: Stream) -> Any:
        """Uniform numbers on [0, 1), `[B, *shape]` float32."""


class TensorFlow:
    """`kvae.noise.portable.Arithmetic` for TensorFlow, with operations that are built into LiteRT."""

    def words(self, value: Any) -> tf.Tensor:
        if isinstance(value, int | np.ndarray):
            return tf.constant(np.asarray(value).astype(np.uint32))
        return tf.cast(tf.convert_to_tensor(value), tf.uint32)

    def integers(self, words: tf.Tensor) -> tf.Tensor:
        return tf.cast(words, tf.int32)

    def floats(self, integers: tf.Tensor) -> tf.Tensor:
        return tf.cast(integers, tf.float32)

    def shift(self, value: tf.Tensor, places: Any) -> tf.Tensor:
        return tf.bitwise.right_shift(value, tf.cast(places, value.dtype))

    def xor(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(first, second)

    def gather(self, table: np.ndarray, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.constant(table), index)

    def count(self, conditions: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(conditions, tf.int32), axis=-1)

    def reshape(self, values: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        return tf.reshape(values, [-1, *shape])


TENSORFLOW = TensorFlow()


class PortableTensors(portable.Portable):
    """`kvae.noise.portable.Portable` with TensorFlow.

    AutoGraph finds nothing to convert in it, for which it would need half a second in every process.

    Args:
        seeds: one seed per image, `[B]` int32.
    """

    def __init__(self, seeds: Any) -> None:
        super().__init__(seeds, TENSORFLOW)

    normal = tf.autograph.experimental.do_not_convert(portable.Portable.normal)
    uniform = tf.autograph.experimental.do_not_convert(portable.Portable.uniform)


def _bits(count: int, key: tuple[Any, ...]) -> tf.Tensor:
    """`count` hashed words for each key of a batch, `[B, count]` uint32."""
    ops, golden = TENSORFLOW, TENSORFLOW.words(portable.GOLDEN)
    state = ops.words(0)
    for part in key:
        state = portable.mix(ops.xor(state, ops.words(part)) + golden, ops)
    return portable.mix(tf.reshape(state, [-1, 1]) + ops.words(tf.range(count)) * golden, ops)


def uniform(shape: tuple[int, ...], *key: Any) -> tf.Tensor:
    """Uniform numbers on [0, 1) for each key of a batch.

    Args:
        shape: shape of the numbers for one key, e.g. `(28, 28, 1)`.
        *key: integers or integer tensors that broadcast to `[B]`, e.g. seed, epoch and image index.

    Returns:
        `[B, *shape]` float32, multiples of 2^-24.
    """
    high = tf.bitwise.right_shift(_bits(math.prod(shape), key), tf.constant(8, tf.uint32))
    return tf.reshape(tf.cast(tf.cast(high, tf.int32), tf.float32) * 2.0**-24, [-1, *shape])


def normal(shape: tuple[int, ...], *key: Any) -> tf.Tensor:
    """Standard normal numbers for each key of a batch, by the inverse distribution function.

    The uniform numbers are the odd multiples of 2^-24. They are symmetric about 1/2 and never 0 or 1, so the normal
    numbers are finite, with magnitudes up to 5.3. A standard normal number exceeds this with probability 1 in 8 * 10^6.

    Args:
        shape: shape of the numbers for one key, e.g. `(K, D)`.
        *key: as in `uniform`.

    Returns:
        `[B, *shape]` float32.
    """
    high = tf.bitwise.right_shift(_bits(math.prod(shape), key), tf.constant(9, tf.uint32))
    symmetric = (tf.cast(tf.cast(high, tf.int32), tf.float32) + 0.5) * 2.0**-22 - 1.0  # 2u - 1, exact
    return tf.reshape(math.sqrt(2.0) * tf.math.erfinv(symmetric), [-1, *shape])


class Keyed:
    """The noise of a computation: each number is a hash of (seed, use, stream, key).

    With the same key the numbers are the same for every batch size and number of workers, and after a resume.

    Args:
        seed: an integer, or an integer tensor.
        use: the computation that needs the numbers.
        *key: integers or integer tensors that broadcast to `[B]`, such as the step and the positions of the images.
    """

    def __init__(self, seed: Any, use: Stream, *key: Any) -> None:
        self._seed = seed
        self._use = use
        self._key = key

    def normal(self, shape: tuple[int, ...], stream: Stream) -> tf.Tensor:
        """Standard normal numbers for the part of the model that `stream` names, `[B, *shape]` float32."""
        return normal(shape, self._seed, *streams.words(self._use, stream), *self._key)

    def uniform(self, shape: tuple[int, ...], stream: Stream) -> tf.Tensor:
        """Uniform numbers on [0, 1) for the part of the model that `stream` names, `[B, *shape]` float32."""
        return uniform(shape, self._seed, *streams.words(self._use, stream), *self._key)

    def numbered(self, numbers: Any) -> "Numbered":
        """The same noise for numbered draws, `[K]` integers. Draw k is the same however many are made at once."""
        return Numbered(self._seed, self._use, self._key, numbers)


class Numbered:
    """`Keyed` noise for numbered draws: the first axis of each shape is the draws, and the key has the draw's number.

    Args:
        seed: as in `Keyed`.
        use: as in `Keyed`.
        key: as in `Keyed`; the last element has the shape `[B]`.
        numbers: number of each draw, `[K]` integers.
    """

    def __init__(self, seed: Any, use: Stream, key: tuple[Any, ...], numbers: Any) -> None:
        self._keyed = (seed, use, key)
        self._numbers = tf.convert_to_tensor(numbers)

    def normal(self, shape: tuple[int, ...], stream: Stream) -> tf.Tensor:
        """Standard normal numbers, `[B, K, *rest]` float32 for the shape `(K, *rest)`."""
        return self._generate(normal, shape, stream)

    def uniform(self, shape: tuple[int, ...], stream: Stream) -> tf.Tensor:
        """Uniform numbers on [0, 1), `[B, K, *rest]` float32 for the shape `(K, *rest)`."""
        return self._generate(uniform, shape, stream)

    def _generate(self, generate: Any, shape: tuple[int, ...], stream: Stream) -> tf.Tensor:
        seed, use, key = self._keyed
        images, draws = tf.shape(key[-1])[0], tf.shape(self._numbers)[0]
        parts = [tf.tile(part, [draws]) if part.shape.rank == 1 else part for part in map(tf.convert_to_tensor, key)]
        numbers = tf.repeat(self._numbers, images)
        values = generate(tuple(shape[1:]), seed, *streams.words(use, stream), *parts, numbers)
        values = tf.reshape(values, [shape[0], images, *shape[1:]])  # fails if shape[0] is not K
        return tf.transpose(values, [1, 0, *range(2, 1 + len(shape))])
