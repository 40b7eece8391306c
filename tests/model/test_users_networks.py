"""Networks of a user with batch normalization and dropout, which compute something else in training than afterwards."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from fit_paths import recorded_paths
from own_networks import PAIRS
from slow_cases import slow
from small_models import SHAPE, compiled

import kvae
from kvae import completion, evaluation, export, training
from kvae.internal import user_files
from kvae.training.config import RunConfig

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).integers(0, 2, (40, *SHAPE)).astype(np.float32)


def made(name):
    keras.utils.set_random_seed(5)
    encoder, decoder = PAIRS[name](SHAPE)
    vae = kvae.VAE(encoder=encoder, decoder=decoder, seed=0)
    vae.build((None, *SHAPE))
    return compiled(vae)


@pytest.fixture(scope="module", params=["functional", *slow("subclassed")])
def trained(request, x):
    vae = made(request.param)
    with recorded_paths() as paths:
        vae.fit(x, batch_size=10, epochs=2, verbose=0)
    assert set(paths) == {"fast"}
    return request.param, vae


def layers(vae, kind):
    """The layers of this kind in the encoder and in the decoder."""
    found = [layer for network in (vae.encoder, vae.decoder) for layer in network._flatten_layers()]
    return [layer for layer in found if isinstance(layer, kind)]


def state(vae):
    """All that training changes: weights, moving statistics, the numbers of dropouts, the optimizer."""
    return [np.asarray(each).copy() for each in (*vae.variables, *vae.optimizer.variables)]


def assert_same(first, second):
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_the_fast_path_and_the_ordinary_one_train_the_same(trained, x):
    name, vae = trained
    other = made(name)
    other.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    with recorded_paths() as paths:
        losses = other.fit(x, batch_size=10, epochs=2, verbose=0).history["loss"]
    assert set(paths) == {"ordinary"}
    np.testing.assert_allclose(losses, vae.history.history["loss"], rtol=1e-4)  # float32 rounding over eight steps
    assert_same(vae._random_states(), other._random_states())


@pytest.mark.slow
def test_moving_statistics_follow_the_training_and_nothing_else(trained, x):
    _, vae = trained
    normalizations = layers(vae, keras.layers.BatchNormalization)
    assert len(normalizations) == 2
    for layer in normalizations:
        assert np.any(layer.moving_mean)
        assert not np.allclose(layer.moving_variance, 1.0)
    before = state(vae)
    vae.evaluate(x, verbose=0)
    evaluation.evaluate(vae, x, samples=2)
    completion.infer(vae, x[:2], "top", steps=2)
    vae.encode(x), vae.generate(3, seed=0), vae.elbo(x, seed=0), vae.predict(x, verbose=0)
    assert_same(before, state(vae))


@pytest.mark.slow
def test_after_training_the_moving_statistics_are_used_and_nothing_is_dropped(trained, x):
    _, vae = trained
    hidden = next(layer for layer in layers(vae, keras.layers.Dense) if layer.units == 9)
    mean_head = next(layer for layer in layers(vae, keras.layers.Dense) if layer.units == 2)
    norm = layers(vae, keras.layers.BatchNormalization)[0]
    h = x.reshape(len(x), -1) @ np.asarray(hidden.kernel) + np.asarray(hidden.bias)
    h = (h - np.asarray(norm.moving_mean)) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    h = np.maximum(h * np.asarray(norm.gamma) + np.asarray(norm.beta), 0)
    expected = h @ np.asarray(mean_head.kernel) + np.asarray(mean_head.bias)
    np.testing.assert_allclose(vae.encode(x).mean, expected, rtol=1e-4, atol=1e-5)  # float32
    np.testing.assert_allclose(vae.encode(x[:1]).mean, expected[:1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(vae.encoder(x, training=True)[0], expected, atol=0.1)


@pytest.mark.slow
def test_results_of_an_evaluation_do_not_depend_on_the_batch_size(trained, x):
    _, vae = trained
    batches = [tf.data.Dataset.from_tensor_slices(x).batch(size) for size in (7, 40)]
    first, second = (evaluation.evaluate(vae, each, samples=4) for each in batches)
    assert first["elbo"] == pytest.approx(second["elbo"], rel=1e-5)
    assert first["log_likelihood"] == pytest.approx(second["log_likelihood"], rel=1e-5)


@pytest.mark.slow
def test_a_model_of_a_file_trains_on_to_the_same_bits(trained, x, tmp_path):
    name, _ = trained
    vae = made(name)
    vae.fit(x, batch_size=10, verbose=0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert_same(state(vae), state(loaded))
    for model in (vae, loaded):
        model.fit(x, batch_size=10, initial_epoch=1, epochs=2, verbose=0)
    assert_same(state(vae), state(loaded))


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path):
    user_files.import_file(Path(__file__).parent.parent / "helpers" / "own_networks.py")
    values = {
        "data": {"source": "mnist5k", "train": "train[:60]", "test": "test[:20]", "batch_size": 20},
        "model": {"network": {"kind": "own_networks:Encoder", "units": 6}},
        "training": {"epochs": 4, "checkpoint_seconds": 0.0, "jit_compile": False},
    }
    config = RunConfig.from_dict(values)
    stop = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: 1 / (2 - epoch))
    keras.utils.set_random_seed(5)  # the networks take no seed
    with pytest.raises(ZeroDivisionError):
        training.train(config, tmp_path / "broken", verbose=0, extra=[stop])
    keras.utils.set_random_seed(5)
    whole = training.train(config, tmp_path / "whole", verbose=0)
    keras.utils.set_random_seed(6)
    runs = [whole, training.resume(tmp_path / "broken", verbose=0)]
    assert runs[0].history_file.read_text() == runs[1].history_file.read_text()
    assert_same(*(run.load_model().get_weights() for run in runs))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_exports")
def test_their_exported_decoders_use_the_moving_statistics(trained, tmp_path):
    _, vae = trained
    card = export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    assert card["variants"]["float32"]["means_error_greatest"] < 1e-5  # of float32 sums in another order
