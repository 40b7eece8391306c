"""Scores of missing pixels against closed forms and a grid, and the importance estimate behind them."""

import math

import numpy as np
import pytest
from completion_cases import SHORT, TOP, assert_within_standard_errors, repeated, same_q_for_all
from scipy import stats

from kvae import completion

# --- complete: scores


def test_score_is_the_closed_form_of_a_linear_model(linear):
    score = completion.complete(linear.vae, linear.x, linear.observed).score
    expected = [
        stats.multivariate_normal(*linear.model.predictive(flat, linear.pixels)).logpdf(flat[~linear.pixels])
        for flat in linear.flat
    ]
    assert_within_standard_errors(score.log_density, expected, score.standard_error)


@pytest.mark.slow
def test_score_is_that_of_the_grid(case, completed):
    expected = case.plane.log_evidence() - case.plane.log_evidence(case.flat_mask)
    assert_within_standard_errors(completed.score.log_density, expected, completed.score.standard_error)


def test_standard_error_of_a_score_is_small(completed):
    # 500 draws of a proposal near the posterior.
    assert completed.score.standard_error.max() < 0.15


@pytest.fixture(scope="module")
def many_scores(vae, x):
    """50 independent scores of every image, and their standard errors: `[6, 50]` each."""
    found = completion.complete(vae, repeated(x, 50), TOP, samples=300, draws=1, **SHORT).score
    return found.log_density.reshape(6, 50), found.standard_error.reshape(6, 50)


@pytest.mark.slow
def test_stated_standard_error_is_the_spread_over_independent_estimates(many_scores):
    scores, errors = many_scores
    ratio = scores.std(axis=1, ddof=1) / errors.mean(axis=1)
    # The spread of 50 values is known to 1 / sqrt(2 * 49) = 10 %: four of those for an image, and for the mean of 6
    # four of 4 %.
    np.testing.assert_allclose(ratio, 1, atol=0.4)
    assert ratio.mean() == pytest.approx(1, abs=0.16)


@pytest.mark.slow
def test_spread_over_seeds_is_the_stated_standard_error_too(vae, x, inferred):
    found = [
        completion.complete(vae, x, TOP, inferred=inferred, samples=300, draws=1, seed=seed).score for seed in range(30)
    ]
    spread = np.std([score.log_density for score in found], axis=0, ddof=1)
    ratio = spread / np.mean([score.standard_error for score in found], axis=0)
    # As above; 30 values give 1 / sqrt(2 * 29) = 13 %, and the mean of 6 images 5 %.
    np.testing.assert_allclose(ratio, 1, atol=0.52)
    assert ratio.mean() == pytest.approx(1, abs=0.2)


def test_mean_of_independent_scores_is_that_of_the_grid(many_scores, plane):
    scores, _ = many_scores
    expected = plane.log_evidence() - plane.log_evidence(TOP.ravel())
    # The log of a ratio is biased by half its relative variance, 0.06^2 / 2 at most: less than the tolerance of
    # 4 * 0.06 / sqrt(50) by far.
    assert_within_standard_errors(scores.mean(axis=1), expected, stats.sem(scores, axis=1))


def test_more_samples_halve_the_standard_error(vae, x, inferred):
    few, many = (
        completion.complete(vae, x, TOP, inferred=inferred, draws=1, samples=samples).score.standard_error.mean()
        for samples in (500, 2000)
    )
    # Both are estimates, each to some per cent.
    assert few / many == pytest.approx(2, rel=0.2)


def test_a_q_that_misses_the_posterior_costs_effective_samples_but_adds_no_bias(vae, x, plane, inferred):
    far = inferred._replace(q=same_q_for_all(6, 6.0, -6.0))
    score = completion.complete(vae, x, TOP, inferred=far, draws=1).score
    expected = plane.log_evidence() - plane.log_evidence(TOP.ravel())
    assert_within_standard_errors(score.log_density, expected, score.standard_error)
    # The draws of that q, nine in twenty, are worth nothing.
    assert score.effective_samples.max() <= 0.55 * 500


def test_effective_samples_are_among_the_samples(completed):
    effective = completed.score.effective_samples
    assert (effective >= 1).all()
    assert (effective <= 500).all()


# --- importance_estimate


