"""The portable sampler: uniform and normal numbers that are the same, bit for bit, on every runtime.

A number depends only on (seed, stream, position). It is computed with uint32 and int32 operations, whose results are
the same in TensorFlow, XLA, LiteRT and NumPy. The last step converts int32 to float32 and multiplies by a power of two,
which is exact. So image i of a batch depends only on its own seed, and one seed gives the same z everywhere.

The functions take an `Arithmetic`, by default that of NumPy; `kvae.noise.keyed` has that of TensorFlow. This module
imports no other library than NumPy.
"""

import math
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.noise.streams import Stream

GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: consecutive multiples spread evenly over the 32-bit circle

# The table of half-normal quantiles has 12 segments of 256 cells each. A segment covers half of the probability that is
# left after the segments before it, and the last segment covers all that is left. So the probability of a cell
# decreases towards the tail, from 2^-9 to 2^-19.
SEGMENTS, CELLS = 12, 256
INTERPOLATION = 12  # number of bits for the position within a cell
OUTERMOST_CELL = 0.45  # width of the last cell in standard deviations; its exact upper end is infinite


class Arithmetic(Protocol):
    """The operations that the sampler needs, for the arrays of one library."""

    def words(self, value: Any) -> Any:
        """Integers as uint32, modulo 2^32."""

    def integers(self, words: Any) -> Any:
        """uint32 below 2^31 as int32."""

    def floats(self, integers: Any) -> Any:
        """int32 as float32."""

    def shift(self, value: Any, places: Any) -> Any:
        """Right shift of uint32, or of non-negative int32."""

    def xor(self, first: Any, second: Any) -> Any:
        """Bitwise exclusive or of uint32."""

    def gather(self, table: np.ndarray, index: Any) -> Any:
        """table[index], int32."""

    def count(self, conditions: Any) -> Any:
        """Number of true elements along the last axis, int32."""

    def reshape(self, values: Any, shape: tuple[int, ...]) -> Any:
        """`[n, ...]` -> `[n, *shape]`."""


