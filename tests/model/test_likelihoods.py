"""`kvae.likelihoods` against SciPy densities, quadrature and their own draws."""

import math
import warnings

import numpy as np
import pytest
from scipy import integrate, special, stats

import kvae
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import likelihoods
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

LIKELIHOODS = {
    "bernoulli": likelihoods.Bernoulli,
    "continuous_bernoulli": likelihoods.ContinuousBernoulli,
    "gaussian": lambda: likelihoods.Gaussian(0.01),
    "learned_gaussian": lambda: likelihoods.Gaussian("learned"),
    "squared_error": likelihoods.SquaredError,
}
each = pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS)
NOISE = {
    "bernoulli": "uniform",
    "continuous_bernoulli": "uniform",
    "gaussian": "normal",
    "learned_gaussian": "normal",
    "squared_error": "normal",
}
each_with_its_noise = pytest.mark.parametrize(
    ("make", "kind"), [(make, NOISE[name]) for name, make in LIKELIHOODS.items()], ids=LIKELIHOODS
)
DRAWS = 20_000
IMAGE = (3, 2, 2)


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


def continuous_bernoulli_density(x, logit):
    """lambda^x (1 - lambda)^(1 - x) up to a constant."""
    return math.exp(logit * x - max(logit, 0.0))


def continuous_bernoulli_log_density(x, logits):
    """The distance of x from the likelier edge is a truncated exponential of rate |logit|."""
    rate = np.abs(logits)
    return stats.truncexpon.logpdf(np.where(logits > 0, 1 - x, x), rate, scale=1 / rate)


# Nats per pixel, float64.
EXPECTED = {
    "bernoulli": lambda x, logits: x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits),
    "continuous_bernoulli": continuous_bernoulli_log_density,
    "gaussian": lambda x, logits: stats.norm.logpdf(x, special.expit(logits), math.sqrt(0.01)),
    "learned_gaussian": lambda x, logits: stats.norm.logpdf(x, special.expit(logits), math.sqrt(0.1)),
    "squared_error": lambda x, logits: -0.5 * (x - special.expit(logits)) ** 2,
}
each_by_name = pytest.mark.parametrize("name", LIKELIHOODS)


class Given:
    """Noise of one kind that is the numbers it was given; `asked` lists what for."""

    def __init__(self, kind, numbers):
        self.kind, self.numbers, self.asked = kind, tf.convert_to_tensor(numbers), []

    def normal(self, shape, stream):
        return self._given("normal", shape, stream)

    def uniform(self, shape, stream):
        return self._given("uniform", shape, stream)

    def _given(self, kind, shape, stream):
        assert (kind, tuple(shape)) == (self.kind, tuple(self.numbers.shape[1:]))
        self.asked.append(stream)
        return self.numbers


class Laplace(likelihoods.Likelihood):
    """Two numbers per pixel: where it lies and the logarithm of the scale. `shapes` is what the density was given."""

    support = (-math.inf, math.inf, False)

    def parameters_shape(self, image_shape):
        return (*image_shape, 2)

    def log_prob_of_pixels(self, x, parameters):
        self.shapes = (tuple(x.shape), tuple(parameters.shape))
        location, log_scale = parameters[..., 0], parameters[..., 1]
        return -tf.abs(x - location) * tf.exp(-log_scale) - log_scale - math.log(2.0)


class Counts(likelihoods.Likelihood):
    support = (0, 255, True)


class Spread(likelihoods.Likelihood):
    support = (-1.0, 1.0, False)


class Positive(likelihoods.Likelihood):
    support = (0.0, math.inf, False)


def draws(likelihood, logits):
    """`[DRAWS, *logits.shape]`, one key a draw."""
    noise = Keyed(0, Stream.PICTURES, tf.range(DRAWS))
    return likelihood.sample(tf.constant(np.tile(logits, (DRAWS, 1)), tf.float32), noise).numpy()


# Densities


@each
def test_log_prob_of_pixels_has_the_shape_of_the_parameters(make):
    assert make().log_prob_of_pixels(tf.zeros((3, 4)), tf.zeros((5, 3, 4))).shape == (5, 3, 4)


