"""The portable sampler: integers and normal numbers that are the same, bit for bit, on every runtime.

A number is a function of (seed, stream, place) alone, made by uint32 and int32 operations that TensorFlow, XLA, LiteRT
and NumPy compute alike; only its last step, int32 -> float32 times a power of two, leaves the integers, and that is
exact. So image i of a batch depends on its own seed alone, and one seed gives one z everywhere.

The functions take an `Arithmetic`, NumPy's by default; `kvae.noise.keyed` has that of TensorFlow. This module needs
NumPy alone.
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol

import numpy as np

from kvae.internal.errors import UserError, check_seed, check_whole
from kvae.noise.streams import Stream

GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: consecutive multiples spread evenly over the 32-bit circle

# The table of half-normal quantiles. A segment holds half of the tail that those before it leave, the last all of it:
# the cells get finer with the tail, from 2^-9 of the probability to 2^-19.
SEGMENTS, CELLS = 12, 256
INTERPOLATION = 12  # bits within a cell
WIDEST_CELL = 0.45  # standard deviations: where the outermost cell ends, which has no end of its own


class Sample(NamedTuple):
    """Images drawn from a model, one a seed, and what they were drawn from."""

    images: Any  # [n, *image]  draws of p(x|z)
    means: Any  # [n, *image]  E[x|z], float32
    z: Any  # [n, D]  float32


class Arithmetic(Protocol):
    """The few operations that the sampler is made of, on the arrays of one library."""

    def words(self, value: Any) -> Any:
        """Integers as uint32, modulo 2^32."""

    def integers(self, words: Any) -> Any:
        """uint32 below 2^31 as int32."""

    def floats(self, integers: Any) -> Any:
        """int32 as float32."""

    def shift(self, value: Any, places: Any) -> Any:
        """Right shift of uint32, or of int32 that are not negative."""

    def xor(self, first: Any, second: Any) -> Any:
        """Bits that differ, of uint32."""

    def gather(self, table: np.ndarray, index: Any) -> Any:
        """table[index], int32."""

    def count(self, conditions: Any) -> Any:
        """How many along the last axis are true, int32."""

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

    Two rounds of xor-shift and multiply with the constants of C. Wellons, "Prospecting for hash functions" (2018,
    public domain), whose search minimised the avalanche bias of this form.
    """
    bits = ops.xor(bits, ops.shift(bits, 16)) * ops.words(0x7FEB352D)
    bits = ops.xor(bits, ops.shift(bits, 15)) * ops.words(0x846CA68B)
    return ops.xor(bits, ops.shift(bits, 16))


def bits(seeds: Any, stream: Stream, count: int, ops: Arithmetic = NUMPY) -> Any:
    """`count` hashed words for every seed, `[n]` -> `[n, count]` uint32.

    Two keys of 32 bits a seed and stream, and a round of mixing for each, so that two seeds do not share a stretch of
    words where one of their keys should be alike.
    """
    seeds = ops.words(seeds)[:, None]
    places = np.arange(count, dtype=np.int64) * GOLDEN % 2**32
    words = ops.words(places)[None]
    for number in (1, 2):
        key = mix(ops.xor(seeds, ops.words((2 * int(stream) + number) * GOLDEN % 2**32)), ops)
        words = mix(ops.xor(words, key), ops)
    return words


def uniforms(seeds: Any, stream: Stream, count: int, ops: Arithmetic = NUMPY) -> Any:
    """Uniform numbers on [0, 1), multiples of 2^-24; `[n]` -> `[n, count]` float32."""
    return ops.floats(ops.integers(ops.shift(bits(seeds, stream, count, ops), 8))) * np.float32(2.0**-24)