@pytest.fixture
def weighted(rng):
    """log w and log f of 200 draws of 3 images."""
    return rng.normal(scale=2.0, size=(200, 3)), rng.normal(-50.0, 3.0, size=(200, 3))


def test_estimate_is_the_weighted_mean(weighted):
    w, f = (np.exp(part) for part in weighted)
    expected = np.log((w * f).sum(axis=0) / w.sum(axis=0))
    np.testing.assert_allclose(completion.importance_estimate(*weighted).log_density, expected, rtol=1e-12)  # float64


def test_standard_error_is_that_of_the_delta_method(weighted):
    w, f = (np.exp(part) for part in weighted)
    weights = w / w.sum(axis=0)
    mean = (weights * f).sum(axis=0)
    expected = np.sqrt((weights**2 * (f - mean) ** 2).sum(axis=0)) / mean
    np.testing.assert_allclose(
        completion.importance_estimate(*weighted).standard_error, expected, rtol=1e-10
    )  # float64


def test_effective_samples_are_the_fewer_of_both_sums(weighted):
    w, f = (np.exp(part) for part in weighted)
    sizes = [part.sum(axis=0) ** 2 / (part**2).sum(axis=0) for part in (w, w * f)]
    np.testing.assert_allclose(completion.importance_estimate(*weighted).effective_samples, np.min(sizes, axis=0))


def test_estimate_over_all_values_of_a_discrete_latent_is_exact():
    # Four values, each proposed once, so w = p(observed, z): p(missing | observed) = sum p(missing, observed, z) / sum.
    prior, observed, missing = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 0.125, 1.0], [0.2, 0.4, 0.6, 0.8]])
    expected = math.fsum(prior * observed * missing) / math.fsum(prior * observed)
    found = completion.importance_estimate(np.log(prior * observed)[:, None], np.log(missing)[:, None])
    assert found.log_density[0] == pytest.approx(math.log(expected), rel=1e-14)


def test_equal_weights_and_densities_are_known_exactly():
    found = completion.importance_estimate(np.full((8, 1), -3.0), np.full((8, 1), -70.0))
    assert found.log_density[0] == pytest.approx(-70.0, rel=1e-15)
    assert found.standard_error[0] == pytest.approx(0.0, abs=1e-12)
    assert found.effective_samples[0] == pytest.approx(8.0, rel=1e-12)


def test_one_weight_that_outweighs_all_is_one_effective_sample():
    log_weights = np.array([[0.0], [-100.0], [-200.0]])
    found = completion.importance_estimate(log_weights, np.array([[-5.0], [-6.0], [-7.0]]))
    assert found.log_density[0] == pytest.approx(-5.0, abs=1e-12)
    assert found.effective_samples[0] == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_estimate_does_not_depend_on_the_scale_of_the_weights(weighted, offset):
    log_weights, log_densities = weighted
    expected = completion.importance_estimate(log_weights, log_densities)
    found = completion.importance_estimate(log_weights + offset, log_densities)
    for part, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-9)  # eps of float64 at 1e4 is 2e-12


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_densities_may_have_any_scale(weighted, offset):
    log_weights, log_densities = weighted
    expected = completion.importance_estimate(log_weights, log_densities)
    found = completion.importance_estimate(log_weights, log_densities + offset)
    np.testing.assert_allclose(found.log_density, expected.log_density + offset, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, rtol=1e-9)


def test_estimate_is_that_of_a_gaussian_integral(rng):
    # z ~ N(0, 1), x_observed | z ~ N(z, 1), x_missing | z ~ N(z, 1), all observed at 1; the proposal is N(0, 2^2).
    # p(missing | observed) = N(1; 1/2, 1 + 1/2).
    z = rng.normal(scale=2.0, size=(1000, 50))
    log_weights = stats.norm.logpdf(z) + stats.norm.logpdf(1, z) - stats.norm.logpdf(z, scale=2.0)
    found = completion.importance_estimate(log_weights, stats.norm.logpdf(1, z))
    expected = stats.norm.logpdf(1, 0.5, math.sqrt(1.5))
    assert_within_standard_errors(found.log_density.mean(), expected, stats.sem(found.log_density))
    # 50 estimates know their spread to 10 %: four of those.
    assert found.log_density.std() / found.standard_error.mean() == pytest.approx(1, abs=0.4)
