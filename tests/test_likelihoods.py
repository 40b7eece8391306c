"""`kvae.likelihoods` against SciPy densities, quadrature and their own draws."""

import math
import warnings

import numpy as np
import pytest
from scipy import integrate, special, stats

import kvae
from kvae import likelihoods
from kvae.errors import UserError
from kvae.tensorflow import keras, tf

LIKELIHOODS = {
    "bernoulli": likelihoods.Bernoulli,
    "continuous_bernoulli": likelihoods.ContinuousBernoulli,
    "gaussian": lambda: likelihoods.Gaussian(0.01),
    "learned_gaussian": lambda: likelihoods.Gaussian("learned"),
    "squared_error": likelihoods.SquaredError,
}
each = pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS)
DRAWS = 20_000


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


def continuous_bernoulli_density(x, logit):
    """lambda^x (1 - lambda)^(1 - x) up to a constant."""
    return math.exp(logit * x - max(logit, 0.0))


def draws(likelihood, logits):
    """`[DRAWS, *logits.shape]`, one key a draw."""
    return likelihood.sample(tf.constant(np.tile(logits, (DRAWS, 1)), tf.float32), (0, tf.range(DRAWS))).numpy()


# Densities


@each
def test_log_prob_has_the_shape_of_the_logits(make):
    assert make()(tf.zeros((3, 2, 2, 1)), tf.zeros((5, 3, 2, 2, 1))).shape == (5, 3, 2, 2, 1)


@each
@pytest.mark.usefixtures("mixed_precision")
def test_log_prob_is_float32_under_mixed_precision(make):
    assert make()(tf.zeros((3, 4)), tf.zeros((3, 4), tf.float16)).dtype == tf.float32


@each
@pytest.mark.usefixtures("mixed_precision")
def test_data_and_parameters_keep_their_digits_under_mixed_precision(make):
    likelihood, x, logits = make(), tf.constant([0.1234567]), tf.constant([0.7654321])
    # `log_prob` is called around Keras, which would cast what enters `likelihood(...)`.
    assert np.array_equal(likelihood(x, logits), likelihood.log_prob(x, logits))


# Each of the three: float32 inputs and eps against float64, a few eps of densities up to 10.
DENSITY_TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def test_bernoulli_log_prob_is_that_of_scipy(rng):
    logits, x = np.float32(rng.normal(size=100)), np.float32(rng.integers(0, 2, size=100))
    expected = stats.bernoulli.logpmf(x, special.expit(np.float64(logits)))
    np.testing.assert_allclose(likelihoods.Bernoulli()(x, logits), expected, **DENSITY_TOLERANCE)


@pytest.mark.parametrize("logit", [-5.0, -0.1, 0.0, 1.0])
def test_continuous_bernoulli_log_prob_is_that_of_the_normalized_density(logit):
    total, _ = integrate.quad(continuous_bernoulli_density, 0.0, 1.0, args=(logit,))
    actual = likelihoods.ContinuousBernoulli()(np.float32(0.3), np.float32(logit))
    expected = math.log(continuous_bernoulli_density(0.3, logit) / total)
    np.testing.assert_allclose(actual, expected, **DENSITY_TOLERANCE)


def test_gaussian_log_prob_is_that_of_scipy(rng):
    logits, x = np.float32(rng.normal(size=100)), np.float32(rng.uniform(size=100))
    expected = stats.norm.logpdf(x, special.expit(np.float64(logits)), math.sqrt(0.3))
    np.testing.assert_allclose(likelihoods.Gaussian(0.3)(x, logits), expected, **DENSITY_TOLERANCE)


# Means


@pytest.mark.parametrize("make", [likelihoods.Bernoulli, likelihoods.Gaussian, likelihoods.SquaredError])
def test_means_are_the_sigmoid(make):
    logits = np.linspace(-20.0, 20.0, 41, dtype=np.float32)
    # A few eps of float32.
    np.testing.assert_allclose(make().means(logits), special.expit(np.float64(logits)), rtol=1e-6)


