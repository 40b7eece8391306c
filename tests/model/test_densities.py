"""`kvae.model.densities` against SciPy, mpmath, quadrature and sums over all images."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from scipy import integrate, special, stats

from kvae.internal.tensorflow import tf
from kvae.model import densities

DTYPES = (np.float32, np.float64)
DECADES = 10.0 ** np.arange(-4, 5)
EXTREME_LOGITS = np.concatenate([[0.0, -0.2, 0.2], -DECADES, DECADES])
# Around the place where the series hands over to the quotient, and far from it on both sides.
NORMALIZER_LOGITS = [0.0, 1e-4, 0.01, 0.1, 0.19, 0.199999, 0.2, 0.200001, 0.21, 0.3, 1.0, 10.0, 100.0]
NORMALIZER_LOGITS = np.array([sign * logit for logit in NORMALIZER_LOGITS for sign in (1, -1)])

OF_LOGITS = {
    "bernoulli at 0": lambda logits: densities.bernoulli_log_density(0, logits),
    "bernoulli at 1": lambda logits: densities.bernoulli_log_density(1, logits),
    "bernoulli at 0.3": lambda logits: densities.bernoulli_log_density(0.3, logits),
    "continuous bernoulli at 0": lambda logits: densities.continuous_bernoulli_log_density(0, logits),
    "continuous bernoulli at 1": lambda logits: densities.continuous_bernoulli_log_density(1, logits),
    "continuous bernoulli at 0.3": lambda logits: densities.continuous_bernoulli_log_density(0.3, logits),
    "log normalizer": densities.continuous_bernoulli_log_normalizer,
}
# Each takes (x, mean, log_var): a place, noise or draw, and the two parameters.
OF_LOG_VAR = {
    "gaussian_log_density": densities.gaussian_log_density,
    "gaussian_kl": lambda _, mean, log_var: densities.gaussian_kl(mean, log_var),
    "sampled_kl": densities.sampled_kl,
    "reparameterize": lambda noise, mean, log_var: densities.reparameterize(mean, log_var, noise),
}


def gradient(function, values):
    values = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    return tape.gradient(result, values).numpy()


# Gaussian


def test_gaussian_log_density_is_that_of_scipy(rng):
    x, mean, log_var = rng.normal(scale=3.0, size=(3, 1000))
    expected = stats.norm.logpdf(x, mean, np.exp(log_var / 2))
    # float64; both square (x - mean) / sd, so a relative error of a few eps is all that may differ.
    np.testing.assert_allclose(densities.gaussian_log_density(x, mean, log_var), expected, rtol=1e-12)


def test_standard_normal_log_density_is_that_of_scipy(rng):
    z = rng.normal(scale=3.0, size=1000)
    # float64; a square and a sum: a few eps.
    np.testing.assert_allclose(densities.standard_normal_log_density(z), stats.norm.logpdf(z), rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", OF_LOG_VAR.values(), ids=OF_LOG_VAR)
def test_values_and_gradients_are_finite_for_extreme_log_variances(function, dtype):
    log_var = np.linspace(-30.0, 30.0, 61, dtype=dtype)
    inputs = [tf.constant(np.full_like(log_var, value)) for value in (2.0, -3.0)] + [tf.constant(log_var)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        result = function(*inputs)
    gradients = tape.gradient(result, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert np.isfinite([result, *gradients]).all()


# Bernoulli


def test_bernoulli_log_density_is_that_of_scipy_for_moderate_logits(rng):
    logits = rng.uniform(-5.0, 5.0, size=1000)
    x = rng.integers(0, 2, size=1000)
    expected = stats.bernoulli.logpmf(x, special.expit(logits))
    # float64; SciPy's 1 - p loses 1/(1 - p) = 150 eps = 3e-14 at a logit of 5.
    np.testing.assert_allclose(densities.bernoulli_log_density(x, logits), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("logit", [-1e4, -710.0, -100.0, -17.0, 17.0, 100.0, 710.0, 1e4])
def test_bernoulli_log_density_is_exact_for_extreme_logits(x, logit, dtype):
    x, logit = dtype(x), dtype(logit)
    with mpmath.workdps(400):  # they hold 1 + exp(-710); exp(-1e4) is 0 in float64 anyway
        exact_x, exact_logit = mpmath.mpf(float(x)), mpmath.mpf(float(logit))
        log_p, log_not_p = (-mpmath.log(1 + mpmath.exp(sign * exact_logit)) for sign in (-1, 1))
        expected = float(exact_x * log_p + (1 - exact_x) * log_not_p)
    info = np.finfo(dtype)
    # A product, two sums, exp and log1p round once each; what is below the smallest normal number may flush to 0.
    np.testing.assert_allclose(densities.bernoulli_log_density(x, logit), expected, rtol=4 * info.eps, atol=info.tiny)


def test_naive_bernoulli_log_density_fails_where_that_of_kvae_is_finite():
    x, logits = tf.constant([0.0, 1.0]), tf.constant([200.0, -200.0])
    p = tf.sigmoid(logits)
    naive = x * tf.math.log(p) + (1 - x) * tf.math.log(1 - p)
    ours = densities.bernoulli_log_density(x, logits).numpy()
    assert (np.isfinite(naive).tolist(), ours.tolist()) == ([False, False], [-200.0, -200.0])


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_bernoulli_densities_of_all_three_pixel_images_sum_to_one(rng, scale):
    logits = rng.normal(scale=scale, size=3)
    images = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    log_density = tf.reduce_sum(densities.bernoulli_log_density(images, logits), axis=-1)
    # float64; eight terms of at most 1, each good to a few times its log's eps.
    assert np.exp(log_density).sum() == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
def test_gradient_of_bernoulli_log_density_at_logit_zero_is_x_minus_half(x, dtype):
    assert gradient(lambda logits: densities.bernoulli_log_density(x, logits), np.zeros(1, dtype)) == x - 0.5


@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
def test_gradient_of_bernoulli_log_density_is_x_minus_sigmoid(x):
    actual = gradient(lambda logits: densities.bernoulli_log_density(x, logits), EXTREME_LOGITS)
    # float64; x - p is a difference of numbers of at most 1, so a few eps absolute.
    np.testing.assert_allclose(actual, x - special.expit(EXTREME_LOGITS), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", OF_LOGITS.values(), ids=OF_LOGITS)
def test_values_are_finite_for_extreme_logits(function, dtype):
    assert np.isfinite(function(EXTREME_LOGITS.astype(dtype))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", OF_LOGITS.values(), ids=OF_LOGITS)
def test_gradients_are_finite_for_extreme_logits(function, dtype):
    assert np.isfinite(gradient(function, EXTREME_LOGITS.astype(dtype))).all()


# Continuous Bernoulli


@pytest.mark.parametrize("dtype", DTYPES)
def test_continuous_bernoulli_log_normalizer_is_the_closed_form(dtype):
    logits = NORMALIZER_LOGITS.astype(dtype)

    def closed_form(logit):
        """Loaiza-Ganem and Cunningham (2019), equation 2, in the parameter lambda."""
        if logit == 0:
            return float(mpmath.log(2))
        lambda_ = 1 / (1 + mpmath.exp(-mpmath.mpf(float(logit))))
        return float(mpmath.log(2 * mpmath.atanh(1 - 2 * lambda_) / (1 - 2 * lambda_)))

    with mpmath.workdps(100):  # at a logit of 100, lambda is 1 - 4e-44
        expected = [closed_form(logit) for logit in logits]
    actual = densities.continuous_bernoulli_log_normalizer(logits)
    # A few roundings of numbers near 1, and the cut-off of the series, 2.2e-13 at |l| = 0.2.
    np.testing.assert_allclose(actual, expected, rtol=2 * np.finfo(dtype).eps, atol=3e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_continuous_bernoulli_log_normalizer_of_extreme_logits_is_log_of_their_magnitude(logit, dtype):
    # tanh(|l| / 2) is 1 - 1e-4343; one rounding of the logarithm.
    expected = pytest.approx(math.log(1e4), rel=2 * float(np.finfo(dtype).eps), abs=0)
    assert float(densities.continuous_bernoulli_log_normalizer(dtype(logit))) == expected


# The quotient's gradient 1/l - 1/sinh(l) = l/6 is what remains of two numbers near 1/l = 5 at |l| = 0.2: one rounding
# weighs 5 / (0.2 / 6) = 150 times itself there and about three of them add up. In float64 the series cut off after
# y^8 weighs more, 3.3e-10.
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 150 * 3 * 2.0**-23), (np.float64, 4e-10)])
def test_gradient_of_continuous_bernoulli_log_normalizer_is_the_closed_form(dtype, rtol):
    logits = np.concatenate([NORMALIZER_LOGITS, np.linspace(-0.3, 0.3, 601)]).astype(dtype)
    with mpmath.workdps(50):
        exact = [mpmath.mpf(float(logit)) for logit in logits]
        expected = [float(1 / logit - 1 / mpmath.sinh(logit)) if logit else 0.0 for logit in exact]
    actual = gradient(densities.continuous_bernoulli_log_normalizer, logits)
    np.testing.assert_allclose(actual, expected, rtol=rtol)


@pytest.mark.parametrize("logit", [-30.0, -3.0, -0.2001, -0.1999, 0.0, 0.1999, 0.2001, 3.0, 30.0])
def test_continuous_bernoulli_density_integrates_to_one(logit):
    density = lambda x: np.exp(densities.continuous_bernoulli_log_density(np.float64(x), np.float64(logit)))  # noqa: E731
    total, _ = integrate.quad(density, 0.0, 1.0)
    # The quadrature promises 1.5e-8 and reaches 1e-14; the series is cut off at 2.2e-13.
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
def test_continuous_bernoulli_is_uniform_at_logit_zero(x):
    log_density = densities.continuous_bernoulli_log_density(np.float64(x), np.float64(0.0))
    assert float(log_density) == pytest.approx(0.0, abs=1e-15)  # log 2 - log 2, each rounded once


# KL


@pytest.mark.parametrize("mean", [-3.0, 0.0, 0.5])
@pytest.mark.parametrize("log_var", [-4.0, -0.1, 0.0, 1.5])
def test_gaussian_kl_is_the_integral_of_its_definition(mean, log_var):
    q, p = stats.norm(mean, math.exp(log_var / 2)), stats.norm()
    expected, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), *(q.mean() + q.std() * np.array([-12, 12]))
    )
    # What lies beyond 12 standard deviations weighs 1e-30; the quadrature promises 1.5e-8.
    assert float(densities.gaussian_kl(np.float64(mean), np.float64(log_var))) == pytest.approx(expected, abs=1e-8)


def test_gaussian_kl_is_the_closed_formula(rng):
    mean, log_var = rng.normal(scale=2.0, size=(2, 100))
    expected = [0.5 * (m * m + math.exp(v) - 1.0 - v) for m, v in zip(mean, log_var, strict=True)]
    # float64; where the terms cancel the plain formula is off by a few eps absolute.
    np.testing.assert_allclose(densities.gaussian_kl(mean, log_var), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("log_var", [-1e-3, -1e-4, 1e-4, 1e-3])
def test_gaussian_kl_keeps_its_digits_near_the_prior(log_var):
    log_var = np.float32(log_var)
    with mpmath.workdps(30):
        expected = float((mpmath.expm1(float(log_var)) - float(log_var)) / 2)
    # One rounding of expm1 is half a spacing of log_var; exp(log_var) - 1 would round 1000 times coarser, at 1.
    actual = float(densities.gaussian_kl(np.float32(0), log_var))
    assert actual == pytest.approx(expected, abs=float(np.spacing(abs(log_var))))


def test_gaussian_kl_of_the_prior_is_zero():
    assert float(densities.gaussian_kl(0.0, 0.0)) == 0.0


def test_sampled_kl_is_the_log_ratio_of_scipy_densities(rng):
    z, mean, log_var = rng.normal(scale=2.0, size=(3, 100))
    expected = stats.norm.logpdf(z, mean, np.exp(log_var / 2)) - stats.norm.logpdf(z)
    # float64; a difference of log densities up to 1e3, so some eps of the larger.
    np.testing.assert_allclose(densities.sampled_kl(z, mean, log_var), expected, rtol=1e-12, atol=1e-12)


def test_mean_of_sampled_kl_is_gaussian_kl(rng):
    mean, log_var = np.array([-1.0, 0.0, 0.5, 2.0]), np.array([-2.0, 0.0, 1.0, -0.5])
    z = mean + np.exp(log_var / 2) * rng.standard_normal((50_000, 4))
    draws = densities.sampled_kl(z, mean, log_var).numpy()
    # Four standard errors: one seed in 5000 would fail, this one is fixed. 1e-12 is for the second dimension, where
    # q is the prior and every draw 0.
    error = 4 * stats.sem(draws) + 1e-12
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - densities.gaussian_kl(mean, log_var)), error)


# Reparameterization


def test_reparameterized_draws_have_shape_draws_examples_dimensions():
    z = densities.reparameterize(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((5, 3, 2)))
    assert z.shape == (5, 3, 2)


MEAN, LOG_VAR = np.array([[-2.0, 0.0], [0.5, 10.0]]), np.array([[-3.0, 0.0], [1.0, 2.0]])


def reparameterized_draws(rng):
    return densities.reparameterize(MEAN, LOG_VAR, rng.standard_normal((50_000, 2, 2))).numpy()


def test_reparameterized_draws_have_the_mean(rng):
    standard_error = np.exp(LOG_VAR / 2) / math.sqrt(50_000)
    # Four standard errors; the seed is fixed.
    np.testing.assert_array_less(np.abs(reparameterized_draws(rng).mean(axis=0) - MEAN), 4 * standard_error)


def test_reparameterized_draws_have_the_variance(rng):
    standard_error = np.exp(LOG_VAR) * math.sqrt(2 / 50_000)  # of the variance of normal draws
    # Four standard errors; the seed is fixed.
    np.testing.assert_array_less(np.abs(reparameterized_draws(rng).var(axis=0) - np.exp(LOG_VAR)), 4 * standard_error)


# Types and shapes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", OF_LOGITS.values(), ids=OF_LOGITS)
def test_functions_of_logits_keep_the_type(function, dtype):
    assert function(tf.zeros(3, dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", OF_LOG_VAR.values(), ids=OF_LOG_VAR)
def test_functions_of_log_variances_keep_the_type(function, dtype):
    assert function(*tf.zeros((3, 2), dtype)).dtype == dtype


def test_the_result_has_the_wider_of_two_types():
    assert densities.gaussian_kl(tf.zeros(2, tf.float32), tf.zeros(2, tf.float64)).dtype == tf.float64


def test_integer_data_is_cast_to_the_type_of_the_logits():
    assert densities.bernoulli_log_density(np.array([0, 1]), tf.zeros(2)).dtype == tf.float32


def test_python_numbers_keep_their_digits_beside_float64():
    actual = densities.gaussian_log_density(tf.constant(1.0, tf.float64), 0.1, 0.2)
    # Some float64 eps; 0.1 rounded to float32 on the way would show as 1e-9.
    assert float(actual) == pytest.approx(stats.norm.logpdf(1.0, 0.1, math.exp(0.1)), abs=1e-14)


# float64; TensorFlow's vector kernels and the scalar ones for what remains of a row may differ by some eps.
VECTOR_TOLERANCE = {"rtol": 1e-14, "atol": 1e-14}


@pytest.mark.parametrize("function", OF_LOG_VAR.values(), ids=OF_LOG_VAR)
def test_parameters_broadcast_over_leading_dimensions(rng, function):
    x, mean, log_var = rng.normal(size=(5, 3, 2)), rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    together = np.broadcast_to(function(x, mean, log_var), x.shape)
    one_by_one = np.stack([function(draw, mean, log_var) for draw in x])
    np.testing.assert_allclose(together, one_by_one, **VECTOR_TOLERANCE)


@pytest.mark.parametrize("function", [densities.bernoulli_log_density, densities.continuous_bernoulli_log_density])
def test_data_broadcast_over_leading_dimensions_of_logits(rng, function):
    x, logits = rng.uniform(size=(3, 2, 2, 1)), rng.normal(size=(5, 3, 2, 2, 1))
    one_by_one = np.stack([function(x, draw) for draw in logits])
    np.testing.assert_allclose(function(x, logits), one_by_one, **VECTOR_TOLERANCE)
