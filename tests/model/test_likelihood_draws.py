"""Means and draws of every likelihood against integrals and distribution functions."""

import math

import numpy as np
import pytest
from likelihood_cases import IMAGE, LIKELIHOODS, Given, continuous_bernoulli_density, each, each_with_its_noise
from scipy import integrate, special, stats

from kvae.internal.tensorflow import tf
from kvae.model import likelihoods
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

DRAWS = 20_000


def draws(likelihood, logits):
    """`[DRAWS, *logits.shape]`, one key per draw."""
    noise = Keyed(0, Stream.PICTURES, tf.range(DRAWS))
    return likelihood.sample(tf.constant(np.tile(logits, (DRAWS, 1)), tf.float32), noise).numpy()


# Means


@pytest.mark.parametrize("make", [likelihoods.Bernoulli, likelihoods.Gaussian, likelihoods.SquaredError])
def test_the_mean_is_the_sigmoid(make):
    logits = np.linspace(-20.0, 20.0, 41, dtype=np.float32)
    # A few eps of float32.
    np.testing.assert_allclose(make().mean(logits), special.expit(np.float64(logits)), rtol=1e-6)


# float32: the series is a number near 1/2, rounded about twice to 3e-8 or 6e-8; the quotient is the difference of two
# numbers near 1/l = 5, each rounded to 2.4e-7 and made of rounded parts.
@pytest.mark.parametrize(
    ("magnitude", "tolerance"),
    [*((logit, 1.2e-7) for logit in (0.0, 1e-3, 0.1, 0.1999)), *((logit, 1e-6) for logit in (0.2001, 0.5, 5.0, 50.0))],
)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_continuous_bernoulli_mean_is_the_integral_of_x(magnitude, tolerance, sign):
    logit = sign * magnitude
    total, _ = integrate.quad(continuous_bernoulli_density, 0.0, 1.0, args=(logit,))
    first, _ = integrate.quad(lambda x: x * continuous_bernoulli_density(x, logit), 0.0, 1.0)
    actual = likelihoods.ContinuousBernoulli().mean(tf.constant(logit))
    assert float(actual) == pytest.approx(first / total, abs=tolerance)


@pytest.mark.parametrize(("logit", "expected"), [(-1e4, 1e-4), (-200.0, 5e-3), (200.0, 1 - 5e-3), (1e4, 1 - 1e-4)])
def test_the_continuous_bernoulli_mean_of_extreme_logits_is_one_over_the_logit_from_the_edge(logit, expected):
    # exp(-200) is nothing; two roundings of float32 near 1.
    assert float(likelihoods.ContinuousBernoulli().mean(tf.constant(logit))) == pytest.approx(expected, abs=1.2e-7)


@each
def test_the_mean_is_finite_and_has_a_finite_gradient(make):
    logits = tf.constant([-1e4, -100.0, -0.2, 0.0, 0.2, 100.0, 1e4])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        mean = make().mean(logits)
    assert np.isfinite(mean).all()
    assert np.isfinite(tape.gradient(mean, logits)).all()


@each
def test_the_mean_has_the_shape_of_the_parameters(make):
    assert make().mean(tf.zeros((5, 3, *IMAGE))).shape == (5, 3, *IMAGE)


# Draws


SAMPLE_LOGITS = np.array([-1.0, -0.3, 0.0, 5e-4, 0.3, 1.0])


# Not with a variance that reaches far beyond [0, 1], where draws are clipped: these edges are 2.7 standard deviations
# away or more, which moves the mean by at most 1e-4, an eighth of a standard error.
@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli", "gaussian"])
def test_draws_have_the_means(name):
    likelihood = LIKELIHOODS[name]()
    x = draws(likelihood, SAMPLE_LOGITS)
    difference = np.abs(x.mean(axis=0, dtype=float) - likelihood.mean(SAMPLE_LOGITS))
    # Four standard errors; the seed is fixed.
    np.testing.assert_array_less(difference, 4 * x.std(axis=0) / math.sqrt(DRAWS))


@each
def test_draws_lie_in_the_unit_interval(make):
    x = draws(make(), np.array([-1e4, -50.0, *SAMPLE_LOGITS, 50.0, 1e4]))
    assert (x.min() >= 0.0, x.max() <= 1.0) == (True, True)


def test_bernoulli_draws_are_binary():
    assert np.isin(draws(likelihoods.Bernoulli(), SAMPLE_LOGITS), [0.0, 1.0]).all()


