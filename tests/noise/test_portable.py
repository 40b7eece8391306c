"""`kvae.noise.portable`: the same bits in NumPy, TensorFlow and a slow oracle; normal numbers are quantiles of them."""

import hashlib

import numpy as np
import pytest
from portable_words import EXTREME, GOLDEN, MASK, mixed, words_of
from scipy import stats

from kvae.internal.tensorflow import tf
from kvae.noise import keyed, portable
from kvae.noise.streams import Stream

MANY = [*EXTREME, *np.random.default_rng(0).integers(-(2**31), 2**31, size=200).tolist()]
STREAMS = {"latent": Stream.LATENT, "pixels": Stream.PIXELS}
streams = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
DRAWS = {"bits": portable.bits, "uniforms": portable.uniforms, "normals": portable.normals}
each = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
UNIT = 2.0**-20  # of the normal numbers


@pytest.fixture
def given_words(monkeypatch):
    """Puts chosen words in place of the hashed ones, and returns the normal numbers that they make."""

    def normals(words):
        monkeypatch.setattr(portable, "bits", lambda *_: np.asarray(words, np.uint32)[None])
        return np.float64(portable.normals([0], 0, len(words))[0])

    return normals


# The same bits everywhere


RUNTIMES = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
@streams
@pytest.mark.parametrize("count", [1, 2, 784])
def test_tensorflow_has_the_bits_of_numpy(runtime, stream, count):
    drawn = runtime(lambda seeds: [draw(seeds, stream, count, keyed.TENSORFLOW) for draw in DRAWS.values()])
    for actual, draw in zip(drawn(tf.constant(MANY)), DRAWS.values(), strict=True):
        expected = draw(MANY, stream, count)
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        assert np.array_equal(actual, expected)


@streams
def test_words_are_those_of_whole_numbers_without_end(stream):
    assert portable.bits(MANY, stream, 30).tolist() == [words_of(seed, stream, 30) for seed in MANY]


def test_late_words_are_those_of_whole_numbers_without_end():
    assert portable.bits([5], 1, 200_000)[0, -3:].tolist() == words_of(5, 1, 200_000)[-3:]


@streams
def test_uniform_numbers_are_the_first_24_bits_of_the_words(stream):
    expected = [[(word >> 8) / 2**24 for word in words_of(seed, stream, 30)] for seed in MANY]
    assert portable.uniforms(MANY, stream, 30).tolist() == expected


def test_seeds_are_those_of_whole_numbers_without_end():
    key = mixed(mixed(7 ^ (5 * GOLDEN & MASK)))
    words = [mixed((place * GOLDEN & MASK) ^ key) for place in range(100)]
    assert portable.seeds(100, 7).tolist() == [word - 2**32 if word >= 2**31 else word for word in words]


@pytest.mark.parametrize(("stream", "draw"), [(0, portable.normals), (1, portable.uniforms)], ids=["z", "uniforms"])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, list])
def test_seeds_of_every_type_stand_for_the_same_numbers(stream, draw, dtype):
    seeds = EXTREME if dtype is list else np.array(EXTREME, dtype)
    assert np.array_equal(draw(seeds, stream, 5), draw(np.array(EXTREME, np.int32), stream, 5))


# The numbers of a seed never change: otherwise every seed that a user has written down would give another image


def test_the_words_are_pinned():
    assert portable.bits(EXTREME, Stream.LATENT, 3).tolist() == [
        [597639387, 732720106, 2919608396],
        [2548969440, 1054890906, 1379205855],
        [168046078, 3044445001, 643045725],
        [3081928275, 3299205169, 3402138809],
        [1272180303, 630032181, 1347687874],
    ]


def test_the_normal_numbers_are_pinned():
    assert portable.normals(EXTREME, Stream.LATENT, 2).tolist() == [
        [0.3561840057373047, 0.44156932830810547],
        [-0.23650074005126953, 0.6607418060302734],
        [0.09823226928710938, -0.5499992370605469],
        [-0.5756301879882812, -0.7327871322631836],
        [0.8281335830688477, 0.3764009475708008],
    ]


def test_the_uniform_numbers_are_pinned():
    assert portable.uniforms(EXTREME, Stream.PIXELS, 2).tolist() == [
        [0.9317727088928223, 0.6213480234146118],
        [0.2592567801475525, 0.8700428605079651],
        [0.6155588030815125, 0.87686687707901],
        [0.5580047965049744, 0.8663313984870911],
        [0.9365199208259583, 0.9200330972671509],
    ]


def test_the_table_of_quantiles_is_pinned():
    digest = hashlib.sha256(portable._QUANTILES.astype("<i4").tobytes()).hexdigest()
    assert digest == "d22b4b9ca3d0705c48b1a1508a3c60f2b56a4175a8c26ee07220bafc22ded520"


# Normal numbers are quantiles of their words


def half_normal(tail):
    """The number that a share `tail` of the half-normal distribution exceeds."""
    return -stats.norm.ppf(tail / 2)


