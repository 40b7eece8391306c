"""Likelihoods for which a decoder returns several numbers per pixel: probabilities, means, draws and levels."""

import math
import warnings

import numpy as np
import pytest
from scipy import integrate, special, stats
from small_models import compiled

import kvae
from kvae.data.in_memory import ImagesInMemory
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import densities, likelihoods
from kvae.model.pixel_check import check_pixels
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

pytestmark = pytest.mark.usefixtures("without_xla")

LIKELIHOODS = {
    "gaussian_per_pixel": likelihoods.GaussianPerPixel,
    "discretized_logistic": likelihoods.DiscretizedLogistic,
    "discretized_logistic of few levels": lambda: likelihoods.DiscretizedLogistic(5),
    "categorical": likelihoods.Categorical,
    "categorical of many levels": lambda: likelihoods.Categorical(32),
}
each = pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS)
OF_LEVELS = {name: make for name, make in LIKELIHOODS.items() if name != "gaussian_per_pixel"}
each_of_levels = pytest.mark.parametrize("make", OF_LEVELS.values(), ids=OF_LEVELS)
PIXELS = 40
DRAWS = 20_000


def numbers_of_pixels(likelihood, rng, count=PIXELS):
    """What a decoder may return for some pixels, `[count, n]`; those of the first one are extreme."""
    shape = (count, *likelihood.parameters_shape(()))
    parameters = np.float32(rng.normal(scale=2.0, size=shape))
    parameters[0] = 40.0 * np.sign(parameters[0])
    return parameters


def values_of(likelihood):
    return np.arange(likelihood.levels) / (likelihood.levels - 1)


def log_masses(likelihood, parameters):
    """The log probability of every level (rows) of every pixel (columns)."""
    x = np.float32(np.repeat(values_of(likelihood)[:, None], len(parameters), axis=1))
    return likelihood.log_prob_of_pixels(tf.constant(x), tf.constant(parameters)).numpy()


def logistic_masses(likelihood, parameters):
    """The probabilities of the levels in float64, `[levels, pixels]`, as differences of the distribution function."""
    steps = likelihood.levels - 1
    location, number = special.expit(np.float64(parameters)).T
    scale = np.exp(math.log(1 / 8 / steps) + math.log(8 * steps) * number)
    edges = (np.arange(1, likelihood.levels)[:, None] - 0.5) / steps
    inner = stats.logistic.cdf(edges, location, scale)
    return np.diff(inner, axis=0, prepend=np.zeros((1, len(location))), append=np.ones((1, len(location))))


# Probabilities