@each
@pytest.mark.parametrize("leading", [(), (5,)], ids=["one draw", "K draws"])
def test_log_prob_is_one_number_per_image(make, leading):
    assert make().log_prob(tf.zeros((3, 2, 2, 1)), tf.zeros((*leading, 3, 2, 2, 1))).shape == (*leading, 3)


@each
@pytest.mark.usefixtures("mixed_precision")
def test_log_prob_is_float32_under_mixed_precision(make):
    assert make().log_prob(tf.zeros((3, 4)), tf.zeros((3, 4), tf.float16)).dtype == tf.float32


@each_by_name
@pytest.mark.usefixtures("mixed_precision")
def test_data_and_parameters_keep_their_digits_under_mixed_precision(name):
    x, logits = np.float32([[0.1234567]]), np.float32([[0.7654321]])
    expected = EXPECTED[name](np.float64(x), np.float64(logits))
    actual = LIKELIHOODS[name]().log_prob(tf.constant(x), tf.constant(logits))
    # As below, where float16 would err by 1e-5 or more.
    np.testing.assert_allclose(actual, expected[:, 0], **DENSITY_TOLERANCE)


# Each of the three, and above: float32 inputs and eps against float64, a few eps of densities up to 10.
DENSITY_TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def test_bernoulli_log_prob_of_pixels_is_that_of_scipy(rng):
    logits, x = np.float32(rng.normal(size=100)), np.float32(rng.integers(0, 2, size=100))
    expected = stats.bernoulli.logpmf(x, special.expit(np.float64(logits)))
    actual = likelihoods.Bernoulli().log_prob_of_pixels(x, logits)
    np.testing.assert_allclose(actual, expected, **DENSITY_TOLERANCE)


@pytest.mark.parametrize("logit", [-5.0, -0.1, 0.0, 1.0])
def test_continuous_bernoulli_log_prob_of_pixels_is_that_of_the_normalized_density(logit):
    total, _ = integrate.quad(continuous_bernoulli_density, 0.0, 1.0, args=(logit,))
    actual = likelihoods.ContinuousBernoulli().log_prob_of_pixels(np.float32(0.3), np.float32(logit))
    expected = math.log(continuous_bernoulli_density(0.3, logit) / total)
    np.testing.assert_allclose(actual, expected, **DENSITY_TOLERANCE)


def test_gaussian_log_prob_of_pixels_is_that_of_scipy(rng):
    logits, x = np.float32(rng.normal(size=100)), np.float32(rng.uniform(size=100))
    expected = stats.norm.logpdf(x, special.expit(np.float64(logits)), math.sqrt(0.3))
    actual = likelihoods.Gaussian(0.3).log_prob_of_pixels(x, logits)
    np.testing.assert_allclose(actual, expected, **DENSITY_TOLERANCE)


# Densities of images: sums over their pixels


# Sums of 12 pixels of up to 50 nats (the Gaussian of variance 0.01), each of which float32 has to some eps: 12 * 50 *
# 3e-7 if all of them erred alike, and relatively where they do not cancel.
IMAGE_TOLERANCE = {"rtol": 1e-6, "atol": 2e-5}
draws_lead = pytest.mark.parametrize("leading", [(), (5,)], ids=["one draw", "K draws"])


@pytest.fixture
def images(rng):
    """Three images, binary ones for the Bernoulli, and as many parameters or more."""

    def images(name, leading=()):
        x = rng.integers(0, 2, size=(3, *IMAGE)) if name == "bernoulli" else rng.uniform(size=(3, *IMAGE))
        return np.float32(x), np.float32(rng.normal(scale=2.0, size=(*leading, 3, *IMAGE)))

    return images


def expected_sum(name, x, logits, observed=True):
    """`EXPECTED`, summed over the observed pixels of every image."""
    return np.where(observed, EXPECTED[name](np.float64(x), np.float64(logits)), 0.0).sum(axis=(-3, -2, -1))


