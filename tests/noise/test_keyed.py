"""`kvae.noise.keyed` against a NumPy reimplementation and SciPy's tests of randomness."""

import math

import numpy as np
import pytest
from scipy import stats

from kvae.internal.tensorflow import tf
from kvae.noise import keyed

both = pytest.mark.parametrize("draw", [keyed.uniform, keyed.normal], ids=["uniform", "normal"])
# Uniform numbers are the same bits everywhere. TensorFlow has two kernels of erfinv, one for vectors and one for what
# remains of a row, so where a number stands in a batch may move a normal one: by at most 4 ulp in 3000.
MAX_ULP = {keyed.uniform: 0, keyed.normal: 8}

COUNT = 50_000
# The ways in which one number follows another: the next element, index, stream, seed.
NEIGHBOURS = {
    "elements": lambda draw: draw((COUNT,), 0, 0),
    "indices": lambda draw: draw((), 0, 0, tf.range(COUNT)),
    "streams": lambda draw: draw((), 0, tf.range(COUNT), 0),
    "seeds": lambda draw: draw((), tf.range(COUNT), 0),
}
neighbours = pytest.mark.parametrize("numbers", NEIGHBOURS.values(), ids=NEIGHBOURS)


def numpy_words(count, *key):
    """The hash in NumPy: `[B, count]` uint32."""

    def mix(bits):
        bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
        bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
        return bits ^ (bits >> np.uint32(16))

    state = np.zeros(1, np.uint32)
    for part in key:
        part = np.atleast_1d(np.asarray(part, np.int64) & 0xFFFFFFFF).astype(np.uint32)
        state = mix((state ^ part) + np.uint32(0x9E3779B9))
    return mix(state[:, None] + np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9))


# What a number depends on


@both
def test_the_same_key_gives_the_same_numbers(draw):
    assert np.array_equal(draw((5,), 3, [1, 2]), draw((5,), 3, [1, 2]))


@both
def test_an_image_has_the_same_numbers_in_every_batch(draw):
    whole = draw((5,), 3, tf.range(10)).numpy()
    np.testing.assert_array_max_ulp(draw((5,), 3, [7, 2]).numpy(), whole[[7, 2]], MAX_ULP[draw])


@both
def test_a_number_depends_on_its_element_and_not_on_how_many_follow(draw):
    more = draw((8,), 0, [1, 2]).numpy()
    np.testing.assert_array_max_ulp(draw((3,), 0, [1, 2]).numpy(), more[:, :3], MAX_ULP[draw])


@both
def test_the_shape_is_that_of_one_key_for_every_key(draw):
    assert draw((2, 3, 1), 0, tf.range(4)).shape == (4, 2, 3, 1)


@both
def test_scalar_keys_give_a_batch_of_one(draw):
    assert draw((2, 3), 0, 1).shape == (1, 2, 3)


@both
def test_keys_broadcast(draw):
    assert np.array_equal(draw((3,), 5, [1, 2]), draw((3,), [5, 5], [1, 2]))


@both
@pytest.mark.parametrize("other", [(1, 2, 4), (1, 3, 3), (2, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2), (1, 2, 3, 0)])
def test_another_key_gives_other_numbers(draw, other):
    assert not np.isin(draw((8,), *other), draw((8,), 1, 2, 3)).any()


# The same bits everywhere


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**32 - 1, 2**40 + 3])
def test_uniform_is_bit_for_bit_that_of_numpy(seed):
    expected = (numpy_words(50, seed, 2, [0, 1, 99]) >> np.uint32(8)) * 2.0**-24
    assert np.array_equal(keyed.uniform((50,), seed, 2, [0, 1, 99]), expected)


def test_normal_is_the_inverse_distribution_function_of_the_numpy_words():
    quantiles = ((numpy_words(1000, 5, range(100)) >> np.uint32(9)) + 0.5) * 2.0**-23
    # float32 rounds to 2.4e-7 at 4 standard deviations; TensorFlow's kernel is within 1.1e-6 over all 2^23 words.
    np.testing.assert_allclose(keyed.normal((1000,), 5, range(100)), stats.norm.ppf(quantiles), rtol=0, atol=1.5e-6)


@both
def test_a_graph_gives_the_bits_of_eager_execution(draw):
    index = tf.range(1000)
    assert np.array_equal(tf.function(lambda i: draw((20,), 3, i))(index), draw((20,), 3, index))


