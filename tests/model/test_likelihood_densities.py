"""log p(x|z) of every likelihood against SciPy, also with missing pixels and in compiled graphs."""

import math

import numpy as np
import pytest
from likelihood_cases import (
    DENSITY_TOLERANCE,
    EXPECTED,
    IMAGE,
    LIKELIHOODS,
    Laplace,
    continuous_bernoulli_density,
    each,
    each_by_name,
)
from scipy import integrate, special, stats

from kvae.internal.tensorflow import tf
from kvae.model import likelihoods

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
# 3e-7 if all of them erred in the same direction, and relatively where they do not cancel.
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
