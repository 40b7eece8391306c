"""`kvae.objectives` against arrays small enough to sum by hand, and SciPy."""

import json
import math

import numpy as np
import pytest
from scipy import special

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import objectives


def draws(**fields):
    """Two draws for each of three images, in numbers that are exact in float32."""
    values = {
        "z": tf.zeros([2, 3, 2]),
        "log_likelihood": -tf.constant([[6.0, 22.0, 38.0], [54.0, 70.0, 86.0]]),
        "log_prior": -tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "log_q": -tf.constant([[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]]),
        "kl": tf.constant([3.0, 7.0, 11.0]),
        "kl_per_dimension": None,
        "q": None,
    }
    return objectives.Draws(**{**values, **fields})


# The terms of the ELBO


def test_reconstruction_is_the_mean_over_draws():
    assert draws().reconstruction.numpy().tolist() == [30.0, 46.0, 62.0]


def test_elbo_is_minus_reconstruction_minus_kl():
    assert draws().elbo.numpy().tolist() == [-33.0, -53.0, -73.0]


def test_log_weights_are_those_of_importance_sampling():
    assert draws().log_weights.numpy().tolist() == [[-6.5, -23.0, -39.5], [-56.0, -72.5, -89.0]]


# The ELBO


@pytest.mark.parametrize(
    ("beta", "expected"), [(0.0, [30.0, 46.0, 62.0]), (1.0, [33.0, 53.0, 73.0]), (4.0, [42.0, 74.0, 106.0])]
)
def test_the_loss_weighs_the_kl_by_beta(beta, expected):
    assert objectives.ELBO(beta).loss(draws(), 0).numpy().tolist() == expected


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 1.0), (10, 2.0), (1000, 2.0)])
def test_a_schedule_decides_beta_at_every_step(step, weight):
    elbo = objectives.ELBO(objectives.LinearWarmup(2.0, steps=10))
    assert elbo.loss(draws(), step).numpy().tolist() == [30 + 3 * weight, 46 + 7 * weight, 62 + 11 * weight]


def test_evaluation_takes_the_final_value_of_a_schedule_that_has_one():
    elbo = objectives.ELBO(objectives.LinearWarmup(2.0, steps=10), samples=3, kl="sampled")
    ended = elbo.at_end()
    assert (ended.beta, ended.samples, ended.kl) == (2.0, 3, "sampled")
    assert callable(elbo.beta)


def test_evaluation_takes_another_schedule_as_it_stands():
    elbo = objectives.ELBO(keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5))
    assert float(elbo.at_end().loss(draws(), 20)[0]) == pytest.approx(30 + 3 * 0.25)


@pytest.mark.parametrize(
    "beta",
    [0.5, objectives.LinearWarmup(2.0, steps=7, start=0.1), keras.optimizers.schedules.PolynomialDecay(1.0, 10)],
    ids=["number", "warm-up", "of Keras"],
)
def test_an_elbo_is_what_it_was_after_serialization(beta):
    elbo = objectives.ELBO(beta, samples=4, kl="sampled")
    config = keras.saving.serialize_keras_object(elbo)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert (again.samples, again.kl) == (4, "sampled")
    for step in (0, 3, 50):
        assert float(again.loss(draws(), step)[1]) == pytest.approx(float(elbo.loss(draws(), step)[1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objectives.ELBO(-1.0), "beta"),
        (lambda: objectives.ELBO(samples=0), "samples"),
        (lambda: objectives.ELBO(kl="analitic"), "Did you mean 'analytic'"),
        (lambda: objectives.get("elb"), "Did you mean 'elbo'"),
        (lambda: objectives.get(3), "Expected one of: .*elbo"),
    ],
)
def test_invalid_objectives_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_error_of_an_objective_without_a_loss_says_so():
    with pytest.raises(NotImplementedError, match=r"Objective needs a method loss\(draws, step\)"):
        objectives.Objective().loss(draws(), 0)


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


@pytest.mark.parametrize("steps", [0, -3, 2.5, math.inf, math.nan])
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


# The cyclical schedule


@pytest.mark.parametrize(
    ("arguments", "step", "expected"),
    [
        ((1.0, 8), 0, 0.0),
        ((1.0, 8), 1, 0.25),
        ((1.0, 8), 4, 1.0),
        ((1.0, 8), 7, 1.0),
        ((1.0, 8), 8, 0.0),
        ((1.0, 8), 8_000_000_002, 0.5),  # more steps than float32 has whole numbers
        ((4.0, 8, 1.0), 6, 3.0),
        ((4.0, 8, 0.25, 2.0), 1, 3.0),
        ((4.0, 8, 0.25, 2.0), 10, 4.0),
    ],
)
def test_cyclical_annealing_table(arguments, step, expected):
    schedule = objectives.CyclicalAnnealing(*arguments)
    assert float(schedule(tf.constant(step, tf.int64))) == expected  # all are binary fractions, exact in float32


def test_cyclical_annealing_is_the_formula_of_the_paper():
    """beta_t = f(tau), tau = mod(t - 1, T / M) / (T / M), f(tau) = min(tau / R, 1), with t from 1."""
    total, cycles, ratio = 100, 4, 0.7
    schedule = objectives.CyclicalAnnealing(1.0, total // cycles, ratio)
    for t in range(1, total + 1):
        tau = ((t - 1) % (total / cycles)) / (total / cycles)
        assert float(schedule(t - 1)) == pytest.approx(tau / ratio if tau <= ratio else 1.0, rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"period": 0}, {"period": 2.5}, {"ratio": 0.0}, {"ratio": 1.5}, {"start": -1.0}, {"beta": math.nan}]
)
def test_cyclical_annealing_checks_its_options(options):
    with pytest.raises(UserError, match=f"Expected {next(iter(options))} to be"):
        objectives.CyclicalAnnealing(**{"beta": 1.0, "period": 8, **options})


def test_evaluation_takes_the_end_of_a_cycle():
    elbo = objectives.ELBO({"kind": "cyclical", "beta": 2.0, "period": 10})
    assert elbo.loss(draws(), 10).numpy().tolist() == [30.0, 46.0, 62.0]
    assert elbo.at_end().loss(draws(), 10).numpy().tolist() == [36.0, 60.0, 84.0]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(elbo))
    assert again.beta.get_config() == {"beta": 2.0, "period": 10, "ratio": 0.5, "start": 0.0}
