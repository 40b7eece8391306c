"""`kvae.evaluation.evidence` against closed forms, all images of four pixels, and SciPy's quadrature."""

import itertools
import math

import numpy as np
import pytest
from oracles import LOG_DENSITIES, LinearModel, Plane, bernoulli_log_density, mlp
from scipy import integrate, special, stats
from small_models import scaled_decoder, tiny

import kvae
from kvae import evaluation
from kvae.evaluation import evidence
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError

IMAGES = np.array(list(itertools.product([0.0, 1.0], repeat=4)), np.float32)  # all that there are, [16, 4]

# kvae sums log densities of some nats in float32, eps 5e-7 there. What the integral itself errs by is stated as
# `error`, and far below its limit of 1e-3 for so smooth integrands, since it converges exponentially.
ROUNDING = {"rtol": 0, "atol": 1e-5}


def untrained(image_shape=(2, 2, 1), **options):
    """A model of 2 latent dimensions whose pixels depend visibly, but smoothly, on z."""
    return scaled_decoder(tiny(**{"seed": 1} | options), image_shape, 1.5)


def gaussian_posterior(mean, sigmas, degrees=0.0):
    """A linear model and its image `[4]` whose posterior has this mean and these deviations along turned axes."""
    s, x = 0.01, np.full(4, 0.5)
    turn = math.radians(degrees)
    axes = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    precision = axes @ np.diag(1 / np.square(sigmas)) @ axes.T  # I + W'W / s^2
    weights = s * np.linalg.cholesky(precision - np.eye(2)).T
    difference = s**2 * np.linalg.solve(weights.T, precision @ mean)
    bias = x - np.concatenate([difference, np.zeros(2)])
    return LinearModel(np.concatenate([weights, np.zeros((2, 2))]), bias, s, (2, 2, 1)), x


@pytest.fixture
def model():
    return untrained()


# --- brute force over all images


@pytest.mark.slow
@pytest.mark.parametrize("image_shape", [(2, 2, 1), (1, 2, 2), (4,)], ids=str)
def test_probabilities_of_all_images_sum_to_one(image_shape):
    found = evidence.log_evidence(untrained(image_shape), IMAGES.reshape(-1, *image_shape))
    assert np.exp(found.log_value).sum() == pytest.approx(1.0, abs=1e-5)  # ROUNDING


@pytest.mark.parametrize("observed", [(1, 0, 0, 0), (1, 0, 0, 1), (1, 1, 0, 1)], ids=str)
def test_evidence_of_some_pixels_is_the_sum_over_the_others(model, observed):
    observed = np.array(observed, bool)
    whole = evidence.log_evidence(model, IMAGES.reshape(-1, 2, 2, 1)).log_value
    agreeing = (IMAGES[:, observed] == IMAGES[5, observed]).all(axis=1)
    part = evidence.log_evidence(model, IMAGES[5].reshape(1, 2, 2, 1), observed.reshape(1, 2, 2, 1))
    np.testing.assert_allclose(part.log_value, [special.logsumexp(whole[agreeing])], **ROUNDING)


def test_evidence_of_nothing_is_the_prior_mass_of_the_plane(model):
    found = evidence.log_evidence(model, IMAGES[:1].reshape(1, 2, 2, 1), False)
    np.testing.assert_allclose(found.log_value, [0.0], **ROUNDING)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_probabilities_of_all_images_sum_to_one_in_a_line_and_in_space(latent_dim):
    vae = scaled_decoder(tiny(latent_dim=latent_dim, seed=1), (2, 2, 1), 1.5)
    found = evidence.log_evidence(vae, IMAGES.reshape(-1, 2, 2, 1))
    assert np.exp(found.log_value).sum() == pytest.approx(1.0, abs=1e-5)  # ROUNDING
    assert found.error.max() <= 1e-3


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_the_evaluation_is_the_closed_form_of_a_linear_model(latent_dim, rng):
    model = LinearModel(rng.normal(size=(4, latent_dim)), rng.normal(size=4), 0.3, (2, 2, 1))
    x = rng.uniform(size=(5, 4)).astype(np.float32)
    expected = [model.log_evidence(image) for image in x]
    found = evaluation.quadrature(model.vae, x.reshape(5, 2, 2, 1))
    np.testing.assert_allclose(found.quadrature.per_example, expected, rtol=0, atol=1e-4)  # float32 at these values
    assert found.quadrature_error <= 1e-3
    assert found.quadrature_failures == 0


