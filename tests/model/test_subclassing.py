"""Metrics and losses that a subclass, or a layer of its networks, adds in the ways of Keras."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow

import kvae
from kvae.internal.errors import KvaeWarning

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested
SHAPE = (4, 4, 1)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (60, *SHAPE)).astype(np.float32)


def compiled(vae):
    vae.compile(keras.optimizers.SGD(0.0))
    return vae


def as_dataset(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(20)


ROUTES = {"fast": lambda x: x, "ordinary": as_dataset}


class CountingSteps(kvae.VAE):
    """Updates a metric in its own train_step and test_step."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.counter = keras.metrics.Sum(name="count")

    def train_step(self, data):
        logs = super().train_step(data)
        self.counter.update_state(1.0)
        return {**logs, "count": self.counter.result()}

    def test_step(self, data):
        self.counter.update_state(1.0)
        return super().test_step(data)


class MetricsInAList(kvae.VAE):
    """Has its metrics in a list, which Keras tracks too."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.counters = [keras.metrics.Sum(name="count"), keras.metrics.Mean(name="one")]

    def draw(self, *args, **options):
        for counter in self.counters:
            counter.update_state(1.0)
        return super().draw(*args, **options)


@keras.saving.register_keras_serializable("test_subclassing")
class CountingLayer(keras.layers.Layer):
    """Updates a metric and adds a loss of 0.25 in its call."""

    def __init__(self, **options):
        super().__init__(**options)
        self.counter = keras.metrics.Sum(name="count")

    def call(self, h):
        self.counter.update_state(1.0)
        self.add_loss(tf.constant(0.25))
        return h


class CountingEncoder(keras.Model):
    """An encoder with such a layer, and with a metric of its own, which Keras alone would leave out."""

    def __init__(self):
        super().__init__()
        self.flatten, self.counting = keras.layers.Flatten(), CountingLayer()
        self.heads = [keras.layers.Dense(2), keras.layers.Dense(2)]
        self.own = keras.metrics.Mean(name="own")

    def call(self, x):
        h = self.counting(self.flatten(x))
        self.own.update_state(2.0)
        return tuple(head(h) for head in self.heads)


def with_layer():
    return kvae.VAE(encoder=CountingEncoder(), decoder=kvae.networks.MLPDecoder(SHAPE, (4,)), seed=0)


def plain(kind):
    return kind(2, hidden_units=(4,), seed=0)


MAKE = {"step": lambda: plain(CountingSteps), "list": lambda: plain(MetricsInAList), "layer": with_layer}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "route"),
    [  # each kind and each route in every run of the tests
        ("step", "fast"),
        ("list", "fast"),
        ("layer", "ordinary"),
        *slow(("step", "ordinary"), ("list", "ordinary"), ("layer", "fast")),
    ],
)
def test_a_metric_of_a_subclass_or_layer_begins_anew_in_every_epoch(kind, route, x, paths):
    vae = compiled(MAKE[kind]())
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        history = vae.fit(ROUTES[route](x), batch_size=20, validation_data=x, epochs=3, verbose=0).history
    assert history["count"] == [3.0, 3.0, 3.0]
    assert history["val_count"] == [3.0, 3.0, 3.0]
    assert route in paths
    if route == "fast":
        assert set(paths) == {"fast"}
    assert vae.evaluate(x, verbose=0, return_dict=True)["count"] == 2.0  # in batches of 32


@pytest.mark.slow
def test_metrics_of_networks_are_results_too(x):
    history = compiled(with_layer()).fit(x, verbose=0).history
    assert history["own"] == [2.0]


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_a_loss_that_a_layer_adds_counts_once_per_image(route, x):
    history = compiled(with_layer()).fit(ROUTES[route](x), epochs=2, validation_data=x, verbose=0).history
    for kind in ("", "val_"):
        extra = np.array(history[kind + "loss"]) + np.array(history[kind + "elbo"])
        np.testing.assert_allclose(extra, 0.25, atol=1e-4)  # a difference of float32 means


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_a_loss_that_a_subclass_adds_in_a_method_of_the_step_counts(route, x):
    class Penalised(kvae.VAE):
        def draw(self, *args, **options):
            draws = super().draw(*args, **options)
            self.add_loss(10 * tf.reduce_mean(draws.kl))
            return draws

    # The step is traced for full batches and for the last one; each must see its own losses alone.
    history = compiled(plain(Penalised)).fit(ROUTES[route](x[:50]), batch_size=20, epochs=2, verbose=0).history
    for loss, elbo, kl in zip(history["loss"], history["elbo"], history["kl"], strict=True):
        assert loss + elbo == pytest.approx(10 * kl, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", ["kernel_regularizer", "activity_regularizer"])
def test_regularizers_of_layers_count(regularizer, x):
    options = {regularizer: keras.regularizers.L2(0.1)}
    encoder = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(4, **options)])
    image = keras.Input(SHAPE)
    h = encoder(image)
    networks = keras.Model(image, (keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)))
    vae = compiled(kvae.VAE(encoder=networks, decoder=kvae.networks.MLPDecoder(SHAPE, (4,)), seed=0))
    history = vae.fit(x, verbose=0).history
    assert history["loss"][0] > -history["elbo"][0] + 1e-3


class OwnLoss(kvae.VAE):
    def compute_loss(self, *args, **options):
        return 0.0


class OwnMetrics(kvae.VAE):
    def compute_metrics(self, *args, **options):
        return {}


class LossInCall(kvae.VAE):
    def call(self, x, condition=None, training=False):
        self.add_loss(1.0)
        return super().call(x, condition, training)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [(OwnLoss, "compute_loss has no effect"), (OwnMetrics, "compute_metrics has no effect"), (LossInCall, "add_loss")],
)
def test_an_override_that_has_no_effect_is_warned_of(kind, name, x):
    with pytest.warns(KvaeWarning, match=f"{name}.*added_losses or added_metrics"):
        compiled(plain(kind)).fit(x, verbose=0)