def normals(seeds: Any, stream: Stream, count: int, ops: Arithmetic = NUMPY) -> Any:
    """Standard normal numbers, multiples of 2^-20; `[n]` -> `[n, count]` float32.

    The first bit is the sign and the other 31 are the place in the half-normal distribution, whose quantiles come from
    a table with linear interpolation, all in int32. The outermost cell, of probability 2^-19, ends at 5.2.
    """
    words = bits(seeds, stream, count, ops)
    negative = ops.integers(ops.shift(words, 31))
    place = ops.integers(ops.shift(words * ops.words(2), 1))
    segment = ops.count(place[..., None] >= _ENDS)
    within = ops.shift(place - ops.gather(_STARTS, segment), ops.gather(_SHIFTS, segment))
    cell = ops.shift(within, INTERPOLATION)
    index = segment * CELLS + cell
    share = within - cell * 2**INTERPOLATION
    low = ops.gather(_QUANTILES, index)
    rise = (ops.gather(_QUANTILES, index + 1) - low) * share + 2 ** (INTERPOLATION - 1)
    magnitude = low + ops.shift(rise, INTERPOLATION)
    return ops.floats(magnitude - 2 * negative * magnitude) * np.float32(2.0**-20)


class Portable:
    """The noise that draws the images of seeds: a `kvae.noise.keyed.Noise` whose image i depends on seeds[i] alone.

    Args:
        seeds: `[B]` int32.
        ops: of the library that computes.
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
    """The seeds of images start .. start + n - 1 of a set that is named by one number: no two of one set are alike.

    Args:
        n: at least 1.
        seed: of the set, in 0..2^31 - 1.
        start: the first image.

    Returns:
        `[n]` int32.

    Raises:
        UserError: n below 1 or another seed.
    """
    check_whole("n", n)
    check_whole("start", start, least=0)
    places = np.arange(start, start + n, dtype=np.int64) * GOLDEN
    key = mix(
        mix(NUMPY.words(check_seed("seed", seed) ^ (2 * int(Stream.SEEDS) + 1) * GOLDEN % 2**32))
    )  # as scattered as a word
    return mix(NUMPY.words(places % 2**32) ^ key).view(np.int32)


def check_seeds(values: Any) -> np.ndarray:
    """Seeds as `[n]` int32.

    Raises:
        UserError: not a list of whole numbers, none, or one outside int32.
    """
    try:
        received = np.asarray(values)
    except ValueError:
        raise UserError(f"Expected seeds, a list of whole numbers [n], one an image. Received {values!r}.") from None
    if received.ndim != 1 or received.dtype.kind not in "iu":
        shown = f"{received.dtype} of shape {list(received.shape)}"
        raise UserError(f"Expected seeds, a list of whole numbers [n], one an image. Received {shown}.")
    if received.size == 0:
        raise UserError("Expected at least one seed. Received none.")
    least, most = int(received.min()), int(received.max())
    if least < -(2**31) or most >= 2**31:
        wrong = least if least < -(2**31) else most
        raise UserError(f"Expected seeds in int32, -2147483648..2147483647. Received {wrong}.")
    return received.astype(np.int32)


def _table() -> np.ndarray:
    """Half-normal quantiles where the cells begin, and where the last one ends, in units of 2^-20, int32."""
    tails = [2.0**-segment * (1 - cell / (2 * CELLS)) for segment in range(SEGMENTS - 1) for cell in range(CELLS)]
    tails += [2.0 ** -(SEGMENTS - 1) * (1 - cell / CELLS) for cell in range(CELLS)]
    quantiles = [-NormalDist().inv_cdf(tail / 2) for tail in tails]
    return np.rint(np.array([*quantiles, quantiles[-1] + WIDEST_CELL]) * 2.0**20).astype(np.int32)


# `place` runs from 0 to 2^31 - 1; segment s begins where 2^-s of that is left, and 20 bits of what lies within count.
_STARTS = np.array([2**31 - 2 ** (31 - segment) for segment in range(SEGMENTS)], np.int32)
_ENDS = _STARTS[1:]
_SHIFTS = np.array([10 - min(segment, 10) for segment in range(SEGMENTS)], np.int32)
_QUANTILES = _table()
