"""A model that XLA cannot compile runs as a graph, unless the user asked for XLA."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from stock_keras import Batches

import kvae
from kvae.internal.errors import KvaeWarning

pytestmark = pytest.mark.slow

SHAPE = (8, 8, 1)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (40, *SHAPE)).astype(np.float32)


@keras.saving.register_keras_serializable("test_xla_refusals")
class InPython(keras.layers.Layer):
    """Calls NumPy in its graph."""

    def call(self, x):
        doubled = tf.numpy_function(lambda values: 2 * values, [x], tf.float32)
        return tf.stop_gradient(tf.ensure_shape(doubled, x.shape))

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable("test_xla_refusals")
class Histogram(keras.layers.Layer):
    """The counts of the values, an operation that XLA does not have."""

    def call(self, x):
        counts = tf.histogram_fixed_width(x, [0.0, 1.0], nbins=4)
        return x + 0.0 * tf.cast(tf.reduce_sum(counts), tf.float32)


LAYERS = {
    "ResizeBicubic": lambda: keras.layers.Resizing(6, 6, interpolation="bicubic"),
    "ResizeArea": lambda: keras.layers.Resizing(6, 6, interpolation="area"),
    "PyFunc": InPython,
    "HistogramFixedWidth": Histogram,
}


def with_layer(operation, **options):
    image = keras.Input(SHAPE)
    h = keras.layers.Dense(4, "tanh")(keras.layers.Flatten()(LAYERS[operation]()(image)))
    encoder = keras.Model(image, (keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)))
    vae = kvae.VAE(encoder=encoder, decoder=kvae.networks.MLPDecoder(SHAPE, (4,), seed=0), seed=0)
    vae.compile(**options)
    vae.build((None, *SHAPE))
    return vae


def as_dataset(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(10)


CALLS = {
    "fit of an array": lambda vae, x: vae.fit(x, validation_data=x, epochs=2, verbose=0),
    "fit of a dataset": lambda vae, x: vae.fit(as_dataset(x), validation_data=as_dataset(x), verbose=0),
    "fit of a PyDataset": lambda vae, x: vae.fit(Batches(x, 10), verbose=0),
    "evaluate": lambda vae, x: vae.evaluate(x, verbose=0),
    "predict": lambda vae, x: vae.predict(x, verbose=0),
    "train_on_batch": lambda vae, x: vae.train_on_batch(x),
    "test_on_batch": lambda vae, x: vae.test_on_batch(x),
    "predict_on_batch": lambda vae, x: vae.predict_on_batch(x),
    "log_likelihood": lambda vae, x: kvae.evaluation.log_likelihood(vae, x, samples=3),
}


@pytest.mark.parametrize("call", [*list(CALLS)[::2], *slow(*list(CALLS)[1::2])])
@pytest.mark.parametrize("operation", ["ResizeBicubic", *slow("PyFunc")])
def test_every_call_runs_as_a_graph_and_says_so_once(call, operation, x):
    vae = with_layer(operation)
    assert vae.jit_compile
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        CALLS[call](vae, x)
        CALLS[call](vae, x)
    texts = [str(warning.message) for warning in given if issubclass(warning.category, KvaeWarning)]
    (text,) = texts
    assert f"runs without XLA, as a graph, because XLA has no {operation} for this device." in text
    assert vae.jit_compile is False


@pytest.mark.filterwarnings("ignore:This model runs without XLA")
@pytest.mark.parametrize("operation", ["PyFunc", *slow("ResizeBicubic", "ResizeArea", "HistogramFixedWidth")])
@pytest.mark.parametrize("route", [lambda x: x, as_dataset], ids=["array", "dataset"])
def test_no_step_and_no_batch_is_lost(operation, route, x):
    histories = []
    for options in ({}, {"jit_compile": False}):
        keras.utils.set_random_seed(0)
        vae = with_layer(operation, **options)
        histories.append(vae.fit(route(x), shuffle=False, epochs=2, verbose=0).history["loss"])
        assert int(vae.steps) == (4 if isinstance(route(x), np.ndarray) else 8)
    assert histories[0] == histories[1]


def test_xla_that_the_user_asked_for_fails_as_in_keras(x):
    with pytest.raises(tf.errors.InvalidArgumentError, match="unsupported operations"):
        with_layer("ResizeBicubic", jit_compile=True).fit(x, verbose=0)


@pytest.mark.filterwarnings("ignore:This model runs without XLA")
def test_a_loaded_model_tries_again_by_itself(x, tmp_path):
    vae = with_layer("ResizeBicubic")
    vae.fit(x, verbose=0)
    vae.save(tmp_path / "vae.keras")
    again = keras.saving.load_model(tmp_path / "vae.keras")
    assert np.isfinite(again.fit(x, verbose=0).history["loss"]).all()


def test_a_layer_that_says_so_itself_is_not_tried(x, recwarn):
    image = keras.Input(SHAPE)
    h = keras.layers.Flatten()(keras.layers.RandomRotation(0.1)(image))
    encoder = keras.Model(image, (keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)))
    vae = kvae.VAE(encoder=encoder, decoder=kvae.networks.MLPDecoder(SHAPE, (4,)), seed=0)
    vae.compile()
    assert vae.jit_compile is False
    vae.fit(x, verbose=0)
    assert not [warning for warning in recwarn if "jit_compile" in str(warning.message)]