@pytest.mark.parametrize(("logit", "expected"), [(-1e4, 0.0), (1e4, 1.0)])
def test_bernoulli_draws_of_extreme_logits_are_certain(logit, expected):
    assert (draws(likelihoods.Bernoulli(), np.array([logit])) == expected).all()


@pytest.mark.parametrize("logit", [-100.0, -3.0, -0.01, 0.0, 5e-4, 3.0, 100.0])
def test_continuous_bernoulli_draws_follow_the_distribution_function(logit):
    x = draws(likelihoods.ContinuousBernoulli(), np.array([logit]))[:, 0]
    # x has the density exp(logit x) on [0, 1]: its distance from the likelier edge is a truncated exponential.
    magnitude = abs(logit)
    expected = stats.truncexpon(b=magnitude, scale=1 / magnitude) if logit else stats.uniform()
    # One seed in 1000 would fail; this one is fixed.
    assert stats.kstest(1 - x if logit > 0 else x, expected.cdf).pvalue > 1e-3


def test_gaussian_draws_have_the_variance():
    x = draws(likelihoods.Gaussian(0.01), np.array([0.0]))
    # Four standard errors of the variance of normal draws; the edges are 5 standard deviations away.
    assert float(x.var(dtype=float)) == pytest.approx(0.01, abs=4 * 0.01 * math.sqrt(2 / DRAWS))


@each
def test_the_same_key_gives_the_same_draw_in_every_batch(make):
    logits = tf.constant(np.linspace(-2.0, 2.0, 20).reshape(5, 4), tf.float32)
    whole = make().sample(logits, Keyed(7, Stream.PICTURES, tf.range(5))).numpy()
    alone = make().sample(logits[3:4], Keyed(7, Stream.PICTURES, [3]))
    # Some float32 eps: TensorFlow's vector kernels and those for what remains of a row may round differently.
    np.testing.assert_allclose(alone, whole[3:4], rtol=0, atol=1e-6)


# Draws as functions of their random numbers


NUMBERS = {
    # multiples of 2^-24, as the generators have them, the least and the greatest among them
    "uniform": np.float32([0.0, 2.0**-24, *np.arange(1, 4096) / 4096, 1 - 2.0**-23, 1 - 2.0**-24]),
    "normal": np.linspace(-5.3, 5.3, 4001, dtype=np.float32),
}


DRAW_LOGITS = [-50.0, -1.0, -0.06, -0.04, -1e-3, 0.0, 1e-3, 0.04, 0.06, 1.0, 50.0]
draw_logits = pytest.mark.parametrize("logit", DRAW_LOGITS)


def draw_each(likelihood, logits, kind, every=1):
    """Draws for every logit (rows) and every `every`-th of the numbers of a kind (columns)."""
    rows, columns = np.meshgrid(np.float32(logits), NUMBERS[kind][::every], indexing="ij")
    return likelihood.sample(tf.constant(rows), Given(kind, columns)).numpy()


def continuous_bernoulli_quantiles(numbers, logits):
    """F^-1(u) in float64: log(1 - u + u e^l) / l for l < 0, mirrored for l > 0, almost without cancellation."""
    u, logit = np.broadcast_arrays(np.float64(numbers), np.float64(np.float32(logits)))
    magnitude, mirrored = np.maximum(np.abs(logit), 1e-9), np.where(logit > 0, 1 - u, u)
    x = -np.log((1 - mirrored) + mirrored * np.exp(-magnitude)) / magnitude
    return np.where(logit == 0, u, np.where(logit > 0, 1 - x, x))


@each_with_its_noise
def test_each_pixel_uses_one_number_once(make, kind):
    noise = Given(kind, np.full((3, *IMAGE), 0.25, np.float32))
    x = make().sample(tf.zeros((3, *IMAGE)), noise)
    assert (noise.asked, x.shape, x.dtype) == ([Stream.PIXELS], (3, *IMAGE), tf.float32)


@each_with_its_noise
@draw_logits
def test_draws_are_monotone_in_their_numbers(make, kind, logit):
    likelihood = make()
    x = draw_each(likelihood, [logit], kind)[0]
    steps = np.diff(x) if not likelihood.binary else -np.diff(x)  # a Bernoulli pixel is set below its probability
    # The numbers lie further apart than float32 rounds, except for the outermost, where a draw may go back by one ulp.
    assert steps.min() >= -6e-8


@draw_logits
def test_bernoulli_draws_are_set_below_their_probability(logit):
    numbers, p = NUMBERS["uniform"], special.expit(np.float64(np.float32(logit)))
    expected = np.where(np.float64(numbers) < p, 1.0, 0.0)
    apart = np.abs(numbers - p) > 1e-7  # float32 rounds p near 1 to 6e-8
    assert np.array_equal(draw_each(likelihoods.Bernoulli(), [logit], "uniform")[0][apart], expected[apart])


