"""Completion with a prior other than the standard normal, which a condition moves."""

import math

import numpy as np
import pytest
from completion_cases import ROUNDING, TOP, assert_within_standard_errors, repeated
from scipy import special, stats

from kvae import completion
from kvae.completion import masked_images as images_
from kvae.internal.errors import UserError


@pytest.mark.slow
def test_q_is_the_posterior_under_the_prior_of_the_condition(moved, moved_completed):
    expected = moved.each("posterior", moved.pixels)
    deviation = np.sqrt([np.diag(part.covariance) for part in expected])
    found = moved_completed.inferred
    # As under the standard normal: a hundredth of a deviation is what 100 steps of Adam leave.
    np.testing.assert_allclose((found.mean - [part.mean for part in expected]) / deviation, 0, atol=0.02)
    np.testing.assert_allclose(np.exp(found.q.log_var / 2) / deviation, 1, atol=0.02)


def test_default_start_is_a_draw_of_the_prior_of_the_condition(moved, moved_completed):
    # Deviations of 2 about a mean of its own: the best of 256 draws lies within 3 of them.
    away = moved_completed.inferred.start.mean - (moved.centre + moved.conditions[:, None])
    np.testing.assert_array_less(np.abs(away), 6)
    assert not np.array_equal(away[0], away[1])


def test_score_is_the_closed_form_under_the_prior_of_the_condition(moved, moved_completed):
    score = moved_completed.score
    assert_within_standard_errors(score.log_density, moved.log_missing(), score.standard_error)
    assert score.standard_error.max() < 0.15  # as above


def test_quadrature_score_is_the_closed_form_under_the_prior_of_the_condition(moved):
    found = completion.quadrature_score(moved.vae, moved.x, moved.observed, moved.conditions)
    np.testing.assert_allclose(found.log_value, moved.log_missing(), rtol=0, atol=1e-4)  # as above


def test_means_are_the_closed_form_under_the_prior_of_the_condition(moved, moved_completed):
    for i, expected in enumerate(moved.each("predictive", moved.pixels)):
        deviation = np.sqrt(np.diag(expected.covariance) - 0.3**2)
        standard_error = deviation / np.sqrt(moved_completed.score.effective_samples[i])
        found = moved_completed.means[i].ravel()[~moved.pixels]
        assert_within_standard_errors(found, expected.mean, standard_error)


@pytest.mark.slow
def test_conditions_stay_with_their_images_in_batches(monkeypatch, moved, moved_completed):
    monkeypatch.setattr(images_, "BATCH", 2)
    found = completion.complete(moved.vae, moved.x, moved.observed, condition=moved.conditions)
    np.testing.assert_allclose(found.inferred.mean, moved_completed.inferred.mean, **ROUNDING)
    np.testing.assert_allclose(found.means, moved_completed.means, **ROUNDING)
    np.testing.assert_allclose(found.draws, moved_completed.draws, **ROUNDING)
    np.testing.assert_allclose(found.score.log_density, moved_completed.score.log_density, **ROUNDING)


def test_zero_filled_baseline_is_the_closed_form_under_the_prior_of_the_condition(moved):
    given = repeated(moved.x, 20), moved.observed
    estimates = completion.zero_filled_baseline(moved.vae, *given, condition=np.repeat(moved.conditions, 20))
    q = moved.vae.encode(np.where(moved.observed, moved.x, 0), moved.conditions)
    w, bias = moved.models[0].weights[~moved.pixels], moved.models[0].bias[~moved.pixels]
    expected = [
        stats.multivariate_normal(w @ mean + bias, w @ np.diag(np.exp(log_var)) @ w.T + 0.3**2 * np.eye(2)).logpdf(flat)
        for mean, log_var, flat in zip(*np.float64(q), moved.flat[:, ~moved.pixels], strict=True)
    ]
    estimates = estimates.reshape(3, 20)
    # The mean of 20 unbiased estimates, whose logarithms have nearly the same error as long as it is small.
    found, standard_error = special.logsumexp(estimates, axis=1) - math.log(20), stats.sem(estimates, axis=1)
    assert standard_error.max() < 0.1
    assert_within_standard_errors(found, expected, standard_error)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_another_number_of_conditions_is_refused(moved, count):
    with pytest.raises(UserError, match=rf"Expected a condition \[3\]\. Received \[{count}\]"):
        completion.complete(moved.vae, moved.x, moved.observed, condition=np.zeros(count))


def test_a_model_with_a_condition_needs_it(moved):
    with pytest.raises(UserError, match=r"Expected a condition \[\d\] for this model. Received none"):
        completion.complete(moved.vae, moved.x, moved.observed)


@pytest.mark.parametrize("shape", [(3, 1), (3, 2)], ids=str)
def test_a_condition_of_another_shape_is_refused(moved, shape):
    with pytest.raises(UserError, match=rf"Expected a condition \[3\]\. Received \[3, {shape[1]}\]"):
        completion.complete(moved.vae, moved.x, moved.observed, condition=np.zeros(shape))


def test_a_model_without_a_condition_refuses_one(vae, x):
    with pytest.raises(UserError, match="Expected no condition"):
        completion.complete(vae, x, TOP, condition=np.zeros(6))