# --- the error


def test_a_grid_that_agrees_by_chance_with_every_second_point_from_its_first_has_an_error():
    """The values on every second point are 1, 1.5, 0.5 and 1 times the integral, by where one begins."""
    grid = evidence._Grid([np.linspace(0, 3, 4)] * 2, np.log(np.tile([[1.0, 1.5], [0.5, 1.0]], (2, 2))))
    np.testing.assert_allclose(grid.log_integral(), [math.log(16), math.log(2)])


# --- other quadratures


def test_evidence_is_that_of_adaptive_quadrature(model):
    x, logits = IMAGES[6], mlp(model)

    def joint(second, first):
        log_likelihood = bernoulli_log_density(x, logits([first, second])).sum()
        return math.exp(log_likelihood - (first**2 + second**2) / 2) / (2 * math.pi)

    expected, error = integrate.dblquad(joint, -6, 6, -6, 6, epsabs=1e-6)
    assert error < 2e-6
    found = evidence.log_evidence(model, x.reshape(1, 2, 2, 1))
    # SciPy's error of 2e-6 relative to a p(x) of about 0.05. Beyond +-6 the prior has 4e-9 of its mass.
    np.testing.assert_allclose(found.log_value, [math.log(expected)], rtol=0, atol=5e-5)


@pytest.mark.parametrize("likelihood", LOG_DENSITIES)
@pytest.mark.parametrize("image_shape", [(3, 2, 1), (1, 2, 3)], ids=str)
def test_evidence_is_that_of_a_plain_grid(rng, likelihood, image_shape):
    x = rng.uniform(size=(4, *image_shape)).astype(np.float32)
    if likelihood == "bernoulli":
        x = x.round()
    observed = rng.uniform(size=x.shape) < 0.7
    vae = untrained(image_shape, likelihood=likelihood)
    expected = Plane(vae, x, likelihood).log_evidence(observed.reshape(4, -1))
    np.testing.assert_allclose(evidence.log_evidence(vae, x, observed).log_value, expected, **ROUNDING)


def test_evidence_of_a_deeper_decoder_is_that_of_a_plain_grid():
    vae = untrained(hidden_units=(8, 8))
    found = evidence.log_evidence(vae, IMAGES.reshape(-1, 2, 2, 1))
    np.testing.assert_allclose(found.log_value, Plane(vae, IMAGES).log_evidence(), **ROUNDING)


@pytest.mark.slow
def test_the_importance_weighted_bound_lies_below(model):
    images = np.repeat(IMAGES, 6, axis=0).reshape(-1, 2, 2, 1)
    bounds = evaluation.log_likelihood(model, images, samples=2).per_example.reshape(16, 6)
    # On average over all images: with so few samples the gap is many of its standard errors.
    gap = evidence.log_evidence(model, IMAGES.reshape(-1, 2, 2, 1)).log_value[:, None] - bounds
    assert gap.mean() > 4 * stats.sem(gap, axis=None)


@pytest.mark.slow
def test_the_importance_weighted_bound_of_many_samples_is_near(model):
    images = np.repeat(IMAGES, 8, axis=0).reshape(-1, 2, 2, 1)
    bounds = evaluation.log_likelihood(model, images, samples=2000).per_example.reshape(16, 8)
    # The mean weight of 8 independent bounds is unbiased, its log nearly so. Four standard errors; the seed is fixed.
    found = special.logsumexp(bounds, axis=1) - math.log(8)
    expected = evidence.log_evidence(model, IMAGES.reshape(-1, 2, 2, 1)).log_value
    np.testing.assert_array_less(np.abs(found - expected), 4 * stats.sem(bounds, axis=1))


# --- where the integrand lives: closed forms

