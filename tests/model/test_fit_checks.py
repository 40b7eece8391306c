"""What `fit` says before a training that cannot work, and after one in which nothing was learned."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from small_models import SHAPE, compiled, tiny

import kvae
from kvae.internal.errors import KvaeWarning, UserError
from kvae.model import networks

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested

CALLBACKS = {
    "EarlyStopping": lambda monitor, _: keras.callbacks.EarlyStopping(monitor, patience=9),
    "ModelCheckpoint": lambda monitor, path: keras.callbacks.ModelCheckpoint(
        path / "best.weights.h5", monitor, save_best_only=True, save_weights_only=True
    ),
    "ReduceLROnPlateau": lambda monitor, _: keras.callbacks.ReduceLROnPlateau(monitor, patience=9),
}


def as_dataset(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(8)


# Callbacks that monitor a metric


@pytest.mark.slow
@pytest.mark.parametrize("callback", CALLBACKS.values(), ids=CALLBACKS)
@pytest.mark.parametrize("metric", ["elbo", *slow("loss", "reconstruction", "kl")])
@pytest.mark.parametrize("prefix", ["val_", *slow("")])
def test_a_callback_finds_the_direction_of_a_metric(callback, metric, prefix, x, tmp_path):
    callback = callback(prefix + metric, tmp_path)
    history = compiled(tiny()).fit(x, validation_data=x, epochs=3, callbacks=[callback], verbose=0).history
    best = max if metric == "elbo" else min
    # A plateau and early stopping count a change of less than `min_delta`, 1e-4 or 0, as none.
    assert callback.best == pytest.approx(best(history[prefix + metric]), abs=1e-4)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda callback: callback,
        lambda callback: (keras.callbacks.TerminateOnNaN(), callback),
        lambda callback: keras.callbacks.CallbackList([callback], add_history=True, model=None),
    ],
    ids=["alone", "tuple", "CallbackList"],
)
def test_callbacks_may_come_in_every_form_that_keras_takes(wrap, x):
    callback = keras.callbacks.EarlyStopping("elbo", patience=9)
    vae, callbacks = compiled(tiny()), wrap(callback)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.set_model(vae)
    vae.fit(x, epochs=2, callbacks=callbacks, verbose=0)
    assert callback.mode == "max"


def test_a_direction_that_the_user_gives_counts(x):
    callback = keras.callbacks.EarlyStopping("elbo", mode="min", patience=9)
    history = compiled(tiny()).fit(x, epochs=3, callbacks=[callback], verbose=0).history
    assert callback.best == min(history["elbo"])


@pytest.mark.parametrize("callback", CALLBACKS.values(), ids=CALLBACKS)
@pytest.mark.parametrize("monitor", ["val_ebo", "val_active_units", "accuracy"])
def test_a_metric_without_a_known_direction_is_refused_before_the_training(callback, monitor, x, tmp_path):
    vae = compiled(tiny())
    with pytest.raises(UserError, match=r"Unknown metric .*mode=\"min\" or mode=\"max\""):
        vae.fit(x, callbacks=[callback(monitor, tmp_path)], verbose=0)
    assert int(vae.steps) == 0


# A model in which nothing trains


@pytest.mark.parametrize("as_data", [lambda x: x, as_dataset], ids=["array", "dataset"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny(trainable=False),
        lambda: freeze(tiny(), "encoder", "decoder"),
        lambda: kvae.VAE(
            encoder=networks.MLPEncoder(2, (4,), trainable=False),
            decoder=networks.MLPDecoder(SHAPE, (4,), trainable=False),
        ),
    ],
    ids=["model", "parts of a built model", "given networks"],
)
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_model_in_which_nothing_trains_is_refused(make, as_data, run_eagerly, x):
    with pytest.raises(UserError, match="at least one weight that trains"):
        compiled(make(), run_eagerly=run_eagerly).fit(as_data(x), verbose=0)


def freeze(vae, *parts):
    vae.build((None, *SHAPE))
    for part in parts:
        getattr(vae, part).trainable = False
    return vae


# A posterior that has collapsed


def collapsed(**options):
    """A model whose q(z|x) is the prior: heads of zeros."""
    vae = tiny(**options)
    vae.build((None, *SHAPE))
    for head in (vae.encoder.mean_head, vae.encoder.scale_head):
        head.kernel.assign(tf.zeros_like(head.kernel))
    vae.compile(keras.optimizers.SGD(0.0))
    return vae


@pytest.mark.parametrize("as_data", [lambda x: x, as_dataset], ids=["array", "dataset"])
@pytest.mark.parametrize("options", [{}, *slow({"beta": 100.0}, {"kl": "sampled"})], ids=str)
def test_a_collapsed_posterior_warns_once_at_the_end(options, as_data, x):
    with pytest.warns(KvaeWarning, match=r"posterior has collapsed.*LinearWarmup") as caught:
        collapsed(**options).fit(as_data(x), epochs=3, verbose=0)
    assert [each.filename for each in caught if "collapsed" in str(each.message)] == [__file__]


@pytest.mark.parametrize("beta", [0.0, 1.0, kvae.objectives.LinearWarmup(1.0, 100)], ids=["0", "1", "warm-up"])
def test_a_posterior_that_tells_something_does_not_warn(beta, x):
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        compiled(tiny(beta=beta)).fit(x, epochs=3, verbose=0)


def test_a_model_that_is_frozen_as_a_whole_says_what_to_set(x):
    vae = freeze(tiny())
    vae.trainable = False
    vae.decoder.trainable = True  # not enough, as in Keras
    with pytest.raises(UserError, match=r"Set vae\.trainable = True"):
        compiled(vae).fit(x, verbose=0)


def test_a_training_without_epochs_has_nothing_to_warn_of(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        assert collapsed().fit(x, epochs=0, verbose=0).history == {}


def test_a_training_that_diverged_is_no_collapse(x):
    vae = tiny()
    vae.compile(keras.optimizers.SGD(1e30))
    with pytest.warns(KvaeWarning) as caught:
        assert np.isnan(vae.fit(x, epochs=3, verbose=0).history["kl"][-1])
    assert ["diverged" in str(each.message) for each in caught] == [True]
