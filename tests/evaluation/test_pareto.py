"""The shape of the tail of importance weights, against SciPy's generalized Pareto distribution."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from kvae.evaluation import pareto


@pytest.mark.parametrize("shape", [-0.3, 0.05, 0.5, 1.2])
def test_the_fit_is_that_of_scipy_by_maximum_likelihood(rng, shape):
    values = np.sort(stats.genpareto.rvs(shape, scale=2.0, size=(2000, 3), random_state=rng), axis=0)
    found = np.array(pareto.fit_generalized_pareto(values))

    def minus_log_likelihood(parameters, column):
        return -stats.genpareto.logpdf(column, parameters[0], scale=math.exp(parameters[1])).sum()

    fitted = [optimize.minimize(minus_log_likelihood, (shape, 0.7), (column,), "Nelder-Mead").x for column in values.T]
    expected = np.array([(k, math.exp(log_sigma)) for k, log_sigma in fitted]).T
    # A posterior mean and a maximum differ by a fraction of the standard error, 0.03 for 2,000 values.
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("shape", [0.3, 0.7, 1.1])
def test_k_is_the_shape_of_pareto_weights_under_the_prior_of_ten_values(shape):
    draws = 20_000
    size = math.ceil(3 * math.sqrt(draws))
    quantiles = (np.arange(draws) + 0.5) / draws
    log_weights = stats.genpareto.ppf(quantiles, shape, scale=3.0)[:, None]
    found = pareto.tail_shape(np.log(np.random.default_rng(0).permutation(log_weights)))
    # The excess over a threshold of a generalized Pareto variable has the same shape. The fit to 425 quantiles, whose
    # largest is cut off, differs from it by less than 0.05.
    assert found[0] == pytest.approx((size * shape + 10 * 0.5) / (size + 10), abs=0.05)


def test_the_prior_pulls_k_to_a_half(rng):
    log_weights = np.log(stats.genpareto.rvs(2.0, size=(100, 4), random_state=rng))
    tail = np.sort(np.exp(log_weights), axis=0)[-21:]
    raw, _ = pareto.fit_generalized_pareto(tail[1:] - tail[0])
    np.testing.assert_allclose(pareto.tail_shape(log_weights), (20 * raw + 5) / 30, rtol=1e-9)


def test_a_factor_and_the_order_of_the_weights_change_nothing(rng):
    log_weights = rng.normal(scale=3, size=(500, 4))
    expected = pareto.tail_shape(log_weights)
    np.testing.assert_allclose(pareto.tail_shape(rng.permutation(log_weights) - 800), expected, rtol=1e-6)
    np.testing.assert_allclose(pareto.tail_shape(log_weights[:, 2:]), expected[2:], rtol=1e-12)


def test_equal_weights_have_no_tail_and_weights_of_zero_no_shape():
    assert pareto.tail_shape(np.zeros((100, 1)))[0] == 0
    assert np.isnan(pareto.tail_shape(np.full((100, 1), -np.inf))[0])


@pytest.mark.parametrize(("draws", "expected"), [(100, 0.5), (1000, 2 / 3), (10_000, 0.7), (2154, 0.7)])
def test_the_largest_reliable_k(draws, expected):
    assert pareto.threshold(draws) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("draws", "expected"), [(100, 20), (225, 45), (1000, 95)])
def test_the_size_of_the_tail(draws, expected):
    assert pareto.tail_size(draws) == expected
