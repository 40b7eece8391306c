"""The Gaussian likelihood with its fixed or learned variance, and half the squared error."""

import math

import numpy as np
import pytest
from likelihood_cases import LIKELIHOODS
from scipy import special, stats

import kvae
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import likelihoods

# The Gaussian's variance


def test_learned_variance_is_trainable():
    assert [weight.name for weight in likelihoods.Gaussian("learned").trainable_variables] == ["log_variance"]


def test_fixed_variance_is_not_trainable():
    assert likelihoods.Gaussian(0.5).trainable_variables == []


@pytest.mark.parametrize(("variance", "start"), [("learned", 0.1), (0.5, 0.5), (2, 2.0)])
def test_variance_starts_where_it_was_put(variance, start):
    # One rounding of the logarithm and one of the exponential, float32.
    assert math.exp(likelihoods.Gaussian(variance).log_variance.numpy()) == pytest.approx(start, rel=5e-7)


def test_a_learned_variance_starts_at_its_start_and_is_loaded_with_it():
    likelihood = likelihoods.Gaussian("learned", start=0.02)
    assert math.exp(likelihood.log_variance.numpy()) == pytest.approx(0.02, rel=5e-7)
    config = likelihood.get_config()
    assert likelihoods.Gaussian.from_config(config).start == 0.02
    del config["start"]  # a file of an earlier version
    assert likelihoods.Gaussian.from_config(config).start == 0.1


@pytest.mark.parametrize("start", [0, -1.0, math.nan, math.inf, "learned", None, True])
def test_gaussian_refuses_an_invalid_start(start):
    with pytest.raises(UserError, match="positive start of a learned variance"):
        likelihoods.Gaussian("learned", start=start)


def test_a_rate_makes_the_logarithm_of_the_variance_move_so_many_times_as_far():
    one, ten = likelihoods.Gaussian("learned", start=0.02), likelihoods.Gaussian("learned", start=0.02, rate=10)
    for likelihood in (one, ten):
        (weight,) = likelihood.trainable_variables
        weight.assign_sub(0.125)
    moved = [float(likelihood.log_variance) - math.log(0.02) for likelihood in (one, ten)]
    assert moved == pytest.approx([-0.125, -1.25], abs=1e-5)  # float32 eps of 4
    again = likelihoods.Gaussian.from_config(ten.get_config())
    again.set_weights(ten.get_weights())
    assert float(again.log_variance) == float(ten.log_variance)
    config = ten.get_config()
    del config["rate"]  # a file of an earlier version
    assert likelihoods.Gaussian.from_config(config).rate == 1.0


@pytest.mark.slow
def test_a_rate_brings_a_variance_to_its_best_value_in_a_short_training():
    x, logits = tf.constant([[0.4, 0.6]]), tf.zeros((1, 2))  # the best variance is 0.1^2
    found = []
    for rate in (1, 10):
        likelihood = likelihoods.Gaussian("learned", rate=rate)
        optimizer = keras.optimizers.Adam(2e-3)
        for _ in range(200):
            with tf.GradientTape() as tape:
                loss = -likelihood.log_prob(x, logits)
            optimizer.apply(tape.gradient(loss, likelihood.trainable_variables), likelihood.trainable_variables)
        found.append(math.exp(float(likelihood.log_variance)))
    assert found[0] > 0.05
    assert found[1] == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("rate", [0, -1.0, math.nan, math.inf, "fast", None, True])
def test_gaussian_refuses_an_invalid_rate(rate):
    with pytest.raises(UserError, match="positive rate of a learned variance"):
        likelihoods.Gaussian("learned", rate=rate)


def test_learned_variance_gets_the_gradient_of_the_closed_form():
    likelihood = likelihoods.Gaussian("learned")
    with tf.GradientTape() as tape:
        log_prob = likelihood.log_prob(tf.constant([[0.0, 1.0]]), tf.zeros((1, 2)))
    (actual,) = tape.gradient(log_prob, likelihood.trainable_variables)
    # d/dv -1/2 [v + (x - 1/2)^2 exp(-v)], twice, at v = log 0.1: (0.25 / 0.1 - 1) / 2 * 2. A few float32 eps.
    assert float(actual) == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize("variance", [0, -1.0, math.nan, math.inf, "learnt", None, True, [0.1]])
def test_gaussian_refuses_an_invalid_variance(variance):
    with pytest.raises(UserError, match='positive variance or "learned"'):
        likelihoods.Gaussian(variance)


@pytest.mark.parametrize("variance", [np.float64(0.5), np.float32(0.5), np.int64(2)])
def test_gaussian_takes_numpy_numbers(variance):
    assert likelihoods.Gaussian(variance).get_config()["variance"] == variance


# Half the squared error


@pytest.fixture
def grey(rng):
    """Pixels and logits, also extreme ones."""
    logits = np.float32([*rng.normal(scale=3.0, size=95), -1e4, -50.0, 0.0, 50.0, 1e4])
    return np.float32(rng.uniform(size=100)), logits


def test_squared_error_log_prob_of_pixels_is_half_the_squared_error(grey):
    x, logits = grey
    expected = -((x - special.expit(np.float64(logits))) ** 2) / 2
    # Values up to 1/2 of float32 parts up to 1.
    np.testing.assert_allclose(likelihoods.SquaredError().log_prob_of_pixels(x, logits), expected, rtol=0, atol=1e-7)


def test_squared_error_lacks_the_constant_of_the_gaussian_alone(grey):
    squared_error, gaussian = (
        likelihood.log_prob_of_pixels(*grey) for likelihood in (likelihoods.SquaredError(), likelihoods.Gaussian(1.0))
    )
    np.testing.assert_allclose(squared_error - gaussian, -stats.norm.logpdf(0.0), rtol=0, atol=3e-7)  # float32 near 1


def test_squared_error_has_the_gradient_of_the_gaussian(grey):
    x, logits = grey[0], tf.constant(grey[1])
    gradients = []
    for likelihood in (likelihoods.SquaredError(), likelihoods.Gaussian(1.0)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(likelihood.log_prob_of_pixels(x, logits))
        gradients.append(tape.gradient(total, logits))
    assert np.isfinite(gradients[0]).all()
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-7)  # a few roundings of numbers up to 1/4


def test_squared_error_gradient_is_that_of_the_closed_form(grey):
    x, logits = grey[0], tf.constant(grey[1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(likelihoods.SquaredError().log_prob_of_pixels(x, logits))
    p = special.expit(np.float64(grey[1]))
    # d/dl -1/2 (x - p)^2 = (x - p) p (1 - p), float32.
    np.testing.assert_allclose(tape.gradient(total, logits), (x - p) * p * (1 - p), rtol=0, atol=1e-7)


def test_squared_error_has_nothing_to_train():
    assert likelihoods.SquaredError().trainable_variables == []


def test_squared_error_config_has_no_variance():
    assert not {"variance", "start"} & likelihoods.SquaredError().get_config().keys()


@pytest.mark.parametrize(("name", "make"), LIKELIHOODS.items(), ids=LIKELIHOODS)
def test_only_the_squared_error_is_no_log_density(name, make):
    assert make().normalized == (name != "squared_error")


def test_squared_error_survives_saving_in_a_model(tmp_path, rng):
    vae = kvae.VAE(2, hidden_units=(4,), likelihood="squared_error", seed=0)
    x = np.float32(rng.uniform(size=(3, 5, 4, 1)))
    before = vae.elbo(x, seed=0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert type(loaded.likelihood) is likelihoods.SquaredError
    np.testing.assert_array_equal(loaded.elbo(x, seed=0), before)