# float32: the series is a number near 1/2, rounded about twice to 3e-8 or 6e-8; the quotient is the difference of two
# numbers near 1/l = 5, each rounded to 2.4e-7 and made of rounded parts.
@pytest.mark.parametrize(
    ("magnitude", "tolerance"),
    [*((logit, 1.2e-7) for logit in (0.0, 1e-3, 0.1, 0.1999)), *((logit, 1e-6) for logit in (0.2001, 0.5, 5.0, 50.0))],
)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_continuous_bernoulli_means_are_the_integral_of_x(magnitude, tolerance, sign):
    logit = sign * magnitude
    total, _ = integrate.quad(continuous_bernoulli_density, 0.0, 1.0, args=(logit,))
    first, _ = integrate.quad(lambda x: x * continuous_bernoulli_density(x, logit), 0.0, 1.0)
    actual = likelihoods.ContinuousBernoulli().means(tf.constant(logit))
    assert float(actual) == pytest.approx(first / total, abs=tolerance)


@pytest.mark.parametrize(("logit", "expected"), [(-1e4, 1e-4), (-200.0, 5e-3), (200.0, 1 - 5e-3), (1e4, 1 - 1e-4)])
def test_continuous_bernoulli_means_of_extreme_logits_are_one_over_the_logit_from_the_edge(logit, expected):
    # exp(-200) is nothing; two roundings of float32 near 1.
    assert float(likelihoods.ContinuousBernoulli().means(tf.constant(logit))) == pytest.approx(expected, abs=1.2e-7)


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
    whole = make().sample(logits, (7, tf.range(5))).numpy()
    # Some float32 eps: TensorFlow's vector kernels and those for what remains of a row may round differently.
    np.testing.assert_allclose(make().sample(logits[3:4], (7, [3])), whole[3:4], rtol=0, atol=1e-6)


# The Gaussian's variance


def test_learned_variance_is_trainable():
    assert [weight.name for weight in likelihoods.Gaussian("learned").trainable_variables] == ["log_variance"]


def test_fixed_variance_is_not_trainable():
    assert likelihoods.Gaussian(0.5).trainable_variables == []


@pytest.mark.parametrize(("variance", "start"), [("learned", 0.1), (0.5, 0.5), (2, 2.0)])
def test_variance_starts_where_it_was_put(variance, start):
    # One rounding of the logarithm and one of the exponential, float32.
    assert math.exp(likelihoods.Gaussian(variance).log_variance.numpy()) == pytest.approx(start, rel=5e-7)


def test_learned_variance_gets_the_gradient_of_the_closed_form():
    likelihood = likelihoods.Gaussian("learned")
    with tf.GradientTape() as tape:
        log_prob = tf.reduce_sum(likelihood(tf.constant([0.0, 1.0]), tf.zeros(2)))
    (actual,) = tape.gradient(log_prob, likelihood.trainable_variables)
    # d/dv -1/2 [v + (x - 1/2)^2 exp(-v)], twice, at v = log 0.1: (0.25 / 0.1 - 1) / 2 * 2. A few float32 eps.
    assert float(actual) == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize("variance", [0, -1.0, math.nan, math.inf, "learnt", None, True, [0.1]])
def test_gaussian_refuses_what_is_no_variance(variance):
    with pytest.raises(UserError, match='positive variance or "learned"'):
        likelihoods.Gaussian(variance)


@pytest.mark.parametrize("variance", [np.float64(0.5), np.float32(0.5), np.int64(2)])
def test_gaussian_takes_numpy_numbers(variance):
    assert likelihoods.Gaussian(variance).get_config()["variance"] == variance


# Half the squared error


@pytest.fixture
def grey(rng):
    """Pixels and logits, also extreme ones."""
    logits = np.float32([*rng.normal(scale=3.0, size=95), -1e4, -50.0, 0.0, 50.0, 1e4])
    return np.float32(rng.uniform(size=100)), logits


