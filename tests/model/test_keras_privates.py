"""Each test fails if Keras or TensorFlow changes a private name that kvae relies on.

They are used in kvae/model/keras_privates.py, and TensorFlow's in kvae/data/in_memory.py and
kvae/internal/xla_cache.py.
"""

import copy
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

import kvae
from kvae.data.in_memory import ImageDataset, ImagesInMemory, as_float32
from kvae.model import compiling, keras_privates
from kvae.model.grouped_steps import GroupedDataset

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


def small():
    return kvae.VAE(2, hidden_units=(4,), seed=0)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (12, 4, 4, 1)).astype(np.float32)


def test_evaluate_can_see_that_fit_calls_it(x):
    calls = []

    class Watched(kvae.VAE):
        def evaluate(self, *args, **kwargs):
            calls.append(keras_privates.is_called_by_fit(kwargs))
            return super().evaluate(*args, **kwargs)

    vae = Watched(2, hidden_units=(4,), seed=0)
    vae.compile()
    vae.fit(x, validation_data=x, epochs=2, verbose=0)
    assert calls == [True, True]
    vae.evaluate(x, verbose=0)
    assert calls == [True, True, False]


def test_a_model_knows_the_strategy_under_which_it_was_made():
    assert small()._distribute_strategy is None
    assert not small()._is_distributed()
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        vae = small()
    assert vae._distribute_strategy is not None
    assert vae._is_distributed()


def test_keras_builds_with_a_method_that_is_skipped_for_a_built_model(monkeypatch, x):
    expected = ["self", "iterator", "data_batch"]
    assert list(inspect.signature(keras.Model._maybe_symbolic_build).parameters) == expected
    calls = []
    monkeypatch.setattr(keras.Model, "_maybe_symbolic_build", lambda self, **_: calls.append(self))
    vae = small()
    vae.compile(run_eagerly=True)
    vae.build(x.shape)
    vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(4), verbose=0)
    assert calls == []
    vae = small()
    vae.compile(run_eagerly=True)
    vae.fit((batch for batch in [x[:4]]), steps_per_epoch=1, verbose=0)  # kvae builds it for other data
    assert calls == [vae]


def test_compile_keeps_the_metrics_that_it_received():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    assert not keras_privates.has_compiled_metrics(model)
    model.compile(loss="mse", metrics=["mae"])
    assert keras_privates.has_compiled_metrics(model)
    keras_privates.forget_loss_and_metrics(model)
    model.compile()
    assert not keras_privates.has_compiled_metrics(model)
    assert model.loss is model._compile_loss is None


def test_all_layers_within_a_model_are_found_at_any_depth():
    inner = keras.Sequential([keras.layers.Dense(2), keras.Sequential([keras.layers.Conv2D(1, 1)])])
    kinds = {type(layer) for layer in keras_privates.layers_of(inner)}
    assert {keras.layers.Dense, keras.layers.Conv2D} <= kinds
    assert compiling.convolves(inner)


def test_a_layer_knows_the_layers_that_it_holds_directly():
    inner = keras.Sequential([keras.layers.Dense(2)])
    outer = keras.Sequential([inner, keras.layers.Dense(3)])
    assert keras_privates.children_of(outer) == [inner, outer.layers[1]]
    vae = small()
    vae.build((None, 4, 4, 1))
    assert keras_privates.children_of(vae)[:2] == [vae.encoder, vae.decoder]


def test_a_model_learns_that_it_was_built_also_by_the_build_of_a_subclass():
    calls = []

    class Watched(kvae.VAE):
        def build(self, input_shape):
            super().build(input_shape)
            calls.append("build")

        def _after_build(self):
            super()._after_build()
            calls.append("after")

    Watched(2, hidden_units=(4,)).build((None, 4, 4, 1))
    assert calls == ["build", "after"]


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD,
        lambda: keras.optimizers.Adam(use_ema=True),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    ],
    ids=["SGD", "Adam with a mean", "loss scale"],
)
def test_an_optimizer_knows_the_weights_that_it_was_built_for(optimizer):
    optimizer, weights = optimizer(), [keras.Variable([1.0]), keras.Variable([2.0])]
    assert keras_privates.variables_of_optimizer(optimizer) == []
    optimizer.build(weights)
    assert [id(each) for each in keras_privates.variables_of_optimizer(optimizer)] == [id(each) for each in weights]