@draws_lead
@each_by_name
def test_log_prob_is_the_sum_over_the_pixels(name, leading, images):
    x, logits = images(name, leading)
    actual = LIKELIHOODS[name]().log_prob(tf.constant(x), tf.constant(logits))
    np.testing.assert_allclose(actual, expected_sum(name, x, logits), **IMAGE_TOLERANCE)


@pytest.mark.parametrize("shape", [(3, *IMAGE), (1, *IMAGE), IMAGE, (3, 1, 2, 1)], ids=str)
@each_by_name
def test_log_prob_with_a_mask_is_the_sum_over_the_observed_pixels(name, shape, images, rng):
    x, logits = images(name, (5,))
    observed = rng.random(shape) < 0.5
    actual = LIKELIHOODS[name]().log_prob(tf.constant(x), tf.constant(logits), observed)
    np.testing.assert_allclose(actual, expected_sum(name, x, logits, observed), **IMAGE_TOLERANCE)


@each_by_name
def test_all_pixels_count_by_default(name, images):
    x, logits = images(name, (5,))
    likelihood = LIKELIHOODS[name]()
    assert np.array_equal(likelihood.log_prob(x, logits, np.ones_like(x, bool)), likelihood.log_prob(x, logits))


@each_by_name
def test_an_image_of_which_nothing_is_observed_has_log_prob_zero(name, images):
    x, logits = images(name, (5,))
    assert np.array_equal(LIKELIHOODS[name]().log_prob(x, logits, np.zeros_like(x, bool)), np.zeros((5, 3)))