def test_squared_error_log_prob_is_half_the_squared_error(grey):
    x, logits = grey
    expected = -((x - special.expit(np.float64(logits))) ** 2) / 2
    # Values up to 1/2 of float32 parts up to 1.
    np.testing.assert_allclose(likelihoods.SquaredError()(x, logits), expected, rtol=0, atol=1e-7)


def test_squared_error_lacks_the_constant_of_the_gaussian_alone(grey):
    difference = likelihoods.SquaredError()(*grey) - likelihoods.Gaussian(1.0)(*grey)
    np.testing.assert_allclose(difference, -stats.norm.logpdf(0.0), rtol=0, atol=3e-7)  # float32 near 1


def test_squared_error_has_the_gradient_of_the_gaussian(grey):
    x, logits = grey[0], tf.constant(grey[1])
    gradients = []
    for likelihood in (likelihoods.SquaredError(), likelihoods.Gaussian(1.0)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(likelihood(x, logits))
        gradients.append(tape.gradient(total, logits))
    assert np.isfinite(gradients[0]).all()
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-7)  # a few roundings of numbers up to 1/4


def test_squared_error_gradient_is_that_of_the_closed_form(grey):
    x, logits = grey[0], tf.constant(grey[1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(likelihoods.SquaredError()(x, logits))
    p = special.expit(np.float64(grey[1]))
    # d/dl -1/2 (x - p)^2 = (x - p) p (1 - p), float32.
    np.testing.assert_allclose(tape.gradient(total, logits), (x - p) * p * (1 - p), rtol=0, atol=1e-7)


def test_squared_error_has_nothing_to_train():
    assert likelihoods.SquaredError().trainable_variables == []


def test_squared_error_config_has_no_variance():
    assert "variance" not in likelihoods.SquaredError().get_config()


@pytest.mark.parametrize(("name", "make"), LIKELIHOODS.items(), ids=LIKELIHOODS)
def test_only_the_squared_error_is_no_log_density(name, make):
    assert make().normalized == (name != "squared_error")


def test_squared_error_survives_saving_in_a_model(tmp_path, rng):
    vae = kvae.VAE(2, hidden_units=(4,), likelihood="squared_error", seed=0)
    x = np.float32(rng.uniform(size=(3, 5, 4, 1)))
    before = vae.elbo(x, seed=0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert type(loaded.likelihood) is likelihoods.SquaredError
    np.testing.assert_array_equal(loaded.elbo(x, seed=0), before)


# Configuration and names


@each
def test_config_comes_back(make):
    config = make().get_config()
    assert type(make()).from_config(config).get_config() == config


@each
def test_keras_serialization_comes_back(make):
    likelihood = make()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(likelihood))
    assert (type(copy), copy.get_config()) == (type(likelihood), likelihood.get_config())


@pytest.mark.parametrize(("name", "kind"), likelihoods.LIKELIHOODS.items())
def test_get_makes_a_likelihood_of_a_name(name, kind):
    assert type(likelihoods.get(name)) is kind


def test_get_returns_a_likelihood_as_it_is():
    likelihood = likelihoods.Gaussian(0.5)
    assert likelihoods.get(likelihood) is likelihood


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("bernouli", "bernoulli"),
        ("gausian", "gaussian"),
        ("continuous-bernoulli", "continuous_bern"),
        ("squared-error", "squared_error"),
    ],
)
def test_get_suggests_the_nearest_name(name, near):
    with pytest.raises(UserError, match=f"Unknown likelihood '{name}'. Did you mean '{near}"):
        likelihoods.get(name)


@pytest.mark.parametrize("other", [None, 1, likelihoods.Bernoulli, ["bernoulli"]])
def test_get_refuses_what_is_neither_name_nor_likelihood(other):
    with pytest.raises(UserError, match="Expected one of: bernoulli, continuous_bernoulli, gaussian"):
        likelihoods.get(other)