def cell_of(tail):
    """The cell that a tail lies in: the tails at its two ends and its width, all multiples of a power of two."""
    segment = np.minimum(np.floor(-np.log2(tail)), 11)
    width = np.where(segment < 11, 2.0 ** -(segment + 9), 2.0**-19)
    start = np.ceil(tail / width) * width
    return start, start - width, width


def edge_words():
    """Words at either side of the end of every cell, and at every power of two, without the sign."""
    ends = np.unique(np.concatenate([2**31 - 2 ** (22 - s) * np.arange(256, 513) for s in range(11)]))
    last = 2**31 - 2**12 * np.arange(1, 257)
    powers = 2 ** np.arange(31)
    places = np.concatenate([np.add.outer(part, [-1, 0, 1]).ravel() for part in (ends, last, powers)])
    return np.unique(places[(places >= 0) & (places < 2**31)])


def all_words():
    hashed = np.int64(portable.bits(portable.seeds(100, 0), Stream.LATENT, 2000)).ravel()
    return np.concatenate([edge_words(), edge_words() + 2**31, hashed])


def test_normal_numbers_are_the_quantiles_interpolated_in_a_cell(given_words):
    words = all_words()
    tail = 1 - (words % 2**31) / 2**31
    inner = tail > 2.0**-19
    words, tail = words[inner], tail[inner]
    start, end, width = cell_of(tail)
    expected = half_normal(start) + (half_normal(end) - half_normal(start)) * (start - tail) / width
    # Half a unit of the table's rounding, half a unit of the rounding here, and up to 0.8 units where what lies beyond
    # 12 bits of a cell is dropped: the widest cell of those where it is, of 3225 units, has its end at t = 1/2.
    actual = given_words(words) * np.where(words >= 2**31, -1, 1)
    assert np.abs(actual - expected).max() < 2 * UNIT


def test_normal_numbers_are_quantiles(given_words):
    words = all_words()
    tail = 1 - (words % 2**31) / 2**31
    inner = tail > 2.0**-19
    words, tail = words[inner], tail[inner]
    _, end, width = cell_of(tail)
    # A chord of a function x(t) errs by at most h^2 / 8 max |x''|, x'' = x / (2 phi(x))^2 growing with the tail; and
    # the two units of above. That is 2.7e-6 within 3.49 standard deviations, and 0.025 in the last cell but one.
    bound = 2 * UNIT + width**2 / 8 * half_normal(end) / (2 * stats.norm.pdf(half_normal(end))) ** 2
    assert (bound[tail > 2.0**-11] < 2.8e-6).all()
    error = np.abs(given_words(words) * np.where(words >= 2**31, -1, 1) - half_normal(tail))
    assert (error <= bound).all()


def test_the_outermost_cell_is_finite(given_words):
    places = 2**31 - np.arange(1, 2**12 + 1)
    z = given_words(np.concatenate([places, places + 2**31]))
    # It begins where 2^-19 is left, at 4.763, and ends 0.45 later.
    assert (np.isfinite(z).all(), np.abs(z).min() > 4.7, np.abs(z).max() < 5.3) == (True, True, True)


def test_normal_numbers_grow_with_the_place(given_words):
    assert (np.diff(given_words(edge_words())) >= 0).all()


def test_the_first_bit_is_the_sign_alone(given_words):
    words = all_words() % 2**31
    assert np.array_equal(given_words(words), -given_words(words + 2**31))


def test_normal_numbers_are_multiples_of_their_unit():
    z = np.float64(portable.normals(portable.seeds(1000, 0), 0, 784)) / UNIT
    assert np.array_equal(z, np.rint(z))


# What a number depends on


@each
@streams
def test_a_number_depends_on_its_own_seed_alone(draw, stream):
    whole = draw(MANY, stream, 7)
    assert np.array_equal(draw(MANY[::-1], stream, 7), whole[::-1])
    assert np.array_equal(draw([MANY[9], 5, MANY[3]], stream, 7)[[0, 2]], whole[[9, 3]])


@each
@streams
@pytest.mark.parametrize("count", [1, 2, 100])
def test_a_number_depends_on_its_place_and_not_on_how_many_follow(draw, stream, count):
    assert np.array_equal(draw(MANY, stream, count), draw(MANY, stream, 784)[:, :count])


@each
def test_streams_have_other_numbers(draw):
    first, second, third = (draw(MANY, stream, 20) for stream in (Stream.LATENT, Stream.PIXELS, Stream.SEEDS))
    # 4100 pairs; of 24 bits or more, so that one pair would be equal by chance in one of 4000 such tests.
    assert not ((first == second) | (second == third) | (first == third)).any()


@each
def test_other_seeds_have_other_numbers(draw):
    drawn = draw(np.arange(-1000, 1000), Stream.LATENT, 3)
    assert len(np.unique(drawn, axis=0)) == 2000