@each_by_name
def test_missing_pixels_may_hold_anything(name, images, rng):
    x, logits = images(name, (5,))
    observed = rng.random(x.shape) < 0.5
    anything = np.resize(np.float32([math.nan, math.inf, -math.inf, -1e30, 255.0]), x.shape)
    likelihood, logits, found = LIKELIHOODS[name](), tf.constant(logits), []
    for filled in (x, np.where(observed, x, anything)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            log_prob = likelihood.log_prob(tf.constant(filled), logits, observed)
        sources = [logits, *likelihood.trainable_variables]
        found.append([log_prob.numpy(), *(part.numpy() for part in tape.gradient(log_prob, sources))])
    for of_the_whole, of_the_holes in zip(*found, strict=True):
        assert np.array_equal(of_the_holes, of_the_whole)
    assert not found[1][1][:, ~observed].any()  # a missing pixel moves no parameter


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@each_by_name
def test_one_image_goes_with_the_parameters_of_many_points(name, masked, images, rng):
    x, logits = images(name, (7,))
    x, logits = x[:1], logits[:, :1]
    observed = rng.random(x.shape) < 0.5 if masked else None
    actual = LIKELIHOODS[name]().log_prob(tf.constant(x), tf.constant(logits), observed)
    assert actual.shape == (7, 1)
    expected = expected_sum(name, x, logits, True if observed is None else observed)
    np.testing.assert_allclose(actual, expected, **IMAGE_TOLERANCE)


@draws_lead
def test_log_prob_of_pixels_gets_several_numbers_per_pixel_in_the_last_axis(leading):
    likelihood = Laplace()
    likelihood.log_prob(tf.zeros((3, *IMAGE)), tf.zeros((*leading, 3, *IMAGE, 2)))
    assert likelihood.shapes == ((3, 12), (*leading, 3, 12, 2))


@draws_lead
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_several_numbers_per_pixel_are_those_of_their_pixel(masked, leading, rng):
    x = np.float32(rng.normal(size=(3, *IMAGE)))
    parameters = np.float32(rng.normal(size=(*leading, 3, *IMAGE, 2)))
    observed = rng.random(IMAGE) < 0.5 if masked else None
    wide = np.float64(parameters)
    each_pixel = stats.laplace.logpdf(np.float64(x), wide[..., 0], np.exp(wide[..., 1]))
    expected = np.where(True if observed is None else observed, each_pixel, 0.0).sum(axis=(-3, -2, -1))
    actual = Laplace().log_prob(tf.constant(x), tf.constant(parameters), observed)
    np.testing.assert_allclose(actual, expected, **IMAGE_TOLERANCE)


def test_parameters_may_be_of_the_image_and_not_of_its_pixels(rng):
    class OfTheImage(Laplace):
        def parameters_shape(self, image_shape):
            return (2,)

        def log_prob_of_pixels(self, x, parameters):
            return super().log_prob_of_pixels(x, parameters[..., None, :])

    x, parameters = np.float32(rng.normal(size=(3, *IMAGE))), np.float32(rng.normal(size=(5, 3, 2)))
    location, log_scale = np.moveaxis(np.float64(parameters)[..., None, None, None], 2, 0)
    expected = stats.laplace.logpdf(np.float64(x), location, np.exp(log_scale)).sum(axis=(-3, -2, -1))
    actual = OfTheImage().log_prob(tf.constant(x), tf.constant(parameters))
    np.testing.assert_allclose(actual, expected, **IMAGE_TOLERANCE)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
def test_log_prob_in_a_graph_for_batches_of_any_size_is_that_of_eager_execution(jit_compile, images, rng):
    x, logits = images("learned_gaussian", (5,))
    observed, likelihood = rng.random(x.shape) < 0.5, likelihoods.Gaussian("learned")
    shapes = ((None, *IMAGE), (None, None, *IMAGE))
    signature = [*(tf.TensorSpec(shape) for shape in shapes), tf.TensorSpec((None, *IMAGE), tf.bool)]
    compiled = tf.function(likelihood.log_prob, input_signature=signature, jit_compile=jit_compile)
    assert compiled.get_concrete_function().output_shapes.as_list() == [None, None]
    # The same sums in another order, of other kernels' roundings.
    np.testing.assert_allclose(
        compiled(x, logits, observed), likelihood.log_prob(x, logits, observed), **IMAGE_TOLERANCE
    )


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
        log_prob = likelihood.log_prob(tf.constant([[0.0, 1.0]]), tf.zeros((1, 2)))
    (actual,) = tape.gradient(log_prob, likelihood.trainable_variables)
    # d/dv -1/2 [v + (x - 1/2)^2 exp(-v)], twice, at v = log 0.1: (0.25 / 0.1 - 1) / 2 * 2. A few float32 eps.
    assert float(actual) == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize("variance", [0, -1.0, math.nan, math.inf, "learnt", None, True, [0.1]])
def test_gaussian_refuses_an_invalid_variance(variance):
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


def test_squared_error_log_prob_of_pixels_is_half_the_squared_error(grey):
    x, logits = grey
    expected = -((x - special.expit(np.float64(logits))) ** 2) / 2
    # Values up to 1/2 of float32 parts up to 1.
    np.testing.assert_allclose(likelihoods.SquaredError().log_prob_of_pixels(x, logits), expected, rtol=0, atol=1e-7)


def test_squared_error_lacks_the_constant_of_the_gaussian_alone(grey):
    squared_error, gaussian = (
        likelihood.log_prob_of_pixels(*grey) for likelihood in (likelihoods.SquaredError(), likelihoods.Gaussian(1.0))
    )
    np.testing.assert_allclose(squared_error - gaussian, -stats.norm.logpdf(0.0), rtol=0, atol=3e-7)  # float32 near 1


def test_squared_error_has_the_gradient_of_the_gaussian(grey):
    x, logits = grey[0], tf.constant(grey[1])
    gradients = []
    for likelihood in (likelihoods.SquaredError(), likelihoods.Gaussian(1.0)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(likelihood.log_prob_of_pixels(x, logits))
        gradients.append(tape.gradient(total, logits))
    assert np.isfinite(gradients[0]).all()
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-7)  # a few roundings of numbers up to 1/4


def test_squared_error_gradient_is_that_of_the_closed_form(grey):
    x, logits = grey[0], tf.constant(grey[1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(likelihoods.SquaredError().log_prob_of_pixels(x, logits))
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
    names = "bernoulli, continuous_bernoulli, gaussian, squared_error"
    with pytest.raises(UserError, match=f"Unknown likelihood '{name}'. Did you mean '{near}.*Expected one of: {names}"):
        likelihoods.get(name)


@pytest.mark.parametrize("other", [None, 1, likelihoods.Bernoulli, ["bernoulli"], keras.layers.Dense(1)])
def test_get_refuses_what_is_neither_name_nor_likelihood(other):
    with pytest.raises(UserError) as refusal:
        likelihoods.get(other)
    assert str(refusal.value) == (
        "Expected likelihood= to be one of bernoulli, continuous_bernoulli, gaussian, squared_error, or a "
        f"kvae.model.likelihoods.Likelihood. Received {other!r}."
    )


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_the_name_of_a_likelihood_is_the_one_that_get_takes(name):
    assert likelihoods.name_of(likelihoods.get(name)) == name


def test_the_name_of_a_users_likelihood_is_that_of_its_class():
    class Sharper(likelihoods.Gaussian):
        pass

    assert likelihoods.name_of(Sharper()) == "Sharper"


# What pixels may be


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    ("make", "binary"),
    [
        *((make, name == "bernoulli") for name, make in LIKELIHOODS.items()),
        *((make, False) for make in (Laplace, Counts, Spread, Positive)),
    ],
    ids=[*LIKELIHOODS, "Laplace", "Counts", "Spread", "Positive"],
)
def test_only_the_support_of_zero_and_one_is_binary(make, binary):
    assert make().binary is binary


@each
@pytest.mark.parametrize("wrong", [-0.01, 1.01, 255.0, math.nan, math.inf, -math.inf])
def test_pixels_outside_of_the_unit_interval_are_refused(make, wrong):
    x = np.float32([0.0, 1.0, wrong])
    received = f"Received values from {x.min()} to {x.max()}."
    with pytest.raises(UserError) as refusal:
        make().check_pixels(x)
    hint = "Divide uint8 images by 255, or load them with kvae.data.load."
    assert str(refusal.value) == f"Expected pixels in [0, 1]. {received} {hint}"


@each
def test_bytes_are_refused_where_pixels_lie_in_the_unit_interval(make):
    with pytest.raises(UserError, match=r"Expected pixels in \[0, 1\]. Received values from 0 to 255. Divide uint8"):
        make().check_pixels(np.array([0, 255], np.uint8))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64])