def test_xla_gives_the_bits_of_eager_uniform_numbers():
    index = tf.range(1000)
    compiled = tf.function(lambda i: keyed.uniform((20,), 3, i), jit_compile=True)
    assert np.array_equal(compiled(index), keyed.uniform((20,), 3, index))


def test_xla_gives_eager_normal_numbers_to_rounding():
    index = tf.range(1000)
    compiled = tf.function(lambda i: keyed.normal((20,), 3, i), jit_compile=True)
    # The words are the same, but XLA has a polynomial of its own for erfinv, in -log(1 - x^2), where x^2 near 1 is
    # rounded: a few ulp up to 2 standard deviations, up to 91 ulp (2.2e-5) beyond 3, over all 2^23 words.
    np.testing.assert_allclose(compiled(index), keyed.normal((20,), 3, index), rtol=0, atol=2.5e-5)


# Uniform numbers are uniform


@neighbours
def test_uniform_numbers_fill_256_bins_evenly(numbers):
    counts, _ = np.histogram(numbers(keyed.uniform), bins=256, range=(0, 1))
    # One seed in 1000 would fall outside on either side, the four here are fixed.
    assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-3


@neighbours
@pytest.mark.parametrize("lag", [1, 2, 28])
def test_neighbouring_uniform_numbers_are_uncorrelated(numbers, lag):
    u = np.ravel(numbers(keyed.uniform))
    # The coefficient of independent numbers has standard deviation 1/sqrt(n): four of them.
    assert abs(stats.pearsonr(u[:-lag], u[lag:]).statistic) < 4 / math.sqrt(COUNT)


@pytest.mark.parametrize("key", [(0, 0, tf.range(251)), (0, tf.range(251), 0), (tf.range(251), 0)])
def test_images_of_neighbouring_keys_are_uncorrelated(key):
    u = keyed.uniform((200,), *key).numpy()
    # 50,000 pairs of the same element of two keys; four standard deviations, as above.
    assert abs(stats.pearsonr(u[:-1].ravel(), u[1:].ravel()).statistic) < 4 / math.sqrt(COUNT)


def test_the_mean_of_uniform_numbers_is_half():
    # Four standard errors, the standard deviation being 1/sqrt(12).
    assert np.mean(keyed.uniform((COUNT,), 0), dtype=float) == pytest.approx(0.5, abs=4 / math.sqrt(12 * COUNT))


def test_the_variance_of_uniform_numbers_is_a_twelfth():
    # Four standard errors, (u - 1/2)^2 having variance 1/80 - 1/144 = 1/180.
    assert np.var(keyed.uniform((COUNT,), 0), dtype=float) == pytest.approx(1 / 12, abs=4 / math.sqrt(180 * COUNT))


@pytest.mark.parametrize(("word", "expected"), [(0, 0.0), (2**32 - 1, 1 - 2.0**-24)])
def test_the_extreme_words_give_uniform_numbers_in_the_half_open_interval(monkeypatch, word, expected):
    monkeypatch.setattr(keyed, "_bits", lambda count, key: tf.fill([1, count], tf.constant(word, tf.uint32)))
    assert keyed.uniform((), 0).numpy().item() == expected


# Normal numbers are normal


@neighbours
def test_normal_numbers_pass_the_kolmogorov_smirnov_test(numbers):
    # One seed in 1000 would fail, the four here are fixed.
    assert stats.kstest(np.ravel(numbers(keyed.normal)), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize(("power", "moment", "variance"), [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)])
def test_normal_numbers_have_the_moments(power, moment, variance):
    z = np.float64(keyed.normal((COUNT,), 0))
    # Four standard errors; z^n has variance E z^2n - (E z^n)^2.
    assert np.mean(z**power) == pytest.approx(moment, abs=4 * math.sqrt(variance / COUNT))


@pytest.mark.parametrize(("word", "sign"), [(0, -1), (2**32 - 1, 1)])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_extreme_words_give_finite_normal_numbers(monkeypatch, word, sign, jit_compile):
    monkeypatch.setattr(keyed, "_bits", lambda count, key: tf.fill([1, count], tf.constant(word, tf.uint32)))
    z = tf.function(lambda: keyed.normal((), 0), jit_compile=jit_compile)().numpy().item()
    # The outermost of 2^23 cells has its middle at 2^-24; tolerance as for XLA above.
    assert z == pytest.approx(sign * stats.norm.isf(2.0**-24), abs=2.5e-5)
