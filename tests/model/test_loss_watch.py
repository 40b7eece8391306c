"""A loss or weights that are not finite: `fit` names the step, in whatever way it runs its steps."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from small_models import compiled, tiny

import kvae
from kvae.internal.errors import KvaeWarning
from kvae.model.loss_watch import LossWatch, first_bad_step

pytestmark = pytest.mark.usefixtures("without_xla")  # but where a case asks for it
BAD = 7  # the number of the bad step: the second one in the second epoch of 5 steps


class Spiky(kvae.VAE):
    """Its loss is infinite at one step, but not the gradients, so that every other step is as without it."""

    spike = np.inf

    def added_losses(self, x, draws):
        at = tf.equal(tf.convert_to_tensor(self.steps), BAD - 1)  # the number of steps before this one
        return {"spike": tf.where(at, self.spike, 0.0) * tf.ones(tf.shape(x)[0])}


class OwnStep(Spiky):
    def train_step(self, data):
        return {**super().train_step(data), "three": 3.0}


class OwnLoss(Spiky):
    """A step that returns the loss of its own batch."""

    def train_step(self, data):
        step = tf.convert_to_tensor(self.steps)
        logs = super().train_step(data)
        return {"loss": tf.where(tf.equal(step, BAD - 1), self.spike, 1.0), "kl": logs["kl"]}


def spiky(cls=Spiky, spike=np.inf, **options):
    vae = compiled(cls(2, hidden_units=(8,), seed=0), **options)
    vae.spike = spike
    return vae


def dataset(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(5)


def endless(x):
    while True:
        yield from (x[start : start + 5] for start in range(0, len(x), 5))


WAYS = {
    "array": ({"jit_compile": False}, lambda x: {"x": x, "batch_size": 5}),
    "array, XLA": ({"jit_compile": True}, lambda x: {"x": x, "batch_size": 5}),
    "array, one step per call": ({"jit_compile": False, "steps_per_execution": 1}, lambda x: {"x": x, "batch_size": 5}),
    "array, groups of 2": ({"jit_compile": False, "steps_per_execution": 2}, lambda x: {"x": x, "batch_size": 5}),
    "dataset": ({"jit_compile": False}, lambda x: {"x": dataset(x)}),
    "dataset, XLA": ({"jit_compile": True}, lambda x: {"x": dataset(x)}),
    "generator": ({"jit_compile": False}, lambda x: {"x": endless(x), "steps_per_epoch": 5}),
    "run_eagerly": ({"run_eagerly": True}, lambda x: {"x": x, "batch_size": 5}),
    "own train_step": ({"cls": OwnStep, "jit_compile": False}, lambda x: {"x": x, "batch_size": 5}),
    "own loss": ({"cls": OwnLoss, "jit_compile": False}, lambda x: {"x": x, "batch_size": 5}),
    "NaN": ({"spike": np.nan, "jit_compile": False}, lambda x: {"x": x, "batch_size": 5}),
    # -infinity is no loss to train with either: a density that grows without bound, as of a variance that collapses.
    "-infinity": (
        {"spike": -np.inf, "jit_compile": False},
        lambda x: {"x": x, "batch_size": 5},
    ),  # no loss to train with
}


USUAL = ("array", "array, one step per call", "dataset", "run_eagerly", "own loss")


@pytest.mark.slow
@pytest.mark.parametrize("way", [*USUAL, *slow(*(way for way in WAYS if way not in USUAL))])
def test_fit_warns_once_at_its_end_and_names_the_step(way, x):
    options, data = WAYS[way]
    vae = spiky(**options)
    with pytest.warns(KvaeWarning, match="diverged") as caught:
        history = vae.fit(**data(x), epochs=3, verbose=0).history
    assert len(history["loss"]) == 3
    epoch = "" if way == "own loss" else " in epoch 2"  # the logs of its epochs are those of their last steps
    terms = "loss" if way == "own loss" else "loss, spike"
    texts = [str(each.message) for each in caught if each.filename == __file__]
    assert [text.partition(" Try")[0] for text in texts] == [
        f"The training diverged{epoch} at step {BAD}. These are NaN or infinite since then: {terms}."
    ]


@pytest.mark.slow
def test_under_a_strategy_fit_names_the_epoch_and_a_callback_can_learn_the_step(x):
    found = []

    class Reads(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found.append(first_bad_step(self.model, logs))

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        vae = spiky(jit_compile=False)
    with pytest.warns(KvaeWarning, match=r"diverged in epoch 2\. These are NaN or infinite since then: loss\."):
        vae.fit(dataset(x), epochs=2, callbacks=[Reads()], verbose=0)
    assert [each and each.step for each in found] == [None] * (BAD - 1) + [7, 8, 9, 10]


@pytest.mark.slow
def test_the_check_changes_no_step(x):
    trained = []
    for cls in (kvae.VAE, Spiky):
        vae = compiled(cls(2, hidden_units=(8,), seed=0), jit_compile=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KvaeWarning)
            vae.fit(x, batch_size=5, epochs=3, verbose=0)
        trained.append(vae.get_weights())
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_an_earlier_training_that_diverged_is_forgotten(x):
    vae = spiky(jit_compile=False)
    with pytest.warns(KvaeWarning, match="diverged"):
        vae.fit(x, batch_size=5, epochs=2, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        vae.fit(x, batch_size=5, verbose=0)


def test_steps_without_a_loss_are_not_looked_at():
    watch = LossWatch()
    for results in (None, {}, 3.0, {"kl": tf.constant(np.nan)}, {"loss": "none"}):
        watch.look(tf.constant(1, tf.int64), results)
    assert watch.found() is None


@pytest.mark.slow
def test_a_training_whose_scaled_gradients_overflow_did_not_diverge(x, mixed_precision):
    vae = compiled(tiny(), jit_compile=False)
    vae.fit(x, batch_size=5, verbose=0)
    vae.optimizer.dynamic_scale.assign(2.0**30)  # so that the gradients of the next steps overflow in float16
    before = int(vae.optimizer.inner_optimizer.iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KvaeWarning)
        history = vae.fit(x, batch_size=5, epochs=2, verbose=0).history
    assert int(vae.optimizer.inner_optimizer.iterations) < before + 10  # steps were skipped
    assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
def test_weights_that_are_infinite_although_the_loss_is_finite_are_named(x):
    class Spoils(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            bias = self.model.encoder.layers[1].bias
            assert "bias" in bias.path
            bias.assign(np.full(bias.shape, np.inf))  # tanh of it is 1

    vae = compiled(tiny(), jit_compile=False)
    with pytest.warns(KvaeWarning, match=r"weights are NaN or infinite, although the loss is finite: \S*bias\."):
        history = vae.fit(x, epochs=2, callbacks=[Spoils()], verbose=0).history
    assert np.isfinite(history["loss"]).all()
