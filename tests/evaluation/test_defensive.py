"""`kvae.evaluation.defensive` against exact log p(x), and what it calls unreliable."""

import math

import numpy as np
import pytest
from oracles import LinearModel, Plane
from own_parts import GumbelPosterior
from scipy import special, stats
from small_models import scaled_decoder, tiny

from kvae import evaluation
from kvae.evaluation import defensive_estimate, pareto
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model.posteriors import Distribution

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def vae():
    return scaled_decoder(tiny(seed=1), (3, 2, 1), 3.0)


@pytest.fixture(scope="module")
def x(vae):
    return vae.generate(7, seed=3).numpy()


@pytest.fixture(scope="module")
def found(vae, x):
    return evaluation.defensive(vae, x)


@pytest.mark.slow
def test_it_is_log_p_of_a_grid(vae, x, found):
    expected = Plane(vae, x).log_evidence()
    errors = np.sqrt(1 / found.defensive_effective_samples.per_example - 1 / 1000)
    # Four Monte-Carlo errors, which are about 0.03 nats.
    assert (np.abs(found.defensive.per_example - expected) < 4 * errors).all()
    assert errors.max() < 0.1


@pytest.mark.slow
def test_an_encoder_in_the_wrong_place_does_not_matter(rng):
    linear = LinearModel(rng.normal(size=(6, 2)), np.full(6, 0.5), 0.1, (3, 2, 1))
    x = rng.uniform(size=(5, 6)).astype(np.float32)
    # q = N(5, 0.01^2) for every image: the plain bound is more than a hundred nats too low.
    linear.vae.encoder.set_weights([np.zeros((6, 2)), np.full(2, 5.0), np.zeros((6, 2)), np.full(2, -9.0)])
    expected = np.array([linear.log_evidence(image) for image in x])
    found = evaluation.defensive(linear.vae, x.reshape(5, 3, 2, 1))
    errors = np.sqrt(1 / found.defensive_effective_samples.per_example - 1 / 1000)
    assert (np.abs(found.defensive.per_example - expected) < 4 * errors).all()
    np.testing.assert_allclose(found.defensive.per_example, expected, rtol=0, atol=0.4)
    assert evaluation.log_likelihood(linear.vae, x.reshape(5, 3, 2, 1), samples=100).mean < expected.mean() - 100


@pytest.mark.slow
def test_its_exponential_has_the_expectation_p_of_x_and_itself_a_smaller_one(vae, x):
    few = [evaluation.defensive(vae, np.repeat(x[:2], 60, axis=0), samples=100, steps=1, seed=seed) for seed in (1, 2)]
    estimates = np.concatenate([each.defensive.per_example.reshape(2, 60) for each in few], axis=1)
    expected = Plane(vae, x[:2]).log_evidence()
    ratios = np.exp(estimates - expected[:, None])
    # Four standard errors of the mean of 120 independent ratios.
    np.testing.assert_array_less(np.abs(ratios.mean(axis=1) - 1), 4 * stats.sem(ratios, axis=1))
    assert (estimates.mean(axis=1) < expected + stats.sem(estimates, axis=1)).all()


def test_the_summary_is_that_of_the_weights(rng):
    log_weights = rng.normal(scale=2, size=(300, 4))
    estimate, effective, shape = defensive_estimate.summary(log_weights)
    np.testing.assert_allclose(estimate, special.logsumexp(log_weights, axis=0) - math.log(300), rtol=1e-12)
    w = np.exp(log_weights)
    np.testing.assert_allclose(effective, w.sum(axis=0) ** 2 / np.square(w).sum(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(shape, pareto.tail_shape(log_weights))


def test_an_estimate_is_unreliable_with_a_heavy_tail_or_few_effective_draws_or_no_weights():
    effective, shape = np.array([500, 500, 9, 10, np.nan]), np.array([0.66, 0.67, 0.1, 0.1, np.nan])
    assert defensive_estimate.is_unreliable(effective, shape, 1000).tolist() == [False, True, True, False, True]


@pytest.mark.slow
def test_the_share_of_unreliable_images_is_that_of_the_numbers(vae, x):
    found = evaluation.defensive(vae, x, samples=100, steps=1)
    numbers = found.defensive_effective_samples.per_example, found.pareto_k.per_example
    assert found.unreliable == defensive_estimate.is_unreliable(*numbers, 100).mean()


def test_the_monte_carlo_error_is_that_of_the_effective_draws(found):
    variance = (1 / found.defensive_effective_samples.per_example - 1 / 1000) * 1000 / 999  # that of weights, unbiased
    assert found.defensive_monte_carlo_error == pytest.approx(math.sqrt(variance.sum()) / 7, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("images_at_once", [1, 40])
def test_it_depends_neither_on_the_chunks_nor_on_the_batches(vae, x, found, monkeypatch, images_at_once):
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 6 * images_at_once)
    again = evaluation.defensive(vae, tf.data.Dataset.from_tensor_slices(x).batch(4))
    # The fits take 30 steps in float32, so the proposals differ by rounding that has grown.
    np.testing.assert_allclose(again.defensive.per_example, found.defensive.per_example, rtol=0, atol=1e-3)


@pytest.mark.parametrize("samples", [100, 333, 1000])
def test_the_shares_of_the_draws(samples):
    encoder, *fits, prior = defensive_estimate.counts_of_components(samples)
    assert encoder + sum(fits) + prior == samples
    expected = np.array([0.15, 0.16, 0.16, 0.16, 0.09, 0.09, 0.09, 0.1])
    np.testing.assert_allclose(np.array([encoder, *fits, prior]) / samples, expected, atol=2 / samples * 2)


def test_a_posterior_without_a_density_is_refused(x):
    class WithoutDensity(GumbelPosterior):
        def distribution(self, parameters):
            q = super().distribution(parameters)
            q.__class__ = type("Draws", (type(q),), {"log_prob": Distribution.log_prob})
            return q

    model = tiny(posterior=WithoutDensity())
    model.build((None, 3, 2, 1))
    for function in (evaluation.defensive, evaluation.gaps):
        with pytest.raises(UserError, match="density is known"):
            function(model, x)


@pytest.mark.parametrize("options", [{"samples": 99}, {"steps": 0}, {"seed": -1}])
def test_other_numbers_are_refused(vae, x, options):
    with pytest.raises(UserError, match=next(iter(options))):
        evaluation.defensive(vae, x, **options)
