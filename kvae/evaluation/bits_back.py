"""Lossless coding of images: bits back with asymmetric numeral systems, in whole units of probability of 2^-20.

Townsend, Bird and Barber, "Practical Lossless Compression with Latent Variables using Bits Back Coding" (2019).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model.compiled_functions import compiled
from kvae.model.likelihoods.base import flatten_pixels
from kvae.model.vae import VAE
from kvae.noise import portable
from kvae.noise.streams import Stream

PRECISION, LOWEST_HEAD = 20, 2**31
BUCKETS = 2**14  # of each latent dimension, with the same mass under the standard normal prior
EDGES = np.array([-math.inf, *[NormalDist().inv_cdf(edge / BUCKETS) for edge in range(1, BUCKETS)], math.inf])
FOREIGN = "Expected a message that compress made where the networks compute the very same bits. Received another."
Distribution = tuple[Callable[[np.ndarray], np.ndarray], Any]  # symbols to the units of all lower ones; bits to mix in


class Stack:
    """A message: a stack of symbols of several lanes, which the range variant of Duda (2009) makes of natural numbers.

    A head, of a lane, is a number from 2^31 to 2^63 - 1, which a push of f units multiplies by about 2^20 / f, and a
    pop divides again, without loss. The lanes share the words of 32 bits that leave the heads.
    """

    def __init__(self, heads: np.ndarray, words: bytes) -> None:
        self.heads, self.words, self.untouched = heads, bytearray(words), len(words)
        self.moved = np.zeros(len(heads))  # words that each lane has pushed and not popped

    @property
    def lengths(self) -> np.ndarray:
        return 32 * self.moved + np.log2(self.heads.astype(np.float64))  # bits of the message that belong to each lane

    def push(self, symbols: np.ndarray, distributions: Sequence[Distribution]) -> None:
        """Pushes symbols `[B, S]` on the first B lanes, the last of the S ones first."""
        heads = self.heads[: len(symbols)]
        for symbol, (units, mixing) in zip(symbols.T[::-1], reversed(distributions), strict=True):
            start = units(symbol)
            frequency = units(symbol + 1) - start
            full = np.flatnonzero(heads >= frequency << (63 - PRECISION))
            self.words += heads[full].astype("<u4").tobytes()  # the lower half
            heads[full], self.moved[full] = heads[full] >> 32, self.moved[full] + 1
            heads[:] = (heads // frequency << PRECISION) + heads % frequency + start ^ mixing

    def pop(self, lanes: int, count: int, distributions: Sequence[Distribution]) -> np.ndarray:
        """Pops what `push` has pushed, `[B, S]` numbers from 0 to count - 1, each of which it finds by bisection."""
        heads, popped = self.heads[:lanes], []
        for units, mixing in distributions:
            heads ^= mixing
            unit = heads & (2**PRECISION - 1)
            low, high = np.zeros(lanes, np.int64), np.full(lanes, count)
            for _ in range((count - 1).bit_length()):
                middle = (low + high) // 2
                below = units(middle) <= unit
                low, high = np.where(below, middle, low), np.where(below, high, middle)
            start = units(low)
            heads[:] = (units(low + 1) - start) * (heads >> PRECISION) + unit - start
            empty = np.flatnonzero(heads < LOWEST_HEAD)
            if (left := len(self.words) - 4 * len(empty)) < 0:
                raise UserError(FOREIGN)
            heads[empty] = heads[empty] << 32 | np.frombuffer(self.words[left:], "<u4")
            self.moved[empty] -= 1
            del self.words[left:]
            self.untouched = min(self.untouched, left)
            popped.append(low)
        return np.stack(popped, axis=1)


class Codec:
    """Images as symbols of a stack, one per lane and batch. A pixel is the number of its value among the possible ones.

    Decoding needs every bit of the networks again. So they always get `rows` rows, of which the last may be zeros.
    """

    def __init__(self, vae: VAE, values: np.ndarray, rows: int) -> None:
        self.vae, self.values, self.rows = vae, values, rows
        self.middles = vae.prior.quantiles(BUCKETS).astype(np.float32)
        self.prior = [(lambda bucket: (bucket * (2**PRECISION // BUCKETS)).astype(np.uint64), 0)] * vae.latent_dim

    def encode(self, stack: Stack, pixels: np.ndarray, conditions: Any = None) -> Iterator[np.ndarray]:
        """Pushes images, pixels `[N, P]`, and yields the bits of each batch, `[B]`."""
        for start in range(0, len(pixels), len(stack.heads)):
            part, before = slice(start, start + len(stack.heads)), stack.lengths
            x = pixels[part]
            buckets = stack.pop(len(x), BUCKETS, self._posterior(x, conditions, part))
            stack.push(x, self._likelihood(buckets, conditions, part))
            stack.push(buckets, self.prior)
            yield (stack.lengths - before)[: len(x)]

    def decode(self, stack: Stack, count: int, conditions: Any = None) -> Iterator[np.ndarray]:
        """Pops N = `count` images that `encode` has pushed, and yields the pixels of the last batch `[B, P]` first."""
        for start in reversed(range(0, count, len(stack.heads))):
            part = slice(start, min(start + len(stack.heads), count))
            buckets = stack.pop(part.stop - start, BUCKETS, self.prior)
            x = stack.pop(len(buckets), len(self.values), self._likelihood(buckets, conditions, part))
            stack.push(buckets, self._posterior(x, conditions, part))
            yield x

    def _posterior(self, pixels: np.ndarray, conditions: Any, part: slice) -> list[Distribution]:
        """q(z|x) of each dimension over the buckets, mixed so that z does not depend on the z before, on the stack."""
        x = self._full(self.values[pixels].reshape(-1, *self.vae.image_shape))
        columns = np.stack(_q(self.vae, x, self._full(conditions, part)))[:, : len(pixels)].astype(np.float64)
        mixing = portable.bits(part.start + np.arange(len(pixels)), Stream.MIXED_BITS, columns.shape[-1]) >> 1
        units = [partial(gaussian_units, mean, np.exp(log_var / 2)) for mean, log_var in columns.transpose(2, 0, 1)]
        return list(zip(units, mixing.T.astype(np.uint64), strict=True))

    def _likelihood(self, buckets: np.ndarray, conditions: Any, part: slice) -> list[Distribution]:
        """p(x|z) of each pixel over its values, for the middle z of each bucket. Each value has at least one unit."""
        z, condition = self._full(self.middles[buckets]), self._full(conditions, part)
        share = np.cumsum(np.exp(np.float64(_log_p(self.vae, z, condition, self.values))), axis=1)
        count, lanes = len(self.values), np.arange(len(buckets))
        units = np.rint(share / share[:, -1:] * (2**PRECISION - count)) + np.arange(1, count + 1)[:, None]
        units = np.pad(units, [(0, 0), (1, 0), (0, 0)]).astype(np.uint64)
        return [(lambda symbols, units=each: units[symbols, lanes], 0) for each in units]  # type: ignore[misc]

    def _full(self, each: Any, part: slice = slice(None)) -> Any:
        rows = () if each is None else each[part]
        return None if each is None else tf.concat([rows, tf.zeros([self.rows - len(rows), *each.shape[1:]])], axis=0)


@compiled(xla=True)
def _q(vae: VAE, x: tf.Tensor, condition: Any) -> Any:
    return tuple(vae.encode(x, condition))  # type: ignore[arg-type]


@compiled(xla=True)
def _log_p(vae: VAE, z: tf.Tensor, condition: Any, values: tf.Tensor) -> tf.Tensor:
    """log p(x_i = v|z) of each pixel, value and image, `[P, V, B]` nats."""
    shape, image = tuple(vae.likelihood.parameters_shape(vae.image_shape)), tuple(vae.image_shape)
    parameters = flatten_pixels(vae.decode(z, condition), shape, image)
    pixels = tf.ones([z.shape[0], math.prod(image)])
    each = tf.map_fn(lambda value: vae.likelihood.log_prob_of_pixels(value * pixels, parameters), values)
    return tf.transpose(each, [2, 0, 1])


def gaussian_units(mean: np.ndarray, deviation: np.ndarray, bucket: np.ndarray) -> np.ndarray:
    """The units of a Gaussian below the lower edge z of a bucket, 2^20 Phi((z - mean) / deviation)."""
    below = np.frompyfunc(math.erfc, 1, 1)((mean - EDGES[bucket]) / (math.sqrt(2) * deviation))
    return np.rint(below.astype(np.float64) * 2.0 ** (PRECISION - 1)).astype(np.uint64)
