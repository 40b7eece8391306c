"""`kvae.evaluation.bounds`: several importance-weighted bounds of the same draws, and their errors."""

import math

import numpy as np
import pytest
from oracles import LinearModel
from scipy import special
from small_models import scaled_decoder, tiny

from kvae import evaluation
from kvae.internal import batch_sizes
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model.posteriors import Gaussian
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

SIZES = (1, 3, 20)


@pytest.fixture
def vae():
    return scaled_decoder(tiny(seed=1), (2, 2, 1), 1.5)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (7, 2, 2, 1)).astype(np.float32)


def log_weights(vae, x, samples, seed=0):
    """[K, B], from the draws of the model one by one."""
    noise = Keyed(seed, Stream.BOUND, np.arange(len(x), dtype=np.int32))
    each = [vae.draw(x, noise.numbered(np.array([k], np.int32)), 1).log_weights[0].numpy() for k in range(samples)]
    return np.array(each, np.float64)


@pytest.mark.slow
def test_each_bound_is_that_of_the_first_draws(vae, x):
    found = evaluation.bounds(vae, x, sample_sizes=SIZES)
    weights = log_weights(vae, x, max(SIZES))
    for size, bound in zip(SIZES, found.bounds, strict=True):
        expected = special.logsumexp(weights[:size], axis=0) - math.log(size)
        np.testing.assert_allclose(bound.per_example, expected, rtol=0, atol=2e-5)  # sums of some nats in float32
        alone = evaluation.log_likelihood(vae, x, samples=size)
        np.testing.assert_allclose(bound.per_example, alone.per_example, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_the_effective_number_of_draws_and_the_monte_carlo_error_are_those_of_the_weights(vae, x):
    found = evaluation.bounds(vae, x, sample_sizes=[20])
    weights = np.exp(log_weights(vae, x, 20))
    effective = weights.sum(axis=0) ** 2 / np.square(weights).sum(axis=0)
    np.testing.assert_allclose(found.effective_samples.per_example, effective, rtol=1e-4)
    # Of a mean of 20 draws, divided by the mean squared.
    variance = weights.var(axis=0, ddof=1) / weights.mean(axis=0) ** 2 / 20
    assert found.bounds_monte_carlo_error == pytest.approx(math.sqrt(variance.sum()) / len(x), rel=1e-3)


def test_the_monte_carlo_error_of_a_single_draw_is_not_known(vae, x):
    assert evaluation.bounds(vae, x, sample_sizes=[1]).bounds_monte_carlo_error is None
    result = evaluation.evaluate(vae, x, only=["bounds(sample_sizes=[1])"])
    assert "bounds" in result
    assert "bounds_monte_carlo_error" not in result


@pytest.mark.slow
def test_the_monte_carlo_error_is_the_deviation_over_seeds(vae, x):
    each = [evaluation.bounds(vae, x, sample_sizes=[200], seed=seed) for seed in range(60)]
    stated = np.mean([found.bounds_monte_carlo_error for found in each])
    deviation = np.std([found.bounds[0].mean for found in each], ddof=1)
    assert 0.7 < deviation / stated < 1.3  # the deviation of 60 has a relative error of 0.09


@pytest.mark.slow
def test_all_bounds_of_an_exact_posterior_are_the_evidence(rng, monkeypatch):
    model = LinearModel(rng.normal(size=(4, 1)), rng.normal(size=4), 0.3, (2, 2, 1))
    x = rng.uniform(size=(3, 4)).astype(np.float32)
    posteriors = [model.posterior(image) for image in x]
    means, variances = (np.array(part, np.float32).reshape(3, 1) for part in zip(*posteriors, strict=True))
    monkeypatch.setattr(model.vae, "encode", lambda x, condition=None: Gaussian(means, np.log(variances)))
    found = evaluation.bounds(model.vae, x.reshape(3, 2, 2, 1), sample_sizes=SIZES)
    for bound in found.bounds:
        np.testing.assert_allclose(bound.per_example, [model.log_evidence(image) for image in x], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.effective_samples.per_example, 20, rtol=1e-3)
    assert found.bounds_monte_carlo_error < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("images_at_once", [1, 3, 1000])
def test_they_depend_neither_on_the_chunks_nor_on_the_batches(vae, x, monkeypatch, images_at_once):
    expected = evaluation.bounds(vae, x, sample_sizes=SIZES)
    monkeypatch.setattr(batch_sizes, "VALUES_AT_ONCE", 4 * 4 * images_at_once)
    data = tf.data.Dataset.from_tensor_slices(x).batch(5)
    found = evaluation.bounds(vae, data, sample_sizes=SIZES[::-1])
    for bound, wanted in zip(found.bounds[::-1], expected.bounds, strict=True):
        np.testing.assert_allclose(bound.per_example, wanted.per_example, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found.effective_samples.per_example, expected.effective_samples.per_example, rtol=1e-4)


@pytest.mark.slow
def test_they_are_an_evaluation_by_name(vae, x):
    result = evaluation.evaluate(vae, x[:2], only=["bounds"])
    assert result["protocol"]["bound_sizes"] == (1, 5, 50, 5000)
    assert len(result["bounds"]) == len(result["bounds_standard_error"]) == 4
    assert result["bounds"][0] < result["bounds"][-1]


@pytest.mark.parametrize("sizes", [[], [0], [1.5], [-3, 5], 5, "50", None])
def test_other_numbers_of_draws_are_refused(vae, x, sizes):
    with pytest.raises(UserError, match="sample_sizes"):
        evaluation.bounds(vae, x, sample_sizes=sizes)


@pytest.mark.slow
def test_the_bounds_stand_in_the_order_of_their_numbers_of_draws(vae, x):
    rising, other = (evaluation.bounds(vae, x, sample_sizes=sizes) for sizes in ([1, 5], [5, 1, 5]))
    assert [each.mean for each in other.bounds] == [rising.bounds[place].mean for place in (1, 0, 1)]
    assert other.bounds_monte_carlo_error == rising.bounds_monte_carlo_error
