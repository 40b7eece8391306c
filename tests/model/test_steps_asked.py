"""`fit` and `evaluate` make exactly the steps that they are asked for, as with any Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from stock_keras import Batches, Loader, Recorder, autoencoder

import kvae

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested
SHAPE = (4, 4, 1)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (320, *SHAPE)).astype(np.float32)


def small(**options):
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.compile(keras.optimizers.SGD(0.01), **options)
    return vae


def pairs(x, size):
    """Batches (x, x), of which a VAE takes x and another autoencoder takes both."""
    return tf.data.Dataset.from_tensor_slices((x, x)).batch(size)


SOURCES = {
    "endless dataset": lambda x: pairs(x, 10).repeat(),
    "finite dataset": lambda x: pairs(x, 10),
    "ragged dataset": lambda x: pairs(x[:315], 10),
    "dataset of unknown size": lambda x: pairs(x, 10).filter(lambda *_: True),
    "PyDataset": lambda x: Batches(x, 10, targets=True),
    "generator": lambda x: ((batch, batch) for batch in [x[:10]] * 1000),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so for both models.
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("options", "execution"),
    [
        ({"steps_per_epoch": 7, "epochs": 3}, "auto"),
        *slow(
            ({}, "auto"),
            ({"steps_per_epoch": 10, "epochs": 2}, "auto"),
            ({"steps_per_epoch": 30}, "auto"),
            ({"steps_per_epoch": 7, "epochs": 3}, 4),
        ),
    ],
    ids=lambda value: (
        " ".join(f"{each}={number}" for each, number in value.items()) or "all" if isinstance(value, dict) else value
    ),
)
def test_fit_makes_as_many_steps_as_with_another_model(source, options, execution, x):
    if source in ("endless dataset", "generator") and not options:
        pytest.skip("An epoch would have no end.")
    seen = {}
    vae, other = small(steps_per_execution=execution), autoencoder(SHAPE)
    for model in (vae, other):
        recorder = Recorder()
        model.fit(SOURCES[source](x), callbacks=[recorder], verbose=0, **options)
        seen[model] = recorder
    # Not the iterations of the other one's optimizer, which Keras counts also if there is no further batch.
    assert int(vae.optimizer.iterations) == len(seen[other].ends)
    assert int(vae.steps) == int(vae.optimizer.iterations)
    assert seen[vae].ends[-1] == seen[other].ends[-1]
    assert set(seen[vae].ends) <= set(seen[other].ends)


@pytest.mark.parametrize("execution", [1, 7, "auto"])
def test_arrays_make_the_steps_asked_and_go_on_in_the_next_epoch_where_they_stopped(execution, x):
    vae = small(steps_per_execution=execution)
    recorder = Recorder()
    vae.fit(x, batch_size=10, steps_per_epoch=10, epochs=3, callbacks=[recorder], verbose=0)
    assert int(vae.steps) == 30
    assert max(recorder.ends) == 9


def test_images_in_memory_are_each_seen_once_in_three_epochs_of_a_third(x):
    class Counting(kvae.VAE):
        def added_metrics(self, x, draws):
            return {"number": x[:, 0, 0, 0]}

    numbered = np.tile(np.arange(30, dtype=np.float32)[:, None, None, None] / 32, (1, 4, 4, 1))
    vae = Counting(2, hidden_units=(4,), likelihood="gaussian", seed=0)
    vae.compile(keras.optimizers.SGD(0.0))
    history = vae.fit(numbered, batch_size=5, steps_per_epoch=2, epochs=3, verbose=0).history
    assert np.mean(history["number"]) == pytest.approx(numbered[:, 0, 0, 0].mean(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: pairs(x, 10), lambda x: Batches(x, 10), lambda x: Loader(x, 10)]
)
def test_evaluate_draws_only_the_batches_asked(wrap, x):
    vae = small()
    vae.build((None, *SHAPE))
    recorder = Recorder()
    options = {"batch_size": 10} if isinstance(wrap(x), np.ndarray) else {}
    some = vae.evaluate(wrap(x), steps=3, callbacks=[recorder], verbose=0, **options)
    assert some == pytest.approx(vae.evaluate(x[:30], verbose=0), rel=1e-5)  # float32 means in other groups
    assert recorder.test_ends[-1] == 2


@pytest.mark.slow
def test_validation_draws_only_the_batches_asked(x):
    drawn = []

    def count(batch):
        tf.py_function(lambda: drawn.append(1), [], [])
        return batch

    vae = small()
    options = tf.data.Options()
    options.autotune.enabled = False  # tf.data would otherwise draw batches ahead
    held_out = tf.data.Dataset.from_tensor_slices(x).batch(10).map(count).with_options(options)
    history = vae.fit(x, batch_size=100, validation_data=held_out, validation_steps=3, epochs=2, verbose=0).history
    assert len(drawn) == 6
    assert history["val_loss"][-1] == pytest.approx(vae.evaluate(x[:30], verbose=0)[0], rel=1e-5)


@pytest.mark.slow
def test_a_ragged_last_group_and_batch_are_counted_exactly(x, capsys):
    recorder = Recorder()
    vae = small(steps_per_execution=25)
    vae.fit(x[:315], batch_size=10, validation_data=x[:77], callbacks=[recorder], verbose=1)
    assert (recorder.begins, recorder.ends) == ([0, 25], [24, 31])
    assert recorder.test_ends == [7]  # in batches of 10, too
    shown = capsys.readouterr().out
    assert "32/32" in shown
    assert "50/32" not in shown


@pytest.mark.slow
def test_a_callback_that_stops_within_an_epoch_ends_it_after_its_group(x):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch >= 9

    vae = small(steps_per_execution=5)
    vae.fit(pairs(x, 10), epochs=3, callbacks=[Stop()], verbose=0)
    assert int(vae.steps) == 10


@pytest.mark.slow
def test_the_history_and_the_callbacks_of_the_user_are_those_of_keras(x):
    own, calls = keras.callbacks.History(), []
    log = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: calls.append((epoch, sorted(logs))))
    vae = small()
    history = vae.fit(x, epochs=2, validation_data=x, callbacks=[own, log], verbose=0)
    assert history is vae.history
    assert own.history == history.history
    assert [epoch for epoch, _ in calls] == [0, 1]
    assert calls[0][1] == sorted(history.history)
    assert vae.steps_per_execution == 50  # as compiled


def test_a_callback_list_of_the_user_is_used_as_it_is(x):
    vae, recorder = small(steps_per_execution=3), Recorder()
    callbacks = keras.callbacks.CallbackList([recorder], add_history=True, model=vae, epochs=1, steps=5)
    vae.fit(x[:50], batch_size=10, callbacks=callbacks, verbose=0)
    assert recorder.ends == [2, 4]


def test_a_maximum_of_steps_for_debugging_is_kept(x):
    vae = small()
    keras.config.set_max_steps_per_epoch(4)
    try:
        with pytest.warns(UserWarning, match="Limiting steps_per_epoch to 4"):
            vae.fit(x, batch_size=10, verbose=0)
    finally:
        keras.config.set_max_steps_per_epoch(None)
    assert int(vae.steps) == 4