def test_the_weights_of_a_mirrored_decoder_have_the_order_of_those_of_a_given_decoder(x):
    options = {"likelihood": kvae.likelihoods.Gaussian("learned"), "seed": 0}
    mirrored = kvae.VAE(2, hidden_units=(4,), **options)
    mirrored.build(x.shape)
    given = kvae.VAE.from_config(mirrored.get_config())
    given.build(x.shape)
    shapes = [[variable.shape for variable in vae.trainable_variables] for vae in (mirrored, given)]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_a_mirrored_model_with_a_learned_variance_continues_training_after_loading(x, tmp_path):
    """The state of its optimizer is saved in the order of the weights, which a mirrored decoder once changed."""
    losses = []
    for loads in (False, True):
        vae = kvae.VAE(2, hidden_units=(4,), likelihood=kvae.likelihoods.Gaussian("learned"), seed=0)
        vae.compile(keras.optimizers.Adam(1e-2))
        vae.fit(x, batch_size=4, verbose=0)
        if loads:
            vae.save(tmp_path / "vae.keras")
            vae = keras.saving.load_model(tmp_path / "vae.keras")
        losses.append(vae.fit(x, batch_size=4, epochs=2, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# TensorFlow


@pytest.fixture
def datasets(x):
    images = ImagesInMemory(x, as_float32, 5, binary=True)
    return images.dataset(), GroupedDataset(images, 2, None)


def test_a_dataset_must_define_nothing_private_but_its_inputs():
    assert tf.data.Dataset.__abstractmethods__ == {"_inputs", "element_spec"}


def test_a_subclass_of_dataset_has_the_elements_size_and_options_of_the_dataset_that_it_wraps(x, datasets):
    batches, grouped = datasets
    assert (type(batches), type(grouped)) == (ImageDataset, GroupedDataset)
    assert isinstance(batches, tf.data.Dataset)
    assert (int(batches.cardinality()), int(grouped.cardinality())) == (3, 3)
    assert batches.element_spec == tf.TensorSpec((None, 4, 4, 1), tf.float32)
    assert batches.options().autotune.enabled is False
    np.testing.assert_array_equal(np.concatenate(list(batches.as_numpy_iterator())), x)


@pytest.mark.parametrize(
    "derive",
    [
        lambda dataset: dataset.take(2),
        lambda dataset: dataset.map(lambda x: x),
        lambda dataset: dataset.rebatch(6),
        lambda dataset: dataset.with_options(tf.data.Options()),
    ],
    ids=["take", "map", "rebatch", "with_options"],
)
def test_a_derived_dataset_is_an_ordinary_one(derive, datasets):
    derived = derive(datasets[0])
    assert isinstance(derived, tf.data.Dataset)
    assert not isinstance(derived, ImageDataset)
    assert not hasattr(derived, "in_memory")
    assert next(iter(derived)).shape[1:] == (4, 4, 1)


@tf.function
def total_of(dataset):
    return dataset.reduce(0.0, lambda state, x: state + tf.reduce_sum(x))


@pytest.mark.parametrize(
    "total",
    [
        total_of,
        lambda dataset: tf.function(lambda: total_of(dataset))(),
        lambda dataset: total_of(copy.copy(dataset)),
        lambda dataset: sum(
            tf.reduce_sum(x) for x in tf.distribute.MirroredStrategy(["CPU:0"]).experimental_distribute_dataset(dataset)
        ),
    ],
    ids=["argument of a function", "captured by a function", "copy", "strategy"],
)
def test_a_subclass_of_dataset_can_be_used_as_any_dataset(total, x, datasets):
    assert float(total(datasets[0])) == x.sum()  # Whole numbers below 2^24 are exact in float32.


def test_tensorflow_counts_the_names_of_traced_functions():
    first = ops.uid()
    assert ops.uid() == first + 1
    name = tf.function(lambda: tf.constant(0)).get_concrete_function().name
    assert first + 1 < int(name.rsplit(b"_", 1)[1]) < ops.uid()


def test_a_copy_has_the_attributes(datasets):
    assert copy.copy(datasets[0]).in_memory is datasets[0].in_memory


def test_a_subclass_of_dataset_can_be_saved_and_passed_to_any_keras_model(x, datasets, tmp_path):
    module = tf.Module()
    module.batches = datasets[0]
    module.total = tf.function(lambda: total_of(module.batches), input_signature=[])
    tf.saved_model.save(module, tmp_path / "module")
    assert float(tf.saved_model.load(tmp_path / "module").total()) == x.sum()
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    assert model.predict(datasets[0], verbose=0).shape == (12, 1)