PLACES = {  # mean, deviations, degrees by which their axes are turned
    "at the origin": ([0.0, 0.0], [0.5, 0.5], 0.0),
    "as wide as the prior": ([0.5, -1.0], [0.9, 0.95], 0.0),
    "narrow": ([0.3, -0.7], [0.05, 0.05], 0.0),
    "narrower than the first grid's cells": ([0.3, -0.7], [0.01, 0.01], 0.0),
    "much narrower": ([0.3, -0.7], [0.002, 0.002], 0.0),
    "an upright ridge": ([0.3, -0.7], [0.05, 0.8], 0.0),
    "a ridge": ([0.3, -0.7], [0.05, 0.8], 37.0),
    "a narrow ridge": ([0.3, -0.7], [0.02, 0.4], 120.0),
    "a ridge between the first grid's points": ([0.3, -0.7], [0.005, 0.2], 30.0),
    "a thread": ([0.11, -0.77], [0.003, 0.3], 45.0),
    "at the edge of the first grid": ([7.0, -7.0], [0.3, 0.3], 0.0),
    "beyond the first grid": ([9.0, -3.0], [0.3, 0.3], 0.0),
    "beyond the first grid, narrow": ([-3.0, 9.0], [0.02, 0.02], 0.0),
    "beyond the first grid, a ridge": ([-9.0, 1.0], [0.05, 0.5], 37.0),
    "beyond twice the first grid": ([-20.0, 5.0], [0.3, 0.5], 37.0),
    "near the widest plane": ([30.0, -40.0], [0.5, 0.3], 37.0),
}


@pytest.mark.parametrize(("mean", "sigmas", "degrees"), PLACES.values(), ids=PLACES)
def test_evidence_is_the_closed_form_wherever_the_posterior_lies(mean, sigmas, degrees):
    linear, x = gaussian_posterior(mean, sigmas, degrees)
    found = evidence.log_evidence(linear.vae, x.reshape(1, 2, 2, 1))
    expected = linear.log_evidence(x)
    # The stated error, and float32: the log densities at the maximum, near the value itself, have an eps of 1.2e-7 of
    # it; eight times that, for the sums.
    np.testing.assert_array_less(np.abs(found.log_value - expected), found.error + 1e-5 + 1e-6 * abs(expected))


@pytest.mark.parametrize(("mean", "sigmas", "degrees"), PLACES.values(), ids=PLACES)
def test_the_posteriors_of_the_test_above_have_the_stated_place_and_width(mean, sigmas, degrees):
    linear, x = gaussian_posterior(mean, sigmas, degrees)
    found = linear.posterior(x)
    # Float32 weights: a relative 6e-8, which the ridges' condition number of 400 and more makes 1e-4.
    np.testing.assert_allclose(found.mean, mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.sqrt(np.linalg.eigvalsh(found.covariance)), np.sort(sigmas), rtol=1e-3)


@pytest.mark.parametrize("observed", [(1, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 1)], ids=str)
def test_evidence_of_observed_pixels_is_the_closed_form(rng, observed):
    linear = LinearModel(rng.normal(size=(4, 2)), [0.2, 0.4, 0.6, 0.8], 0.3, (2, 2, 1))
    pixels, x = np.array(observed, bool), rng.uniform(size=4)
    found = evidence.log_evidence(linear.vae, x.reshape(1, 2, 2, 1), pixels.reshape(2, 2, 1))
    np.testing.assert_allclose(found.log_value, [linear.log_evidence(np.float32(x), pixels)], **ROUNDING)


def test_two_modes_are_both_counted():
    # One pixel, which z_1 alone decides: logit 12 [1 + tanh(2 z_1 - 6) - tanh(2 z_1 + 6)], 12 beyond +-4 and -12
    # between +-2.
    vae = kvae.VAE(2, hidden_units=(2,), seed=1)
    vae.build((None, 1, 1, 1))
    weights = [[[2.0, 2.0], [0.0, 0.0]], [-6.0, 6.0], [[12.0], [-12.0]], [12.0]]
    vae.decoder.set_weights([np.array(weight) for weight in weights])

    def joint(first):
        logit = 12 * (1 + math.tanh(2 * first - 6) - math.tanh(2 * first + 6))
        return special.expit(logit) * stats.norm.pdf(first)

    expected, _ = integrate.quad(joint, -8, 8, points=[-3, 3])
    found = evidence.log_evidence(vae, np.ones((1, 1, 1, 1)))
    np.testing.assert_allclose(found.log_value, [math.log(expected)], rtol=0, atol=1e-3)  # the default tolerance


