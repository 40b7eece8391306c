"""What of Keras kvae relies on though it is private: each test fails where Keras changes it; see kvae/fast_fit.py."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvae
from kvae.model import fast_fit


def small():
    return kvae.VAE(2, hidden_units=(4,), seed=0)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (12, 4, 4, 1)).astype(np.float32)


def test_fit_tells_evaluate_that_it_is_fit_that_calls(x):
    calls = []

    class Watched(kvae.VAE):
        def evaluate(self, *args, **kwargs):
            calls.append(fast_fit._is_call_of_fit(kwargs))
            return super().evaluate(*args, **kwargs)

    vae = Watched(2, hidden_units=(4,), seed=0)
    vae.compile()
    vae.fit(x, validation_data=x, epochs=2, verbose=0)
    assert calls == [True, True]
    vae.evaluate(x, verbose=0)
    assert calls == [True, True, False]


def test_a_model_knows_the_strategy_that_it_was_made_under():
    assert small()._distribute_strategy is None
    assert not small()._is_distributed()
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        vae = small()
    assert vae._distribute_strategy is not None
    assert vae._is_distributed()


def test_keras_builds_by_a_method_that_is_left_out_for_a_model_that_is_built(monkeypatch, x):
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
    vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(4), verbose=0)
    assert calls == [vae]


def test_compile_keeps_the_metrics_that_it_got():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    assert not fast_fit._has_metrics_of_compile(model)
    model.compile(loss="mse", metrics=["mae"])
    assert fast_fit._has_metrics_of_compile(model)


def test_all_layers_within_a_model_are_found():
    inner = keras.Sequential([keras.layers.Dense(2), keras.Sequential([keras.layers.Conv2D(1, 1)])])
    kinds = {type(layer) for layer in fast_fit.layers_of(inner)}
    assert {keras.layers.Dense, keras.layers.Conv2D} <= kinds
    assert fast_fit.convolves(inner)


def test_the_weights_of_a_mirrored_decoder_stand_where_those_of_a_given_one_do(x):
    options = {"likelihood": kvae.model.likelihoods.Gaussian("learned"), "seed": 0}
    mirrored = kvae.VAE(2, hidden_units=(4,), **options)
    mirrored.build(x.shape)
    given = kvae.VAE.from_config(mirrored.get_config())
    given.build(x.shape)
    shapes = [[variable.shape for variable in vae.trainable_variables] for vae in (mirrored, given)]
    assert shapes[0] == shapes[1]


def test_a_mirrored_model_with_a_learned_variance_goes_on_after_loading(x, tmp_path):
    """Its optimizer's state is saved in the order of the weights, which a mirrored decoder used to change."""
    losses = []
    for loads in (False, True):
        vae = kvae.VAE(2, hidden_units=(4,), likelihood=kvae.model.likelihoods.Gaussian("learned"), seed=0)
        vae.compile(keras.optimizers.Adam(1e-2))
        vae.fit(x, batch_size=4, verbose=0)
        if loads:
            vae.save(tmp_path / "vae.keras")
            vae = keras.saving.load_model(tmp_path / "vae.keras")
        losses.append(vae.fit(x, batch_size=4, epochs=2, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
