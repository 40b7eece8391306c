"""Configuration and names of likelihoods, and the errors of one that a user wrote wrongly."""

import pytest
from likelihood_cases import each

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import likelihoods

# Configuration and names


@each
def test_config_comes_back(make):
    config = make().get_config()
    assert type(make()).from_config(config).get_config() == config


@each
def test_keras_serialization_comes_back(make):
    likelihood = make()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(likelihood))
    assert (type(copy), copy.get_config()) == (type(likelihood), likelihood.get_config())


@pytest.mark.parametrize(("name", "kind"), likelihoods.LIKELIHOODS.items())
def test_get_makes_a_likelihood_of_a_name(name, kind):
    assert type(likelihoods.get(name)) is kind


def test_get_returns_a_likelihood_as_it_is():
    likelihood = likelihoods.Gaussian(0.5)
    assert likelihoods.get(likelihood) is likelihood


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("bernouli", "bernoulli"),
        ("gausian", "gaussian"),
        ("continuous-bernoulli", "continuous_bern"),
        ("squared-error", "squared_error"),
    ],
)
def test_get_suggests_the_nearest_name(name, near):
    names = "bernoulli, categorical, continuous_bernoulli, discretized_logistic, gaussian, gaussian_per_pixel, laplace"
    with pytest.raises(UserError, match=f"Unknown likelihood '{name}'. Did you mean '{near}.*Expected one of: {names}"):
        likelihoods.get(name)


@pytest.mark.parametrize("other", [None, 1, likelihoods.Bernoulli, ["bernoulli"], keras.layers.Dense(1)])
def test_get_refuses_what_is_neither_name_nor_likelihood(other):
    with pytest.raises(UserError) as refusal:
        likelihoods.get(other)
    assert str(refusal.value) == (
        f"Expected likelihood= to be one of {', '.join(likelihoods.LIKELIHOODS)}, or a "
        f"kvae.model.likelihoods.base.Likelihood. Received {other!r}."
    )


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_the_name_of_a_likelihood_is_the_one_that_get_takes(name):
    assert likelihoods.name_of(likelihoods.get(name)) == name


def test_the_name_of_a_users_likelihood_is_that_of_its_class():
    class Sharper(likelihoods.Gaussian):
        pass

    assert likelihoods.name_of(Sharper()) == "Sharper"


# Likelihoods of a user's own


@pytest.mark.parametrize(
    ("method", "arguments", "missing"),
    [
        ("log_prob", 2, "log_prob_of_pixels"),
        ("log_prob_of_pixels", 2, "log_prob_of_pixels"),
        ("mean", 1, "mean"),
        ("sample", 2, "sample"),
    ],
)
def test_the_error_of_a_users_likelihood_names_the_missing_method(method, arguments, missing):
    class Own(likelihoods.Likelihood):
        pass

    with pytest.raises(NotImplementedError, match=rf"Own needs a method {missing}\("):
        getattr(Own(), method)(*[tf.zeros((1, 2))] * arguments)


@pytest.mark.parametrize("base", [likelihoods.Likelihood, likelihoods.Bernoulli, likelihoods.Gaussian])
def test_a_users_likelihood_may_not_override_log_prob(base):
    with pytest.raises(
        TypeError, match=r"Expected Own to define log_prob_of_pixels\(x, parameters\), in nats per pixel"
    ):
        type("Own", (base,), {"log_prob": lambda self, x, parameters, observed=None: tf.zeros(())})