# --- other priors: closed forms

WEIGHTS = [[0.5, 0.1], [-0.2, 0.4], [0.3, 0.3], [0.0, -0.6]]
PRIORS = {  # centre and scale
    "wide": ([0.0, 0.0], 30.0),
    "far from 0": ([200.0, -90.0], 1.0),
    "narrow and far from 0": ([9.0, 1.0], 0.01),
    "wide and far from 0": ([100.0, 0.0], 10.0),
}


def under_another_prior(centre, scale, **options):
    """A linear model whose pixels are about 0.5 under its prior."""
    bias = 0.5 - np.array(WEIGHTS) @ centre
    return LinearModel(WEIGHTS, bias, 0.3, (2, 2, 1), centre, scale, **options)


@pytest.mark.parametrize(("centre", "scale"), PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("observed", [(1, 1, 1, 1), (0, 1, 1, 0)], ids=str)
def test_evidence_is_the_closed_form_for_every_prior(rng, centre, scale, observed):
    linear, pixels, x = under_another_prior(centre, scale), np.array(observed, bool), rng.uniform(size=4)
    found = evidence.log_evidence(linear.vae, x.reshape(1, 2, 2, 1), pixels.reshape(2, 2, 1))
    # Float32 rounds coordinates near 200, and W z + b there, by up to 8e-6, at random from point to point.
    np.testing.assert_allclose(found.log_value, [linear.log_evidence(np.float32(x), pixels)], rtol=0, atol=2e-5)
    assert found.error[0] <= 1e-3


@pytest.mark.parametrize(("centre", "scale"), PRIORS.values(), ids=PRIORS)
def test_evidence_of_nothing_is_the_mass_of_any_prior(centre, scale):
    found = evidence.log_evidence(under_another_prior(centre, scale).vae, np.zeros((1, 2, 2, 1)), False)
    np.testing.assert_allclose(found.log_value, [0.0], **ROUNDING)


@pytest.mark.parametrize(("away", "inside"), [(45.0, True), (70.0, False)])
def test_the_widest_plane_is_eight_times_the_region_of_the_prior(away, inside):
    # The posterior of a prior of scale 1/8 about (40, 0), seen from its centre, in units of the scale: its region spans
    # +-7.4 or so, the widest plane +-59.
    scale = 0.125
    linear, x = gaussian_posterior([away, 0.0], [0.5, 0.5])
    bias = linear.bias - linear.weights @ [40.0 / scale, 0.0]
    moved = LinearModel(linear.weights / scale, bias, linear.s, (2, 2, 1), [40.0, 0.0], scale)
    found = evidence.log_evidence(moved.vae, x.reshape(1, 2, 2, 1))
    assert np.isfinite(found.error[0]) == inside


@pytest.fixture(scope="module")
def with_condition():
    """A linear model with the prior N(centre + c, 2^2 I), c being the condition."""
    return under_another_prior([3.0, -5.0], 2.0, condition_shape=())


def test_every_image_has_the_evidence_of_its_condition(with_condition, rng):
    x, conditions = rng.uniform(size=(3, 4)).astype(np.float32), np.array([0.0, 20.0, -4.0])
    found = evidence.log_evidence(with_condition.vae, x.reshape(3, 2, 2, 1), condition=conditions)
    given = with_condition.weights, with_condition.bias, 0.3, (2, 2, 1)
    expected = [
        LinearModel(*given, with_condition.centre + c, 2.0).log_evidence(image)
        for image, c in zip(x, conditions, strict=True)
    ]
    # Float32: log densities of some tens or hundreds of nats, whose eps is 1.2e-7 of them; eight times that.
    np.testing.assert_array_less(np.abs(found.log_value - expected), found.error + 1e-5 + 1e-6 * np.abs(expected))


def test_a_model_with_a_condition_needs_it(with_condition):
    with pytest.raises(UserError, match=r"Expected a condition \[\d\] for this model. Received none"):
        evidence.log_evidence(with_condition.vae, np.zeros((3, 2, 2, 1)))


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_conditions_is_refused(with_condition, count):
    with pytest.raises(UserError, match="condition"):
        evidence.log_evidence(with_condition.vae, np.zeros((3, 2, 2, 1)), condition=np.zeros(count))


# --- the stated error


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-5])
def test_error_is_within_the_tolerance(tolerance):
    linear, x = gaussian_posterior([0.3, -0.7], [0.02, 0.4], 37.0)
    found = evidence.log_evidence(linear.vae, x.reshape(1, 2, 2, 1), tolerance=tolerance)
    assert found.error[0] <= tolerance