@each_of_levels
def test_the_probabilities_of_all_levels_sum_to_one(make, rng):
    likelihood = make()
    masses = np.exp(np.float64(log_masses(likelihood, numbers_of_pixels(likelihood, rng))))
    # Each of the probabilities is rounded to some eps of float32 of its logarithm, which is a number up to 10 where the
    # probability counts.
    np.testing.assert_allclose(masses.sum(axis=0), 1.0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_discretized_logistic_masses_are_differences_of_the_distribution_function(levels, rng):
    likelihood = likelihoods.DiscretizedLogistic(levels)
    parameters = numbers_of_pixels(likelihood, rng)
    # As above; in the oracle, probabilities below 1e-10 lose their digits.
    actual, expected = np.exp(np.float64(log_masses(likelihood, parameters))), logistic_masses(likelihood, parameters)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("log_scale", [-8.0, -3.0, 0.0])
@pytest.mark.parametrize("mean", [-3.0, 0.0, 0.37, 1.0, 5.0])
@pytest.mark.parametrize("level", [0, 1, 100, 254, 255])
def test_discretized_logistic_gradients_are_finite_differences_also_in_the_tails(mean, log_scale, level):
    x = tf.constant(level / 255, tf.float64)
    variables = [tf.Variable(value, dtype=tf.float64) for value in (mean, log_scale)]

    def log_mass(*values):
        return densities.discretized_logistic_log_mass(x, *values, 256)

    with tf.GradientTape() as tape:
        result = log_mass(*variables)
    assert np.isfinite(result.numpy())
    for place, gradient in enumerate(tape.gradient(result, variables)):
        step = 1e-6 * np.eye(2)[place]
        up, down = (log_mass(*(tf.constant([mean, log_scale], tf.float64) + sign * step)) for sign in (1, -1))
        difference = (up - down).numpy() / 2e-6
        # Rounding of float64 in values up to 1e4, and the third derivative times the squared step.
        np.testing.assert_allclose(gradient.numpy(), difference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parameter", [-1e4, -50.0, 50.0, 1e4])
@each
def test_extreme_numbers_have_finite_densities_means_and_gradients(make, parameter):
    likelihood = make()
    parameters = tf.fill((2, 3, *likelihood.parameters_shape(())), parameter)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(parameters)
        log_prob = likelihood.log_prob_of_pixels(tf.constant([[0.0, 0.4, 1.0]]), parameters)
        mean = likelihood.mean(parameters)
    for result in (log_prob, mean):
        assert np.isfinite(result).all()
        assert np.isfinite(tape.gradient(result, parameters)).all()


def test_categorical_masses_are_those_of_a_softmax(rng):
    likelihood = likelihoods.Categorical(4)
    parameters = numbers_of_pixels(likelihood, rng)
    trend, *own = np.float64(parameters).T
    logits = np.stack([np.zeros(PIXELS), trend / 3 + own[0], 2 * trend / 3 + own[1], trend])
    np.testing.assert_allclose(
        log_masses(likelihood, parameters), special.log_softmax(logits, axis=0), rtol=1e-5, atol=1e-6
    )


def test_gaussian_per_pixel_densities_are_those_of_scipy(rng):
    likelihood = likelihoods.GaussianPerPixel(1e-3)
    parameters = numbers_of_pixels(likelihood, rng)
    x = np.float32(rng.random(PIXELS))
    mean, number = special.expit(np.float64(parameters)).T
    expected = stats.norm.logpdf(x, mean, np.exp(0.5 * math.log(1e-3) * (1 - number)))
    # Densities up to -500 nats where a pixel is some standard deviations away.
    np.testing.assert_allclose(likelihood.log_prob_of_pixels(x, parameters), expected, rtol=1e-5, atol=1e-5)


def test_the_density_of_a_gaussian_per_pixel_integrates_to_one():
    likelihood = likelihoods.GaussianPerPixel()
    parameters = tf.constant([[0.3, -0.5]])
    x = np.linspace(-3.0, 4.0, 70_001, dtype=np.float32)
    density = np.exp(likelihood.log_prob_of_pixels(x, parameters).numpy().astype(np.float64))
    assert integrate.trapezoid(density, x) == pytest.approx(1.0, abs=1e-5)  # float32


@pytest.mark.parametrize("leading", [(), (5,)], ids=["one draw", "K draws"])
@each
def test_log_prob_of_images_is_the_sum_over_the_observed_pixels(make, leading, rng):
    likelihood, image = make(), (3, 2, 2)
    x = np.float32(rng.integers(0, 5, size=(3, *image)) / 4)
    parameters = np.float32(rng.normal(size=(*leading, 3, *likelihood.parameters_shape(image))))
    observed = rng.random(image) < 0.5
    pixels = likelihood.log_prob_of_pixels(tf.constant(x), tf.constant(parameters)).numpy()
    for mask in (None, observed):
        expected = np.where(True if mask is None else mask, pixels, 0.0).sum(axis=(-3, -2, -1))
        actual = likelihood.log_prob(tf.constant(x), tf.constant(parameters), mask)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)  # sums in another order, float32


# Means and draws


@each_of_levels
def test_the_mean_is_that_of_the_probabilities(make, rng):
    likelihood = make()
    parameters = numbers_of_pixels(likelihood, rng)
    expected = (np.exp(log_masses(likelihood, parameters)) * values_of(likelihood)[:, None]).sum(axis=0)
    bound = np.full(PIXELS, 2e-6)  # float32
    if isinstance(likelihood, likelihoods.DiscretizedLogistic) and likelihood.levels > 16:
        scale = (1 / 8) * (8 * 255) ** special.expit(np.float64(parameters[:, 1]))  # in steps
        bound += np.where(scale >= 0.5, 0.025, 0.5) / 255
    np.testing.assert_array_less(np.abs(likelihood.mean(parameters) - expected), bound)


@each_of_levels
def test_draws_have_the_probabilities(make, rng):
    likelihood = make()
    parameters = np.float32(rng.normal(size=(3, *likelihood.parameters_shape(()))))
    noise = Keyed(0, Stream.PICTURES, tf.range(DRAWS))
    x = likelihood.sample(tf.constant(np.tile(parameters, (DRAWS, 1, 1))), noise).numpy()
    levels = np.rint(x * (likelihood.levels - 1)).astype(int)
    np.testing.assert_allclose(x, levels / (likelihood.levels - 1), rtol=0, atol=1e-7)
    masses = np.exp(np.float64(log_masses(likelihood, parameters)))
    for pixel in range(3):
        counts = np.bincount(levels[:, pixel], minlength=likelihood.levels)
        rare = DRAWS * masses[:, pixel] < 5  # joined into one bin, as the test of Pearson needs it
        found = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(masses[~rare, pixel], masses[rare, pixel].sum()) * DRAWS
        kept = expected > 1
        statistic = ((found - expected)[kept] ** 2 / expected[kept]).sum()
        assert statistic < stats.chi2.ppf(1 - 1e-4, max(kept.sum() - 1, 1))  # a level of 1e-4; the seed is fixed


def test_gaussian_per_pixel_draws_have_the_mean_and_the_variance():
    likelihood = likelihoods.GaussianPerPixel(1e-4)
    parameters = np.tile(np.float32([[0.2, 0.0]]), (DRAWS, 1, 1))
    x = likelihood.sample(tf.constant(parameters), Keyed(0, Stream.PICTURES, tf.range(DRAWS))).numpy()
    # Four standard errors; the edges are 4.5 standard deviations of 0.1 away.
    assert x.mean() == pytest.approx(special.expit(0.2), abs=4 * 0.1 / math.sqrt(DRAWS))
    assert x.var() == pytest.approx(0.01, abs=4 * 0.01 * math.sqrt(2 / DRAWS))


MANY = (1e5, 1e9, 1e20, 1e300)  # degrees with which Student's t distribution is a Gaussian


@pytest.mark.parametrize(
    ("likelihood", "distribution"),
    [
        (likelihoods.Laplace(2e-4), stats.laplace(special.expit(0.2), math.sqrt(1e-4))),
        (likelihoods.StudentT(2e-4), stats.t(4, special.expit(0.2), math.sqrt(1e-4))),
        (likelihoods.StudentT(2e-4, degrees=3), stats.t(3, special.expit(0.2), math.sqrt(2e-4 / 3))),
        *((likelihoods.StudentT(2e-4, degrees=n), stats.norm(special.expit(0.2), math.sqrt(2e-4))) for n in MANY),
    ],
    ids=["laplace", "student_t", "student_t of 3 degrees", *(f"student_t of {n:g} degrees" for n in MANY)],
)
def test_draws_with_heavy_tails_have_the_distribution_of_scipy(likelihood, distribution):
    noise = Keyed(0, Stream.PICTURES, tf.range(DRAWS))
    x = likelihood.sample(tf.fill((DRAWS, 1), 0.2), noise).numpy()[:, 0]
    assert stats.kstest(x, distribution.cdf).pvalue > 1e-3  # the seed is fixed


@each
def test_draws_of_an_image_have_its_shape_and_depend_on_its_key_alone(make, rng):
    likelihood, image = make(), (3, 2, 1)
    parameters = tf.constant(rng.normal(size=(5, *likelihood.parameters_shape(image))), tf.float32)
    drawn = tf.function(likelihood.sample)(parameters, Keyed(0, Stream.PICTURES, tf.range(5)))
    assert (drawn.shape, likelihood.mean(parameters).shape) == ((5, *image), (5, *image))
    alone = likelihood.sample(parameters[3:4], Keyed(0, Stream.PICTURES, [3]))
    np.testing.assert_allclose(alone, drawn[3:4], rtol=0, atol=1e-6)


# Levels


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.usefixtures("no_warnings")
def test_bytes_divided_by_255_have_256_levels(dtype):
    x = np.arange(256, dtype=np.uint8).astype(dtype) / dtype(255)
    likelihoods.DiscretizedLogistic().check_pixels(x)
    likelihoods.Categorical(256).check_pixels(x)


@each_of_levels
@pytest.mark.usefixtures("no_warnings")
def test_the_levels_are_accepted(make):
    make().check_pixels(np.float32(values_of(make())))


@each_of_levels
def test_pixels_between_levels_are_warned_of_and_count_as_the_nearest(make, rng):
    likelihood = make()
    steps = likelihood.levels - 1
    x = np.float32([0.0, 1.3 / steps, 1.0 - 0.3 / steps])
    with pytest.warns(UserWarning, match=rf"Expected pixels k/{steps} .*np.round\(x \* {steps}\) / {steps}"):
        likelihood.check_pixels(x)
    parameters = tf.constant(rng.normal(size=(3, *likelihood.parameters_shape(()))), tf.float32)
    rounded = likelihood.log_prob_of_pixels(np.float32(np.rint(x * steps) / steps), parameters)
    np.testing.assert_array_equal(likelihood.log_prob_of_pixels(x, parameters), rounded)


@pytest.mark.parametrize(("values", "warned"), [((0, 85, 170, 255), False), ((0, 100, 255), True)])
def test_bytes_of_a_dataset_are_known_by_their_values(values, warned):
    images = np.resize(np.uint8(values), (4, 6, 5, 1))
    data = ImagesInMemory(images, lambda some, *_: tf.cast(some, tf.float32) / 255, 2, binary=False).dataset()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert check_pixels(likelihoods.Categorical(4), data)
    assert [str(each.message)[:19] for each in caught] == ["Expected pixels k/3"] * warned


@pytest.mark.slow
def test_pixels_between_levels_in_a_stream_of_batches_are_warned_of(rng):
    x = tf.data.Dataset.from_tensors(np.float32(rng.random((8, 6, 5, 1))))
    vae = compiled(kvae.VAE(2, hidden_units=(4,), likelihood="categorical", seed=0), jit_compile=False)
    with pytest.warns(UserWarning, match="Expected pixels k/3"):
        vae.fit(x, verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: likelihoods.Categorical(2), r"whole number in 3\.\.256. Received 2"),
        (lambda: likelihoods.DiscretizedLogistic(1), r"whole number in 2\.\.65536. Received 1"),
        (lambda: likelihoods.DiscretizedLogistic(256.0), r"Received 256\.0"),
        (lambda: likelihoods.GaussianPerPixel(0), "least_variance between 0 and 1. Received 0"),
        (lambda: likelihoods.StudentT(1.0, degrees=2), "degrees above 2. Received 2"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


# Models


@pytest.mark.parametrize("network", [kvae.networks.MLPEncoder, kvae.networks.ConvEncoder])
@each
def test_a_decoder_begins_with_the_mean_image(make, network):
    mean = np.full((8, 9, 1), 0.2, np.float32)
    options = {"hidden_units": (8,)} if network is kvae.networks.MLPEncoder else {"filters": (4,), "dense_units": 8}
    bias = kvae.networks.logit_of_mean(mean)
    vae = kvae.VAE(encoder=network(2, **options), likelihood=make(), output_bias=bias, seed=0)
    vae.build((None, 8, 9, 1))
    parameters = vae.decoder(tf.zeros((1, 2)))
    assert parameters.shape == (1, *vae.likelihood.parameters_shape((8, 9, 1)))
    # The mean of a categorical is only close, as that of a continuous Bernoulli, which is 0.39 here.
    bound = 0.2 if isinstance(vae.likelihood, likelihoods.Categorical) else 0.05
    assert np.abs(vae.likelihood.mean(parameters) - 0.2).max() < bound


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] * (name != "discretized_logistic"))
        for name, make in LIKELIHOODS.items()
    ],
)
def test_training_improves_and_a_saved_model_is_the_same(make, tmp_path, rng):
    dark = rng.random((64, 1, 1, 1)) < 0.5
    x = np.float32(np.rint(np.clip(np.where(dark, 0.2, 0.8) + rng.normal(0, 0.1, (64, 6, 5, 1)), 0, 1) * 3) / 3)
    likelihood = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thirds are no levels of some
        vae = compiled(kvae.VAE(2, hidden_units=(16,), likelihood=likelihood, seed=0), jit_compile=False)
        elbo = vae.fit(x, epochs=20, batch_size=16, verbose=0).history["elbo"]
        assert elbo[-1] > elbo[0] + 5
        vae.save(tmp_path / "vae.keras")
        copy = keras.saving.load_model(tmp_path / "vae.keras")
        assert copy.likelihood.get_config() == likelihood.get_config()
        assert np.array_equal(copy.generate(3, seed=1), vae.generate(3, seed=1))
        result = kvae.evaluation.evaluate(vae, x)
    if likelihood.levels is None:
        assert "bits_per_dimension" not in result
    else:
        assert result["bits_per_dimension"] == pytest.approx(-result["elbo"] / (30 * math.log(2)), rel=1e-6)
        expected = result["elbo_standard_error"] / (30 * math.log(2))
        assert result["bits_per_dimension_standard_error"] == pytest.approx(expected, rel=1e-6)
        assert result["protocol"]["levels"] == likelihood.levels


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "squared_error"])
def test_neither_densities_nor_binary_pixels_have_bits_per_dimension(name):
    vae = kvae.VAE(2, hidden_units=(4,), likelihood=name, seed=0)
    vae.build((None, 6, 5, 1))
    assert "bits_per_dimension" not in kvae.evaluation.evaluate(vae, np.ones((4, 6, 5, 1), np.float32))


@pytest.mark.parametrize("kind", [likelihoods.DiscretizedLogistic, likelihoods.Categorical])
def test_a_number_of_levels_may_be_an_integer_of_numpy(kind):
    levels = kind(np.int64(8)).levels
    assert (type(levels), levels) == (int, 8)


@pytest.mark.parametrize("degrees", [2.5, 1e3, 9.9e5, 1e6, *MANY])
def test_student_t_densities_of_any_number_of_degrees_are_those_of_scipy(degrees):
    x = np.float32([0.0, 0.3, -2.0, 30.0])
    found = densities.student_t_log_density(x, 0.0, 0.0, degrees).numpy()
    expected = stats.t(degrees).logpdf(np.float64(x)) if degrees < 1e12 else stats.norm.logpdf(x)
    np.testing.assert_allclose(found, expected, rtol=3e-6)
