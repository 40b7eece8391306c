"""Baselines and the exact score that a completion is compared with."""

import math

import numpy as np
import pytest
from completion_cases import ROUNDING, TOP, assert_within_standard_errors, two_numbers, untrained
from oracles import LinearGaussian, continuous_bernoulli_mean
from scipy import optimize, special, stats

import kvae
from kvae import completion
from kvae.completion import masked_images as images_
from kvae.completion import masks
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_pixel_mean_baseline_is_that_of_independent_pixels_with_laplaces_rule(vae, x, rng, count):
    mean = rng.integers(0, count + 1, size=(4, 4, 1)) / count
    mean[2, :2, 0], mean[3, :2, 0] = 0, 1  # pixels that were never on, or always
    on = (count * mean + 1) / (count + 2)
    expected = np.where(TOP, 0, x * np.log(on) + (1 - x) * np.log(1 - on)).sum(axis=(1, 2, 3))
    found = completion.pixel_mean_baseline(vae, x, TOP, mean, count)
    # Means near 1 are float32, eps 6e-8: relative to 1 - mean of 2e-4 at least, 3e-4 a pixel.
    np.testing.assert_allclose(found, expected, rtol=0, atol=8 * 3e-4)


def test_pixel_mean_baseline_of_a_gaussian_likelihood(rng):
    vae = untrained((3, 4, 1), likelihood="gaussian")
    x, mean = rng.uniform(size=(5, 3, 4, 1)), rng.uniform(size=(3, 4, 1))
    mask = masks.named("left", (3, 4, 1))
    expected = np.where(mask, 0, stats.norm.logpdf(x, (100 * mean + 1) / 102)).sum(axis=(1, 2, 3))
    found = completion.pixel_mean_baseline(vae, x, mask, mean, 100)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)  # float32


def test_pixel_mean_baseline_of_a_continuous_bernoulli_likelihood(rng):
    def lacking_mean(logit, mean):
        return continuous_bernoulli_mean(logit) - mean

    vae = untrained((3, 4, 1), likelihood="continuous_bernoulli")
    x, mean = rng.uniform(size=(5, 3, 4, 1)), rng.uniform(0.1, 0.9, size=(3, 4, 1))
    mask = masks.named("left", (3, 4, 1))
    smoothed = ((100 * mean + 1) / 102).ravel()
    logits = np.reshape([optimize.brentq(lacking_mean, -50, 50, args=(value,)) for value in smoothed], mean.shape)
    # The density by its definition: exp(l x) / integral of exp(l x) over [0, 1].
    expected = np.where(mask, 0, logits * x - np.log(np.expm1(logits) / logits)).sum(axis=(1, 2, 3))
    found = completion.pixel_mean_baseline(vae, x, mask, mean, 100)
    # The mean is a float32, 6e-8, and so the logit known to 1e-6 or so near the ends, where the mean hardly changes.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.002, 0.998, 1.0])
def test_pixel_mean_baseline_of_a_continuous_bernoulli_near_0_and_1(value):
    vae = untrained((2, 2, 1), likelihood="continuous_bernoulli")
    x, mask = np.full((1, 2, 2, 1), value), masks.named("top", (2, 2, 1))
    smoothed = (1000 * value + 1) / 1002
    # Far out the density is exponential, of mean 1 / rate.
    edge = min(smoothed, 1 - smoothed)
    expected = 2 * (-math.log(edge) - min(value, 1 - value) / edge)
    found = completion.pixel_mean_baseline(vae, x, mask, np.full((2, 2, 1), value), 1000)
    np.testing.assert_allclose(found, [expected], rtol=1e-3)


@pytest.mark.parametrize("mean", [np.zeros((4, 4)), np.zeros((3, 4, 1)), np.full((4, 4, 1), 1.5), 0.5], ids=np.shape)
def test_pixel_mean_baseline_refuses_what_is_no_mean(vae, x, mean):
    with pytest.raises(UserError, match="Expected pixel_mean"):
        completion.pixel_mean_baseline(vae, x, TOP, mean, 10)


def any_real():
    """x ~ N(z decoded, 1): one number per pixel, but pixels are any real numbers."""
    likelihood = LinearGaussian(1.0)
    likelihood.support = (-math.inf, math.inf, False)
    vae = kvae.VAE(2, hidden_units=(8,), likelihood=likelihood, seed=1)
    vae.build((None, 4, 4, 1))
    return vae


@pytest.mark.parametrize("make", [two_numbers, any_real])
def test_pixel_mean_baseline_needs_a_likelihood_that_means_determine(x, make):
    with pytest.raises(UserError, match=r"likelihood of pixels in \[0, 1\] that one mean per pixel determines"):
        completion.pixel_mean_baseline(make(), x, TOP, PIXEL_MEAN, 10)


@pytest.mark.slow
def test_zero_filled_baseline_is_the_mean_density_under_the_encoders_guess(case):
    seen = np.where(case.mask, case.x, 0)
    log_q = case.plane.log_q(*case.vae.encode(seen)) + case.plane.log_cell
    density = case.plane.log_joint(~case.flat_mask) - case.plane.log_prior
    expected = special.logsumexp(log_q + density, axis=1)
    # At most the error of draws of that q alone, and twice it where the mixture gives it less than half of them.
    relative_variance = np.expm1(special.logsumexp(log_q + 2 * density, axis=1) - 2 * expected)
    found = completion.zero_filled_baseline(case.vae, case.x, case.mask, samples=2000)
    assert_within_standard_errors(found, expected, 1.5 * np.sqrt(relative_variance / 2000) + 1e-3)


def test_zero_filled_baseline_does_not_depend_on_batches_and_chunks(monkeypatch, vae, x):
    expected = completion.zero_filled_baseline(vae, x, TOP, samples=50)
    monkeypatch.setattr(images_, "BATCH", 4)
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 16 * 30)
    np.testing.assert_allclose(completion.zero_filled_baseline(vae, x, TOP, samples=50), expected, **ROUNDING)


def test_zero_filled_baseline_depends_on_its_seed(vae, x):
    first, again, other = (completion.zero_filled_baseline(vae, x, TOP, samples=50, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.isin(other, first).any()


def test_quadrature_score_is_the_difference_of_evidences(case):
    expected = case.plane.log_evidence() - case.plane.log_evidence(case.flat_mask)
    # Two integrals, each with a stated error of at most 1e-3 nats, and for such smooth ones far better.
    found = completion.quadrature_score(case.vae, case.x, case.mask)
    np.testing.assert_allclose(found.log_value, expected, rtol=0, atol=1e-4)
    assert found.error.max() <= 2e-3


def test_quadrature_score_needs_at_most_three_latent_dimensions():
    vae = untrained(latent_dim=4)
    with pytest.raises(UserError, match="1 to 3 latent dimensions"):
        completion.quadrature_score(vae, np.zeros((1, 4, 4, 1)), "top")


PIXEL_MEAN = np.full((4, 4, 1), 0.3)