@pytest.mark.parametrize("logit", [*DRAW_LOGITS, -5.0, 5.0, -0.0499, 0.0499, -0.0501, 0.0501])
def test_continuous_bernoulli_draws_are_the_inverse_distribution_function(logit):
    numbers, magnitude = np.float64(NUMBERS["uniform"]), abs(logit)
    if magnitude < 0.05:
        bound = 8e-7  # the next term of the series, 0.05^3 / 192 = 6.5e-7, and two roundings near 1
    else:
        # v = u (e^-m - 1) is rounded three times by 2^-24 of itself, which log(1 + v) / m takes to v / (1 + v) / m of
        # that; five roundings near 1 follow. Only the two greatest of the numbers have 1 + v near 0.
        v = np.where(logit > 0, 1 - numbers, numbers) * np.expm1(-magnitude)
        bound = 2.0**-24 * (3 * -v / np.maximum(1 + v, 1e-30) / magnitude + 5)
    x = draw_each(likelihoods.ContinuousBernoulli(), [logit], "uniform")[0]
    assert (np.abs(x - continuous_bernoulli_quantiles(numbers, logit)) <= bound).all()


@pytest.mark.parametrize("edge", [-0.05, 0.0, 0.05])
def test_continuous_bernoulli_draws_do_not_jump_where_the_formula_changes(edge):
    edge = np.float32(edge)
    logits = [np.nextafter(edge, np.float32(-1)), edge, np.nextafter(edge, np.float32(1))]
    # The error of the series, 6.5e-7, and that of the formula beside it, 4e-7; together less than 1e-6.
    assert np.abs(np.diff(draw_each(likelihoods.ContinuousBernoulli(), logits, "uniform"), axis=0)).max() < 1e-6


def test_continuous_bernoulli_draws_are_continuous_in_the_logits():
    logits = np.linspace(-0.1, 0.1, 2001)
    x = draw_each(likelihoods.ContinuousBernoulli(), logits, "uniform", every=16)
    # The slope at l = 0 is u (1 - u) / 2, at most 1/8, and a percent more at 0.1; and the jump above.
    assert np.abs(np.diff(x, axis=0)).max() < 1e-4 / 8 * 1.01 + 1e-6


def test_continuous_bernoulli_draws_grow_with_the_logits():
    x = draw_each(likelihoods.ContinuousBernoulli(), np.linspace(-3.0, 3.0, 601), "uniform", every=16)
    assert np.diff(x, axis=0).min() > -1e-6  # as above


@pytest.mark.parametrize("variance", [1e-4, 0.05, 1.0, "learned"])
@draw_logits
def test_gaussian_draws_are_the_clipped_mean_and_noise(variance, logit):
    numbers = NUMBERS["normal"]
    sigma = math.sqrt(0.1 if variance == "learned" else variance)
    expected = np.clip(special.expit(np.float64(np.float32(logit))) + sigma * np.float64(numbers), 0, 1)
    x = draw_each(likelihoods.Gaussian(variance), [logit], "normal")[0]
    # sigma = exp(log_variance / 2) errs by some eps of its exponent, up to 4.6, times numbers up to 1 within [0, 1].
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)


@draw_logits
def test_squared_error_draws_are_those_of_variance_one(logit):
    drawn = [draw_each(make(), [logit], "normal") for make in (likelihoods.SquaredError, likelihoods.Gaussian)]
    assert np.array_equal(*drawn)


@each_with_its_noise
def test_draws_in_a_graph_and_under_xla_are_those_of_eager_execution(make, kind):
    likelihood = make()
    eager = draw_each(likelihood, DRAW_LOGITS, kind)
    rows, columns = np.meshgrid(np.float32(DRAW_LOGITS), NUMBERS[kind], indexing="ij")

    def sample(parameters, numbers):
        return likelihood.sample(parameters, Given(kind, numbers))

    for jit_compile in (False, True):
        x = tf.function(sample, jit_compile=jit_compile)(tf.constant(rows), tf.constant(columns)).numpy()
        apart = np.abs(x - eager) > 1e-6
        # Other kernels round differently. Grey draws differ by some eps, except for the two outermost numbers, where
        # the bound above is wide; binary draws differ only where a number equals the probability up to rounding.
        assert np.count_nonzero(apart[:, 2:-2]) == 0 if not likelihood.binary else np.count_nonzero(apart) <= 2