class NumPy:
    """`Arithmetic` of NumPy."""

    def words(self, value: Any) -> np.ndarray:
        return np.atleast_1d(np.asarray(value)).astype(np.uint32)

    def integers(self, words: np.ndarray) -> np.ndarray:
        return words.astype(np.int32)

    def floats(self, integers: np.ndarray) -> np.ndarray:
        return integers.astype(np.float32)

    def shift(self, value: np.ndarray, places: Any) -> np.ndarray:
        return np.right_shift(value, np.asarray(places).astype(value.dtype))

    def xor(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.bitwise_xor(first, second)

    def gather(self, table: np.ndarray, index: np.ndarray) -> np.ndarray:
        return table[index]

    def count(self, conditions: np.ndarray) -> np.ndarray:
        return conditions.sum(axis=-1, dtype=np.int32)

    def reshape(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return values.reshape(-1, *shape)


NUMPY = NumPy()


def mix(bits: Any, ops: Arithmetic = NUMPY) -> Any:
    """A bijection of uint32 in which every input bit flips every output bit with probability near 1/2.

    Two rounds of xor-shift and multiplication. The constants are those of C. Wellons, "Prospecting for hash functions"
    (2018, public domain), found by a search for the smallest avalanche bias of this form.
    """
    bits = ops.xor(bits, ops.shift(bits, 16)) * ops.words(0x7FEB352D)
    bits = ops.xor(bits, ops.shift(bits, 15)) * ops.words(0x846CA68B)
    return ops.xor(bits, ops.shift(bits, 16))


def bits(seeds: Any, stream: Stream, count: int, ops: Arithmetic = NUMPY) -> Any:
    """Hashed words for each seed.

    Each pair of a seed and a stream has two keys of 32 bits and one round of mixing per key. So two seeds do not share
    a sequence of words even if one of their keys is the same.

    Args:
        seeds: `[n]` integers.
        stream: what the numbers are for.
        count: number of words per seed.
        ops: operations of the array library, those of NumPy by default.

    Returns:
        `[n, count]` uint32.
    """
    seeds = ops.words(seeds)[:, None]
    positions = np.arange(count, dtype=np.int64) * GOLDEN % 2**32
    words = ops.words(positions)[None]
    for number in (1, 2):
        key = mix(ops.xor(seeds, ops.words((2 * int(stream) + number) * GOLDEN % 2**32)), ops)
        words = mix(ops.xor(words, key), ops)
    return words


def uniforms(seeds: Any, stream: Stream, count: int, ops: Arithmetic = NUMPY) -> Any:
    """Uniform numbers on [0, 1), multiples of 2^-24; seeds `[n]` -> `[n, count]` float32. Arguments as in `bits`."""
    return ops.floats(ops.integers(ops.shift(bits(seeds, stream, count, ops), 8))) * np.float32(2.0**-24)


def normals(seeds: Any, stream: Stream, count: int, ops: Arithmetic = NUMPY) -> Any:
    """Standard normal numbers, multiples of 2^-20; seeds `[n]` -> `[n, count]` float32. Arguments as in `bits`.

    The first bit is the sign. The other 31 bits are a probability, whose half-normal quantile comes from a table with
    linear interpolation in int32. The last cell has probability 2^-19 and ends at 5.2 standard deviations.
    """
    words = bits(seeds, stream, count, ops)
    negative = ops.integers(ops.shift(words, 31))
    probability = ops.integers(ops.shift(words * ops.words(2), 1))  # in units of 2^-31
    segment = ops.count(probability[..., None] >= _ENDS)
    within = ops.shift(probability - ops.gather(_STARTS, segment), ops.gather(_SHIFTS, segment))
    cell = ops.shift(within, INTERPOLATION)
    index = segment * CELLS + cell
    fraction = within - cell * 2**INTERPOLATION
    low = ops.gather(_QUANTILES, index)
    product = (ops.gather(_QUANTILES, index + 1) - low) * fraction + 2 ** (INTERPOLATION - 1)  # the last term rounds
    magnitude = low + ops.shift(product, INTERPOLATION)
    return ops.floats(magnitude - 2 * negative * magnitude) * np.float32(2.0**-20)


class Portable:
    """The `kvae.noise.keyed.Noise` that draws the images of seeds. The numbers of image i depend only on seeds[i].

    Args:
        seeds: one seed per image, `[B]` int32.
        ops: operations of the array library, those of NumPy by default.
    """

    def __init__(self, seeds: Any, ops: Arithmetic = NUMPY) -> None:
        self._seeds = seeds
        self._ops = ops

    def normal(self, shape: tuple[int, ...], stream: Stream) -> Any:
        """Standard normal numbers for the part of the model that `stream` names, `[B, *shape]` float32."""
        return self._ops.reshape(normals(self._seeds, stream, math.prod(shape), self._ops), shape)

    def uniform(self, shape: tuple[int, ...], stream: Stream) -> Any:
        """Uniform numbers on [0, 1) for the part of the model that `stream` names, `[B, *shape]` float32."""
        return self._ops.reshape(uniforms(self._seeds, stream, math.prod(shape), self._ops), shape)


def seeds(n: int, seed: int, start: int = 0) -> np.ndarray:
    """The seeds of the images start, ..., start + n - 1 of a set. Within a set all seeds are different.

    Args:
        n: number of images, at least 1.
        seed: seed of the set, in 0..2^31 - 1.
        start: index of the first image. 0 by default.

    Returns:
        `[n]` int32.

    Raises:
        UserError: if n is below 1, or `seed` or `start` is outside its limits.
    """
    check_whole("n", n)
    check_whole("start", start, least=0, most=2**62)
    positions = np.arange(start, start + n, dtype=np.int64) * GOLDEN
    # Mixed twice, as each word of `bits` is.
    key = mix(mix(NUMPY.words(check_seed("seed", seed) ^ (2 * int(Stream.SEEDS) + 1) * GOLDEN % 2**32)))
    return mix(NUMPY.words(positions % 2**32) ^ key).view(np.int32)


def check_seeds(values: Any) -> np.ndarray:
    """Seeds as an array `[n]` int32.

    Args:
        values: a list or array of whole numbers.

    Raises:
        UserError: if `values` is empty, is not a list of whole numbers, or has a number outside int32.
    """
    try:
        received = np.asarray(values)
    except ValueError:
        raise UserError(f"Expected seeds, a list of whole numbers [n], one per image. Received {values!r}.") from None
    if received.ndim != 1 or received.dtype.kind not in "iu":
        shown = f"{received.dtype} of shape {list(received.shape)}"
        raise UserError(f"Expected seeds, a list of whole numbers [n], one per image. Received {shown}.")
    if received.size == 0:
        raise UserError("Expected at least one seed. Received none.")
    least, most = int(received.min()), int(received.max())
    if least < -(2**31) or most >= 2**31:
        wrong = least if least < -(2**31) else most
        raise UserError(f"Expected seeds in int32, from -2147483648 to 2147483647. Received {wrong}.")
    return received.astype(np.int32)


def _table() -> np.ndarray:
    """Half-normal quantiles at the start of each cell and at the end of the last one, in units of 2^-20, int32."""
    tails = [2.0**-segment * (1 - cell / (2 * CELLS)) for segment in range(SEGMENTS - 1) for cell in range(CELLS)]
    tails += [2.0 ** -(SEGMENTS - 1) * (1 - cell / CELLS) for cell in range(CELLS)]
    quantiles = [-NormalDist().inv_cdf(tail / 2) for tail in tails]
    return np.rint(np.array([*quantiles, quantiles[-1] + OUTERMOST_CELL]) * 2.0**20).astype(np.int32)


# A probability is a number from 0 to 2^31 - 1. Segment s starts where a fraction 2^-s of this range is left. The shift
# reduces the position within a segment to 20 bits: 8 for the cell, 12 for the interpolation.
_STARTS = np.array([2**31 - 2 ** (31 - segment) for segment in range(SEGMENTS)], np.int32)
_ENDS = _STARTS[1:]
_SHIFTS = np.array([10 - min(segment, 10) for segment in range(SEGMENTS)], np.int32)
_QUANTILES = _table()
