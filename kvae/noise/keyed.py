"""Counter-based uniform numbers: a value depends on what it is for, never on how many were drawn before.

A draw is a hash of (seed, key..., element), so the pixel noise of image i in epoch e is the same whatever the batch
size, the order, the number of workers or the moment of a resume. Only builtin uint32 operations make the bits, so
`uniform` is bit-identical eagerly, in a graph, under XLA and in NumPy. `normal` puts them through `erfinv`, whose
kernels agree to 4 units in the last place, and under XLA to 3e-5 beyond three standard deviations. What must be the
same on every runtime, the images that a seed stands for, comes from `kvae.noise.portable`.
"""

import math
from typing import Any, Protocol

import numpy as np

from kvae.internal.tensorflow import tf
from kvae.noise import portable, streams
from kvae.noise.streams import Stream


class Noise(Protocol):
    """Random numbers for a batch of B images; whoever draws is given one.

    `Keyed` below serves training and evaluation, `kvae.noise.portable.Portable` the images that a seed stands for.
    """

    def normal(self, shape: tuple[int, ...], stream: Stream) -> Any:
        """Standard normal numbers, `[B, *shape]` float32."""

    def uniform(self, shape: tuple[int, ...], stream: Stream) -> Any:
        """Uniform numbers on [0, 1), `[B, *shape]` float32."""


class TensorFlow:
    """`kvae.noise.portable.Arithmetic` of TensorFlow, in operations that LiteRT has built in."""

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


def _bits(count: int, key: tuple[Any, ...]) -> tf.Tensor:
    """`count` hashed words for every key, `[B, count]` uint32."""
    ops, golden = TENSORFLOW, TENSORFLOW.words(portable.GOLDEN)
    state = ops.words(0)
    for part in key:
        state = portable.mix(ops.xor(state, ops.words(part)) + golden, ops)
    return portable.mix(tf.reshape(state, [-1, 1]) + ops.words(tf.range(count)) * golden, ops)


def uniform(shape: tuple[int, ...], *key: Any) -> tf.Tensor:
    """Uniform numbers on [0, 1) for every key of a batch.

    Args:
        shape: of the numbers that one key gets, e.g. `(28, 28, 1)`.
        *key: integers or integer tensors that broadcast to `[B]`, e.g. seed, epoch and image index.

    Returns:
        `[B, *shape]` float32, multiples of 2^-24.
    """
    high = tf.bitwise.right_shift(_bits(math.prod(shape), key), tf.constant(8, tf.uint32))
    return tf.reshape(tf.cast(tf.cast(high, tf.int32), tf.float32) * 2.0**-24, [-1, *shape])


def normal(shape: tuple[int, ...], *key: Any) -> tf.Tensor:
    """Standard normal numbers for every key of a batch, by the inverse distribution function.

    The uniforms are the odd multiples of 2^-24, symmetric about 1/2 and never 0 or 1, so the draws are finite: at most
    5.3 standard deviations out, beyond which one in 8 * 10^6 would lie.

    Args:
        shape: of the numbers that one key gets, e.g. `(K, D)`.
        *key: as in `uniform`.

    Returns:
        `[B, *shape]` float32.
    """
    high = tf.bitwise.right_shift(_bits(math.prod(shape), key), tf.constant(9, tf.uint32))
    symmetric = (tf.cast(tf.cast(high, tf.int32), tf.float32) + 0.5) * 2.0**-22 - 1.0  # 2u - 1, exact
    return tf.reshape(math.sqrt(2.0) * tf.math.erfinv(symmetric), [-1, *shape])


class Keyed:
    """The noise of a computation: numbers that are a hash of (seed, what they are for, key).

    They are the same for every batch size, number of workers and moment of a resume, as long as the key is.

    Args:
        seed: an integer, or an integer tensor.
        use: which computation draws.
        *key: integers or integer tensors that broadcast to `[B]`, such as the step and the places of the images.
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
        """The same noise for draws that have numbers: how many of them are made at once changes none."""
        return Numbered(self._seed, self._use, self._key, numbers)


class Numbered:
    """`Keyed` noise in which the first axis of every shape counts draws, and draw k has its number in the key.

    Args:
        seed: as in `Keyed`.
        use: as in `Keyed`.
        key: as in `Keyed`; at least one of them is `[B]`.
        numbers: of the draws, `[K]` integers.
    """

    def __init__(self, seed: Any, use: Stream, key: tuple[Any, ...], numbers: Any) -> None:
        self._keyed = (seed, use, key)
        self._numbers = tf.convert_to_tensor(numbers)

    def normal(self, shape: tuple[int, ...], stream: Stream) -> tf.Tensor:
        """Standard normal numbers, `[B, K, *rest]` float32 for the shape `(K, *rest)`."""
        return self._made(normal, shape, stream)

    def uniform(self, shape: tuple[int, ...], stream: Stream) -> tf.Tensor:
        """Uniform numbers on [0, 1), `[B, K, *rest]` float32 for the shape `(K, *rest)`."""
        return self._made(uniform, shape, stream)

    def _made(self, generate: Any, shape: tuple[int, ...], stream: Stream) -> tf.Tensor:
        seed, use, key = self._keyed
        images, draws = tf.shape(key[-1])[0], tf.shape(self._numbers)[0]
        parts = [tf.tile(part, [draws]) if part.shape.rank == 1 else part for part in map(tf.convert_to_tensor, key)]
        numbers = tf.repeat(self._numbers, images)
        made = generate(tuple(shape[1:]), seed, *streams.words(use, stream), *parts, numbers)
        made = tf.reshape(made, [shape[0], images, *shape[1:]])  # fails where the shape does not begin with K
        return tf.transpose(made, [1, 0, *range(2, 1 + len(shape))])