# The warning about grey pixels


def test_grey_pixels_under_a_bernoulli_likelihood_are_warned_of():
    with pytest.warns(UserWarning, match="no bound on log p"):
        likelihoods.warn_if_binary(likelihoods.Bernoulli())


@pytest.mark.parametrize("make", [likelihoods.ContinuousBernoulli, likelihoods.Gaussian, likelihoods.SquaredError])
def test_grey_pixels_under_another_likelihood_are_not_warned_of(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        likelihoods.warn_if_binary(make())


# Draws as functions of their random numbers


NUMBERS = {
    # multiples of 2^-24, as the generators have them, the least and the greatest among them
    False: np.float32([0.0, 2.0**-24, *np.arange(1, 4096) / 4096, 1 - 2.0**-23, 1 - 2.0**-24]),
    True: np.linspace(-5.3, 5.3, 4001, dtype=np.float32),
}
DRAW_LOGITS = [-50.0, -1.0, -0.06, -0.04, -1e-3, 0.0, 1e-3, 0.04, 0.06, 1.0, 50.0]
draw_logits = pytest.mark.parametrize("logit", DRAW_LOGITS)


def draw_each(likelihood, logits, numbers):
    """Draws for every logit (rows) and number (columns)."""
    rows, columns = np.meshgrid(np.float32(logits), numbers, indexing="ij")
    return likelihood.draw(tf.constant(rows), tf.constant(columns)).numpy()


def continuous_bernoulli_quantiles(numbers, logits):
    """F^-1(u) in float64: log(1 - u + u e^l) / l for l < 0, mirrored for l > 0, without cancellation to speak of."""
    u, logit = np.broadcast_arrays(np.float64(numbers), np.float64(np.float32(logits)))
    magnitude, mirrored = np.maximum(np.abs(logit), 1e-9), np.where(logit > 0, 1 - u, u)
    x = -np.log((1 - mirrored) + mirrored * np.exp(-magnitude)) / magnitude
    return np.where(logit == 0, u, np.where(logit > 0, 1 - x, x))


@each
@draw_logits
def test_draws_are_monotone_in_their_numbers(make, logit):
    likelihood = make()
    x = draw_each(likelihood, [logit], NUMBERS[likelihood.takes_normals])[0]
    steps = np.diff(x) if not likelihood.binary else -np.diff(x)  # a Bernoulli pixel is set below its probability
    # The numbers lie further apart than float32 rounds, but for the outermost, where a draw may go back by one ulp.
    assert steps.min() >= -6e-8


@draw_logits
def test_bernoulli_draws_are_set_below_their_probability(logit):
    numbers, p = NUMBERS[False], special.expit(np.float64(np.float32(logit)))
    expected = np.where(np.float64(numbers) < p, 1.0, 0.0)
    apart = np.abs(numbers - p) > 1e-7  # float32 rounds p near 1 to 6e-8
    assert np.array_equal(draw_each(likelihoods.Bernoulli(), [logit], numbers)[0][apart], expected[apart])


@pytest.mark.parametrize("logit", [*DRAW_LOGITS, -5.0, 5.0, -0.0499, 0.0499, -0.0501, 0.0501])
def test_continuous_bernoulli_draws_are_the_inverse_distribution_function(logit):
    numbers, magnitude = np.float64(NUMBERS[False]), abs(logit)
    if magnitude < 0.05:
        bound = 8e-7  # the next term of the series, 0.05^3 / 192 = 6.5e-7, and two roundings near 1
    else:
        # v = u (e^-m - 1) is rounded three times by 2^-24 of itself, which log(1 + v) / m takes to v / (1 + v) / m of
        # that; five roundings near 1 follow. Only the two greatest of the numbers have 1 + v near 0.
        v = np.where(logit > 0, 1 - numbers, numbers) * np.expm1(-magnitude)
        bound = 2.0**-24 * (3 * -v / np.maximum(1 + v, 1e-30) / magnitude + 5)
    x = draw_each(likelihoods.ContinuousBernoulli(), [logit], NUMBERS[False])[0]
    assert (np.abs(x - continuous_bernoulli_quantiles(numbers, logit)) <= bound).all()


@pytest.mark.parametrize("edge", [-0.05, 0.0, 0.05])
def test_continuous_bernoulli_draws_do_not_jump_where_the_formula_changes(edge):
    edge = np.float32(edge)
    logits = [np.nextafter(edge, np.float32(-1)), edge, np.nextafter(edge, np.float32(1))]
    # The error of the series, 6.5e-7, and that of the formula beside it, 4e-7; together less than 1e-6.
    assert np.abs(np.diff(draw_each(likelihoods.ContinuousBernoulli(), logits, NUMBERS[False]), axis=0)).max() < 1e-6


def test_continuous_bernoulli_draws_are_continuous_in_the_logits():
    logits = np.linspace(-0.1, 0.1, 2001)
    x = draw_each(likelihoods.ContinuousBernoulli(), logits, NUMBERS[False][::16])
    # The slope at l = 0 is u (1 - u) / 2, at most 1/8, and a percent more at 0.1; and the jump above.
    assert np.abs(np.diff(x, axis=0)).max() < 1e-4 / 8 * 1.01 + 1e-6


def test_continuous_bernoulli_draws_grow_with_the_logits():
    x = draw_each(likelihoods.ContinuousBernoulli(), np.linspace(-3.0, 3.0, 601), NUMBERS[False][::16])
    assert np.diff(x, axis=0).min() > -1e-6  # as above


@pytest.mark.parametrize("variance", [1e-4, 0.05, 1.0, "learned"])
@draw_logits
def test_gaussian_draws_are_the_clipped_mean_and_noise(variance, logit):
    numbers = NUMBERS[True]
    sigma = math.sqrt(0.1 if variance == "learned" else variance)
    expected = np.clip(special.expit(np.float64(np.float32(logit))) + sigma * np.float64(numbers), 0, 1)
    x = draw_each(likelihoods.Gaussian(variance), [logit], numbers)[0]
    # sigma = exp(log_variance / 2) errs by some eps of its exponent, up to 4.6, times numbers up to 1 within [0, 1].
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)