def test_error_is_stated_where_the_finest_grid_does_not_reach_the_tolerance(monkeypatch):
    monkeypatch.setitem(evidence.MAX_POINTS, 2, 257)
    # No grid reaches 0: that on every second point always differs by some rounding.
    linear, x = gaussian_posterior([0.3, -0.7], [0.02, 0.4], 37.0)
    found = evidence.log_evidence(linear.vae, x.reshape(1, 2, 2, 1), tolerance=0.0)
    assert 0 < found.error[0] < 1e-4


@pytest.mark.parametrize("mean", [[80.0, 0.0], [0.0, -57.0]], ids=str)
def test_error_is_infinite_where_the_posterior_lies_outside_the_widest_plane(mean):
    linear, x = gaussian_posterior(mean, [0.5, 0.5])
    found = evidence.log_evidence(linear.vae, x.reshape(1, 2, 2, 1))
    assert found.error[0] == math.inf


def test_a_smaller_error_may_be_asked_for(model):
    assert evidence.log_evidence(model, IMAGES.reshape(-1, 2, 2, 1), tolerance=1e-5).error.max() < 1e-5


def test_the_evaluation_counts_the_images_that_are_not_exact():
    linear, x = gaussian_posterior([62.0, 0.0], [0.5, 0.5])  # outside the widest plane
    inside = np.array([0.0, *x[1:]])  # of a posterior around (33, 0)
    found = evaluation.quadrature(linear.vae, np.stack([inside, x, inside]).reshape(3, 2, 2, 1))
    assert found.quadrature_failures == pytest.approx(1 / 3)
    assert found.quadrature_error <= 1e-3
    assert found.quadrature.per_example[0] == found.quadrature.per_example[2]


# --- what comes in and goes out


def test_there_is_one_value_and_one_error_per_image(model):
    found = evidence.log_evidence(model, IMAGES[:3].reshape(3, 2, 2, 1))
    assert (found.log_value.shape, found.error.shape) == ((3,), (3,))


@pytest.mark.slow
def test_each_image_has_the_evidence_it_has_alone(model):
    images = IMAGES[5:9].reshape(-1, 2, 2, 1)
    alone = [evidence.log_evidence(model, image[None]).log_value[0] for image in images]
    np.testing.assert_allclose(evidence.log_evidence(model, images).log_value, alone, **ROUNDING)


def test_one_mask_serves_all_images(model):
    images, mask = IMAGES[9:11].reshape(-1, 2, 2, 1), np.array([[[True], [False]], [[True], [True]]])
    each = evidence.log_evidence(model, images, np.broadcast_to(mask, images.shape))
    assert np.array_equal(evidence.log_evidence(model, images, mask).log_value, each.log_value)


def test_every_image_has_its_own_mask(model):
    images, masks = IMAGES[3:5].reshape(2, 2, 2, 1), np.array([[1, 0, 0, 0], [1, 1, 1, 0]], bool)
    found = evidence.log_evidence(model, images, masks.reshape(2, 2, 2, 1)).log_value
    np.testing.assert_allclose(found, Plane(model, images).log_evidence(masks), **ROUNDING)


@pytest.mark.parametrize("value", [math.nan, math.inf, 255.0])
def test_missing_pixels_are_not_looked_at(model, value):
    mask = np.array([[[True], [False]], [[True], [True]]])
    images = IMAGES[9:11].reshape(-1, 2, 2, 1)
    found = evidence.log_evidence(model, np.where(mask, images, value), mask).log_value
    assert np.array_equal(found, evidence.log_evidence(model, images, mask).log_value)


