"""`kvae.objectives` against arrays small enough to sum by hand, and SciPy."""

import math

import numpy as np
import pytest
from scipy import special

from kvae import objectives
from kvae.errors import UserError
from kvae.tensorflow import keras, tf

# Two draws of three examples of 2 x 2 x 1 pixels, and of two latent dimensions.
LOG_LIKELIHOOD = -tf.reshape(tf.range(24.0), (2, 3, 2, 2, 1))
KL = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def terms():
    return objectives.Terms(tf.constant([10.0, 20.0]), tf.constant([1.0, 2.0]))


# Sums and means: small whole numbers, exact in float32


@pytest.mark.parametrize(("event_rank", "expected"), [(1, [[1.0, 5.0], [9.0, 13.0]]), (2, [6.0, 22.0]), (3, 28.0)])
def test_sum_event_sums_the_last_axes(event_rank, expected):
    assert np.array_equal(objectives.sum_event(tf.reshape(tf.range(8.0), (2, 2, 2)), event_rank), expected)


def test_reconstruction_is_the_sum_over_pixels_and_the_mean_over_draws():
    # Pixels of example 0: 0 + 1 + 2 + 3 = 6 in the first draw, 12 + 13 + 14 + 15 = 54 in the second.
    assert objectives.elbo_terms(LOG_LIKELIHOOD, KL).reconstruction.numpy().tolist() == [30.0, 46.0, 62.0]


def test_reconstruction_sums_images_of_any_rank():
    flat = tf.reshape(LOG_LIKELIHOOD, (2, 3, 4))
    assert objectives.elbo_terms(flat, KL).reconstruction.numpy().tolist() == [30.0, 46.0, 62.0]


def test_analytic_kl_is_the_sum_over_dimensions():
    assert objectives.elbo_terms(LOG_LIKELIHOOD, KL).kl.numpy().tolist() == [3.0, 7.0, 11.0]


def test_sampled_kl_is_the_sum_over_dimensions_and_the_mean_over_draws():
    draws = tf.stack([KL, KL + 1.0])  # sums 3, 7, 11 and 5, 9, 13
    assert objectives.elbo_terms(LOG_LIKELIHOOD, draws).kl.numpy().tolist() == [4.0, 8.0, 12.0]


def test_elbo_is_minus_reconstruction_minus_kl():
    assert terms().elbo.numpy().tolist() == [-11.0, -22.0]


@pytest.mark.parametrize(("beta", "expected"), [(0.0, [10.0, 20.0]), (1.0, [11.0, 22.0]), (4.0, [14.0, 28.0])])
def test_beta_loss_weighs_the_kl(beta, expected):
    assert objectives.beta_loss(terms(), beta).numpy().tolist() == expected


# The importance-weighted bound


@pytest.mark.parametrize("offset", [0.0, -1e4, 1e4])
def test_importance_weighted_bound_is_the_log_of_the_mean_weight(rng, offset):
    log_weights = offset + rng.normal(scale=5.0, size=(50, 3))
    expected = special.logsumexp(log_weights, axis=0) - math.log(50)
    # float64; a few eps of numbers up to 1e4.
    np.testing.assert_allclose(objectives.importance_weighted_bound(tf.constant(log_weights)), expected, rtol=1e-14)


def test_importance_weighted_bound_of_one_draw_is_its_log_weight():
    log_weights = tf.constant([[-90.0, 0.5, 90.0]])
    assert np.array_equal(objectives.importance_weighted_bound(log_weights), log_weights[0])


def test_importance_weighted_bound_of_equal_weights_is_their_log():
    # float32; log 8 is added and subtracted, eps 2.4e-7 at 3.
    np.testing.assert_allclose(objectives.importance_weighted_bound(tf.fill((8, 2), -1.0)), [-1.0, -1.0], atol=5e-7)


# The warm-up of beta


@pytest.mark.parametrize(
    ("beta", "steps", "start", "step", "expected"),
    [
        (1.0, 100, 0.0, 0, 0.0),
        (1.0, 100, 0.0, 25, 0.25),
        (1.0, 100, 0.0, 100, 1.0),
        (1.0, 100, 0.0, 10**9, 1.0),
        (4.0, 8, 0.0, 2, 1.0),
        (4.0, 8, 2.0, 0, 2.0),
        (4.0, 8, 2.0, 4, 3.0),
        (1.0, 8, 3.0, 4, 2.0),
        (1.0, 1, 0.0, 0, 0.0),
        (1.0, 1, 0.0, 1, 1.0),
    ],
)
def test_linear_warmup_table(beta, steps, start, step, expected):
    schedule = objectives.LinearWarmup(beta, steps, start)
    assert float(schedule(tf.constant(step, tf.int64))) == expected  # all are binary fractions, exact in float32


def test_linear_warmup_comes_back_from_its_config():
    config = objectives.LinearWarmup(2.0, 30, 0.5).get_config()
    assert objectives.LinearWarmup.from_config(config).get_config() == {"beta": 2.0, "steps": 30, "start": 0.5}


def test_linear_warmup_comes_back_from_keras_serialization():
    serialized = keras.saving.serialize_keras_object(objectives.LinearWarmup(2.0, 30, 0.5))
    assert keras.saving.deserialize_keras_object(serialized).get_config() == {"beta": 2.0, "steps": 30, "start": 0.5}


@pytest.mark.parametrize("steps", [0, -3])
def test_linear_warmup_needs_a_step(steps):
    with pytest.raises(UserError, match=f"at least 1 step.*steps={steps}"):
        objectives.LinearWarmup(1.0, steps)


@pytest.mark.parametrize("arguments", [{"beta": -1.0}, {"beta": 1.0, "start": -1.0}])
def test_linear_warmup_checks_both_ends(arguments):
    with pytest.raises(UserError, match=r"at least 0\. Received -1\.0"):
        objectives.LinearWarmup(steps=10, **arguments)


@pytest.mark.parametrize("beta", [-0.1, math.inf, math.nan, True, None, "1", [1.0]])
def test_check_beta_refuses_what_is_no_finite_number_of_at_least_zero(beta):
    with pytest.raises(UserError, match="finite number of at least 0"):
        objectives.check_beta(beta)


@pytest.mark.parametrize("beta", [0, 2, 0.5, np.float64(0.5), np.float32(0.5), np.int64(2)])
def test_check_beta_returns_a_number_as_a_float(beta):
    checked = objectives.check_beta(beta)
    assert (type(checked), checked) == (float, beta)