@pytest.mark.usefixtures("no_warnings")
def test_binary_pixels_of_any_type_are_accepted(dtype):
    likelihoods.Bernoulli().check_pixels(np.array([[0, 1], [1, 0]], dtype))


@pytest.mark.parametrize(
    ("nothing", "received"),
    [
        (np.zeros((0, 2, 2, 1), np.float32), r"float32 of shape \(0, 2, 2, 1\)"),
        (np.array(["0"]), r"<U1 of shape \(1,\)"),
        (np.array([None]), r"object of shape \(1,\)"),
        (np.array([1j]), r"complex128 of shape \(1,\)"),
    ],
)
def test_data_without_numbers_are_refused(nothing, received):
    with pytest.raises(UserError, match=f"Expected an array of at least one image. Received {received}"):
        likelihoods.Bernoulli().check_pixels(nothing)


@pytest.mark.usefixtures("no_warnings")
def test_a_support_without_ends_takes_every_number():
    Laplace().check_pixels(np.array([-1e300, -0.5, 0.0, 255.0, 1e300]))


@pytest.mark.parametrize("make", [Laplace, Counts, Spread, Positive])
def test_nan_is_outside_of_every_support(make):
    with pytest.raises(UserError, match=r"Expected pixels in .* Received values from nan to nan"):
        make().check_pixels(np.float32([0.0, math.nan]))