def test_evidence_does_not_depend_on_the_chunk_size(monkeypatch, model):
    images = IMAGES[:2].reshape(2, 2, 2, 1)
    expected = evidence.log_evidence(model, images).log_value
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 4 * 1000)
    np.testing.assert_allclose(evidence.log_evidence(model, images).log_value, expected, **ROUNDING)


@pytest.mark.parametrize("latent_dim", [4, 50])
def test_another_latent_size_is_refused(latent_dim):
    vae = kvae.VAE(latent_dim, hidden_units=(8,), seed=1)
    vae.build((None, 2, 2, 1))
    with pytest.raises(UserError, match=f"with 1 to 3 latent dimensions.*This model has {latent_dim}"):
        evidence.log_evidence(vae, IMAGES.reshape(-1, 2, 2, 1))


@pytest.mark.parametrize("shape", [(2, 2, 1), (1, 4), (1, 1, 1, 1), (1, 2, 2, 3), (0, 2, 2, 1)], ids=str)
def test_images_of_another_shape_are_refused(model, shape):
    with pytest.raises(UserError, match=r"Expected (x of shape|images with a batch axis|at least one image)"):
        evidence.log_evidence(model, np.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 3), (3, 2, 1), (4, 2, 2, 1)], ids=str)
def test_a_mask_of_another_shape_is_refused(model, shape):
    with pytest.raises(UserError, match=r"mask of shape \(2, 2, 1\) or \(3, 2, 2, 1\)"):
        evidence.log_evidence(model, np.zeros((3, 2, 2, 1)), np.ones(shape, bool))


@pytest.mark.parametrize("value", [math.nan, -0.1, 255])
def test_invalid_observed_pixels_are_refused(model, value):
    with pytest.raises(UserError, match=r"pixels in \[0, 1\]"):
        evidence.log_evidence(model, np.full((1, 2, 2, 1), value))


def test_a_model_that_was_not_built_is_refused():
    with pytest.raises(UserError, match="build"):
        evidence.log_evidence(kvae.VAE(2), IMAGES.reshape(-1, 2, 2, 1))


# --- the integrand


@pytest.mark.parametrize("observed", [(1, 1, 1, 1), (1, 0, 0, 1), (0, 0, 0, 0)], ids=str)
def test_log_joint_sums_the_prior_and_the_observed_pixels(model, rng, observed):
    z, x, observed = rng.normal(size=(50, 2)), IMAGES[9], np.array(observed, bool)
    expected = bernoulli_log_density(x, mlp(model)(z))[:, observed].sum(axis=1)
    integrand = evidence.Integrand(model, x.reshape(2, 2, 1), observed.reshape(2, 2, 1))
    found = integrand.log_value(np.float32(z))
    np.testing.assert_allclose(found, expected + stats.norm.logpdf(z).sum(axis=1), **ROUNDING)


@pytest.mark.parametrize("chunk", [7, 25, 50])
def test_log_joint_is_the_same_in_pieces(monkeypatch, model, rng, chunk):
    z = np.float32(rng.normal(size=(50, 2)))
    integrand = evidence.Integrand(model, IMAGES[9].reshape(2, 2, 1), np.array([[[1], [0]], [[1], [1]]], bool))
    expected = integrand.log_value(z)
    assert (expected.shape, expected.dtype) == ((50,), np.float64)
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 4 * chunk)
    np.testing.assert_allclose(integrand.log_value(z), expected, **ROUNDING)


@pytest.mark.parametrize("value", [math.nan, math.inf, 255.0])
def test_log_joint_does_not_look_at_missing_pixels(model, rng, value):
    z, observed = np.float32(rng.normal(size=(50, 2))), np.array([[[1], [0]], [[1], [1]]], bool)
    x = IMAGES[9].reshape(2, 2, 1)
    found = evidence.Integrand(model, np.where(observed, x, value), observed).log_value(z)
    assert np.array_equal(found, evidence.Integrand(model, x, observed).log_value(z))