@draw_logits
def test_squared_error_draws_are_those_of_variance_one(logit):
    drawn = [draw_each(make(), [logit], NUMBERS[True]) for make in (likelihoods.SquaredError, likelihoods.Gaussian)]
    assert np.array_equal(*drawn)


@each
def test_draws_in_a_graph_and_under_xla_are_those_of_eager_execution(make):
    likelihood = make()
    numbers = NUMBERS[likelihood.takes_normals]
    eager = draw_each(likelihood, DRAW_LOGITS, numbers)
    rows, columns = np.meshgrid(np.float32(DRAW_LOGITS), numbers, indexing="ij")
    for jit_compile in (False, True):
        x = tf.function(likelihood.draw, jit_compile=jit_compile)(tf.constant(rows), tf.constant(columns)).numpy()
        apart = np.abs(x - eager) > 1e-6
        # Other kernels round otherwise: grey draws by some eps but for the two outermost numbers, where the bound above
        # is wide; binary ones where the number is the probability to a rounding.
        assert np.count_nonzero(apart[:, 2:-2]) == 0 if not likelihood.binary else np.count_nonzero(apart) <= 2


@pytest.mark.parametrize(("method", "arguments"), [("log_prob", 2), ("draw", 2)])
def test_a_likelihood_of_ones_own_is_told_which_method_it_lacks(method, arguments):
    class Own(likelihoods.Likelihood):
        pass

    with pytest.raises(NotImplementedError, match=rf"Own needs a method {method}\("):
        getattr(Own(), method)(*[tf.zeros((1, 2))] * arguments)