@pytest.mark.parametrize(
    ("make", "wrong", "support"),
    [
        (Counts, 256, "[0, 255]"),
        (Counts, -1, "[0, 255]"),
        (Counts, 255.5, "[0, 255]"),
        (Spread, 1.5, "[-1, 1]"),
        (Spread, -1.5, "[-1, 1]"),
        (Positive, -1e-3, "[0, inf]"),
    ],
)
def test_pixels_outside_of_the_support_of_a_users_likelihood_are_refused(make, wrong, support):
    x = np.array([0, wrong])
    with pytest.raises(UserError) as refusal:
        make().check_pixels(x)
    # Without the advice to divide by 255, which would be wrong here.
    assert str(refusal.value) == f"Expected pixels in {support}. Received values from {x.min()} to {x.max()}."


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.usefixtures("no_warnings")
def test_whole_numbers_are_accepted_where_only_they_have_a_density(dtype):
    Counts().check_pixels(np.array([0, 3, 254, 255], dtype))


def test_pixels_between_whole_numbers_are_warned_of_where_these_alone_have_a_density():
    with pytest.warns(UserWarning, match="whole numbers as pixels: only these have a density under Counts"):
        Counts().check_pixels(np.float32([0.0, 0.5, 255.0]))


def test_grey_pixels_under_a_bernoulli_likelihood_are_warned_of():
    with pytest.warns(UserWarning, match="no bound on log p"):
        likelihoods.Bernoulli().check_pixels(np.float32([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    "make", [likelihoods.ContinuousBernoulli, likelihoods.Gaussian, likelihoods.SquaredError, Laplace, Spread, Positive]
)
@pytest.mark.usefixtures("no_warnings")
def test_grey_pixels_under_another_likelihood_are_not_warned_of(make):
    make().check_pixels(np.float32([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("make", "text"), [(likelihoods.Bernoulli, "no bound on log p"), (Counts, "only these have a density under Counts")]
)
def test_a_dataset_that_is_known_to_be_grey_can_be_warned_of_without_its_pixels(make, text):
    with pytest.warns(UserWarning, match=text):
        make().warn_of_grey()


@pytest.mark.parametrize(
    "warn",
    [
        lambda level: likelihoods.Bernoulli().warn_of_grey(level),
        lambda level: likelihoods.Bernoulli().check_pixels(np.float32([0.5]), level),
    ],
    ids=["warn_of_grey", "check_pixels"],
)
def test_the_warning_points_at_the_line_that_the_stack_level_names(warn):
    def caller(level):
        warn(level)

    lines = []
    for level in (1, 2):
        with pytest.warns(UserWarning, match="Grey pixels") as record:
            caller(level)
        lines += [(warning.filename, warning.lineno) for warning in record]
    assert lines == [(__file__, warn.__code__.co_firstlineno), (__file__, caller.__code__.co_firstlineno + 1)]


# Images as bytes


SPREAD_OVER = {  # the pixel that byte b stands for
    likelihoods.Bernoulli: lambda b: b / 255,
    likelihoods.Gaussian: lambda b: b / 255,
    Laplace: lambda b: b / 255,  # no ends, so pictures show [0, 1]
    Positive: lambda b: b / 255,  # no upper end
    Counts: lambda b: b,
    Spread: lambda b: b / 127.5 - 1,
}
every_support = pytest.mark.parametrize(("make", "pixel"), SPREAD_OVER.items(), ids=lambda part: part.__name__)


@every_support
@pytest.mark.parametrize("off", [0.0, -0.4, 0.4])
def test_the_nearest_byte_is_that_of_a_pixel(make, pixel, off):
    # At +-0.4 float32 is far from the next half.
    found = make().as_bytes(tf.constant(pixel(np.arange(256) + off), tf.float32))
    assert found.dtype == tf.uint8
    assert np.array_equal(found, np.arange(256))


@every_support
def test_what_lies_beyond_is_the_first_or_the_last_byte(make, pixel):
    x = tf.constant(pixel(np.array([-1e6, -1.0, 256.0, 1e6])), tf.float32)
    assert np.array_equal(make().as_bytes(x), [0, 0, 255, 255])


@every_support
def test_bytes_keep_the_shape_of_images(make, pixel):
    assert make().as_bytes(tf.fill((5, *IMAGE), np.float32(pixel(7.0)))).shape == (5, *IMAGE)


# Draws as functions of their random numbers


NUMBERS = {
    # multiples of 2^-24, as the generators have them, the least and the greatest among them
    "uniform": np.float32([0.0, 2.0**-24, *np.arange(1, 4096) / 4096, 1 - 2.0**-23, 1 - 2.0**-24]),
    "normal": np.linspace(-5.3, 5.3, 4001, dtype=np.float32),
}
DRAW_LOGITS = [-50.0, -1.0, -0.06, -0.04, -1e-3, 0.0, 1e-3, 0.04, 0.06, 1.0, 50.0]
draw_logits = pytest.mark.parametrize("logit", DRAW_LOGITS)


def draw_each(likelihood, logits, kind, every=1):
    """Draws for every logit (rows) and every so many of the numbers of a kind (columns)."""
    rows, columns = np.meshgrid(np.float32(logits), NUMBERS[kind][::every], indexing="ij")
    return likelihood.sample(tf.constant(rows), Given(kind, columns)).numpy()


def continuous_bernoulli_quantiles(numbers, logits):
    """F^-1(u) in float64: log(1 - u + u e^l) / l for l < 0, mirrored for l > 0, without cancellation to speak of."""
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
    # The numbers lie further apart than float32 rounds, but for the outermost, where a draw may go back by one ulp.
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
        # Other kernels round otherwise: grey draws by some eps but for the two outermost numbers, where the bound above
        # is wide; binary ones where the number is the probability to a rounding.
        assert np.count_nonzero(apart[:, 2:-2]) == 0 if not likelihood.binary else np.count_nonzero(apart) <= 2


# Likelihoods of one's own


@pytest.mark.parametrize(
    ("method", "arguments", "missing"),
    [
        ("log_prob", 2, "log_prob_of_pixels"),
        ("log_prob_of_pixels", 2, "log_prob_of_pixels"),
        ("mean", 1, "mean"),
        ("sample", 2, "sample"),
    ],
)
def test_the_error_of_a_users_likelihood_names_the_missing_method(method, arguments, missing):
    class Own(likelihoods.Likelihood):
        pass

    with pytest.raises(NotImplementedError, match=rf"Own needs a method {missing}\("):
        getattr(Own(), method)(*[tf.zeros((1, 2))] * arguments)


@pytest.mark.parametrize("base", [likelihoods.Likelihood, likelihoods.Bernoulli, likelihoods.Gaussian])
def test_a_users_likelihood_may_not_override_log_prob(base):
    with pytest.raises(
        TypeError, match=r"Expected Own to define log_prob_of_pixels\(x, parameters\), in nats per pixel"
    ):
        type("Own", (base,), {"log_prob": lambda self, x, parameters, observed=None: tf.zeros(())})


class Power(likelihoods.Likelihood):
    """log p = a log x + log(a + 1) on [0, 1], with a = exp(parameters): no finite density at 0."""

    def log_prob_of_pixels(self, x, parameters):
        a = tf.exp(parameters)
        return a * tf.math.log(x) + tf.math.log(a + 1)


def test_missing_pixels_leave_no_trace_in_the_gradient_of_a_density_that_is_infinite_at_zero():
    x, observed, parameters = tf.constant([[0.5, 0.0]]), np.array([[True, False]]), tf.Variable([[0.3, 0.7]])
    with tf.GradientTape() as tape:
        log_prob = Power().log_prob(x, parameters, observed)
    a = math.exp(0.3)
    # A difference of two float32 numbers near 1.
    assert float(log_prob[0]) == pytest.approx(a * math.log(0.5) + math.log(a + 1), abs=1e-6)
    expected = [a * math.log(0.5) + a / (a + 1), 0.0]
    np.testing.assert_allclose(tape.gradient(log_prob, parameters)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_pixels_are_outside_of_a_support_without_ends(value):
    class Anything(likelihoods.Likelihood):
        support = (-math.inf, math.inf, False)

    with pytest.raises(UserError, match="Received values from"):
        Anything().check_pixels(np.float32([0.0, value]))
