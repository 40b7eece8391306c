"""Means and draws of missing pixels against closed forms and a grid."""

import math

import numpy as np
import pytest
from completion_cases import SHORT, TOP, assert_within_standard_errors, repeated, same_q_for_all

from kvae import completion


@pytest.mark.slow
def test_means_are_the_closed_form_of_a_linear_model(linear):
    found = completion.complete(linear.vae, linear.x, linear.observed)
    for i, flat in enumerate(linear.flat):
        expected = linear.model.predictive(flat, linear.pixels)
        # Deviation of the decoded z alone, without the pixel's own noise, over the root of the effective samples.
        deviation = np.sqrt(np.diag(expected.covariance) - linear.model.s**2)
        standard_error = deviation / np.sqrt(found.score.effective_samples[i])
        assert_within_standard_errors(found.means[i].ravel()[~linear.pixels], expected.mean, standard_error)


@pytest.mark.slow
def test_means_are_those_of_the_grid(case, completed):
    posterior = case.plane.posterior(case.flat_mask)
    expected = posterior @ case.plane.means
    variance = posterior @ case.plane.means**2 - expected**2
    standard_error = np.sqrt(variance / completed.score.effective_samples[:, None])
    found = completed.means.reshape(len(expected), -1)
    assert_within_standard_errors(found[~case.flat_mask], expected[~case.flat_mask], standard_error[~case.flat_mask])


def test_means_keep_the_observed_pixels(case, completed):
    assert np.array_equal(completed.means[case.mask], case.x[case.mask])


def test_draws_keep_the_observed_pixels(case, completed):
    for draw in completed.draws:
        assert np.array_equal(draw[case.mask], case.x[case.mask])


def test_draws_are_images_of_the_likelihood(case, completed):
    assert (completed.draws.shape, completed.draws.dtype) == ((3, *case.x.shape), np.float32)
    if case.likelihood == "bernoulli":
        assert np.isin(completed.draws, [0, 1]).all()
    else:
        assert ((completed.draws >= 0) & (completed.draws <= 1)).all()


@pytest.fixture(scope="module")
def many_draws(linear):
    """1000 draws of the missing pixels of the first image, `[1000, 4]`, 20 at each of 50 places."""
    found = completion.complete(linear.vae, repeated(linear.x[:1], 50), linear.observed, draws=20)
    return found.draws[:, :, ~linear.observed].reshape(1000, -1)


@pytest.mark.slow
def test_draws_have_the_predictive_mean(linear, many_draws):
    expected = linear.model.predictive(linear.flat[0], linear.pixels)
    # 20 of 1000 weighted points at each place: nearly independent.
    standard_error = np.sqrt(np.diag(expected.covariance) / 1000)
    assert_within_standard_errors(many_draws.mean(axis=0), expected.mean, standard_error)


def test_draws_have_the_predictive_covariance(linear, many_draws):
    expected = linear.model.predictive(linear.flat[0], linear.pixels)
    white = np.linalg.solve(np.linalg.cholesky(expected.covariance), (many_draws - expected.mean).T)
    # Of 1000 standard normal vectors, an element has a standard error of at most sqrt(2 / 1000).
    np.testing.assert_allclose(white @ white.T / 1000, np.eye(4), atol=4 * math.sqrt(2 / 1000))


def test_missing_pixels_of_one_draw_belong_together(linear):
    # Were z drawn anew for every pixel, the missing pixels would not be correlated: the test above would fail.
    covariance = linear.model.predictive(linear.flat[0], linear.pixels).covariance
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs(correlation - np.eye(4)).max() > 4 * math.sqrt(2 / 1000)


@pytest.mark.slow
def test_draws_are_of_the_posterior_of_their_image_for_every_proposal(vae, x, plane, inferred):
    # Proposed is the prior for all, so that only the weights of each image make its draws.
    prior = inferred._replace(q=same_q_for_all(300, 0.0, 0.0))
    found = completion.complete(vae, repeated(x, 50), TOP, inferred=prior, samples=300, draws=10)
    expected = (plane.posterior(TOP.ravel()) @ plane.means)[:, ~TOP.ravel()]
    share = found.draws[:, :, ~TOP].reshape(10, 6, 50, -1).mean(axis=(0, 2))
    # Ten of 300 weighted points at each of 50 places: nearly independent pixels.
    assert_within_standard_errors(share, expected, np.sqrt(expected * (1 - expected) / 500))


def test_draws_of_one_image_differ(completed):
    assert not np.array_equal(completed.draws[0], completed.draws[1])


def test_number_of_draws_is_that_asked_for(vae, x, inferred):
    assert completion.complete(vae, x, TOP, inferred=inferred, draws=5).draws.shape == (5, 6, 4, 4, 1)


def test_observed_pixels_are_returned_as_a_mask_of_every_image(vae, x):
    found = completion.complete(vae, x, TOP[..., 0], **SHORT)
    assert np.array_equal(found.observed, np.broadcast_to(TOP, x.shape))
