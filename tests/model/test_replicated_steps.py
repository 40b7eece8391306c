"""Under tf.distribute, images in memory are trained on in groups of steps, and the training stays what it is.

tests/training/test_cluster.py has the same for two devices and for two processes.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvae
from kvae.internal.errors import KvaeWarning

SHAPE, IMAGES, BATCH = (6, 5, 1), 23, 5  # five steps, the last of 3 images


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (IMAGES, *SHAPE)).astype(np.float32)


class CountedCalls(keras.callbacks.Callback):
    """How far Keras had counted at each call of a batch callback."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(batch)


def trained(x, *, cls=kvae.VAE, strategy=None, compiling=None, fitting=None, **options):
    """The history of a model that was trained under a strategy, and where the groups of its steps ended."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        vae = cls(**{"latent_dim": 2, "hidden_units": (4,), "seed": 0, **options})
        vae.compile(keras.optimizers.Adam(0.01), **{"jit_compile": False, **(compiling or {})})
    calls = CountedCalls()
    if isinstance(x, np.ndarray):
        fitting = {"batch_size": BATCH, "validation_data": x[:12], **(fitting or {})}
    history = vae.fit(x, **{"epochs": 2, **fitting}, callbacks=[calls], verbose=0).history
    return vae, history, calls.ends


def assert_alike(history, expected):
    assert set(history) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=2e-5, err_msg=name)  # float32 sums in another order


def one_device():
    return tf.distribute.OneDeviceStrategy("CPU:0")


def mirrored():
    return tf.distribute.MirroredStrategy(["CPU:0"])


@pytest.mark.parametrize(
    ("strategy", "size", "ends"),
    [
        (one_device, "auto", [4]),
        pytest.param(mirrored, "auto", [4], marks=pytest.mark.slow),
        pytest.param(mirrored, 2, [1, 3, 4], marks=pytest.mark.slow),
        pytest.param(mirrored, 1, [0, 1, 2, 3, 4], marks=pytest.mark.slow),
    ],
)
def test_groups_of_steps_train_as_without_a_strategy(x, strategy, size, ends):
    vae, history, found = trained(x, strategy=strategy(), compiling={"steps_per_execution": size})
    assert found == 2 * ends
    assert int(np.asarray(vae.steps)) == 10
    alone, expected, _ = trained(x)
    assert_alike(history, expected)
    np.testing.assert_allclose(vae.get_weights()[0], alone.get_weights()[0], rtol=1e-4, atol=1e-6)
    result, other = (each.evaluate(x, batch_size=8, verbose=0, return_dict=True) for each in (vae, alone))
    assert_alike(result, other)


@pytest.mark.slow
def test_labels_reach_a_conditional_model(x):
    y = np.arange(IMAGES) % 3
    options = {"condition": 3, "fitting": {"y": y, "validation_data": (x[:12], y[:12])}}
    assert_alike(trained(x, strategy=mirrored(), **options)[1], trained(x, **options)[1])


@pytest.mark.slow
def test_fewer_steps_than_there_are_go_on_in_the_next_epoch(x):
    options = {"fitting": {"steps_per_epoch": 2, "epochs": 3, "shuffle": False}}
    with pytest.warns(UserWarning, match="ran out of data"):
        _, history, ends = trained(x, strategy=mirrored(), **options)
    with pytest.warns(UserWarning, match="ran out of data"):
        _, expected, other = trained(x, **options)
    assert_alike(history, expected)
    assert ends == other


class OwnStep(kvae.VAE):
    """A step of a user, whose results are its own."""

    def train_step(self, data):
        results = super().train_step(data)
        return {**results, "twice": 2 * results["loss"]}


@pytest.mark.slow
def test_a_step_of_the_user_runs_alone_and_keeps_its_results(x):
    _, history, ends = trained(x, cls=OwnStep, strategy=mirrored())
    assert_alike(history, trained(x, cls=OwnStep)[1])
    np.testing.assert_allclose(history["twice"], 2 * np.array(history["loss"]))
    assert ends == [4, 4]  # the callbacks are called for the group


@pytest.mark.slow
def test_batches_that_are_not_in_memory_run_one_by_one(x):
    batches = tf.data.Dataset.from_tensor_slices(x).batch(BATCH)
    fitting = {"validation_data": batches}
    _, history, ends = trained(batches, strategy=mirrored(), fitting=fitting)
    assert_alike(history, trained(batches, fitting=fitting)[1])
    assert ends == 2 * [0, 1, 2, 3, 4]


class Spiky(kvae.VAE):
    """A model whose loss is NaN at its seventh step alone."""

    def added_losses(self, x, draws):
        return {"spike": tf.where(tf.equal(tf.convert_to_tensor(self.steps), 6), np.nan, 0.0) * tf.ones(tf.shape(x)[0])}


@pytest.mark.slow
def test_a_step_whose_loss_is_not_finite_is_named_also_within_a_group(x):
    with pytest.warns(KvaeWarning, match=r"diverged in epoch 2 at step 7\. These are NaN or infinite since then: loss"):
        trained(x, cls=Spiky, strategy=mirrored(), fitting={"validation_data": None})


@pytest.mark.slow
def test_images_are_binarized_anew_in_each_epoch_as_without_a_strategy():
    histories = []
    for strategy in (mirrored(), None):
        data = kvae.data.load("mnist5k", train="train[:70]", test="test[:40]", batch_size=16, binarize="stochastic")
        fitting = {"validation_data": data.test}
        histories.append(trained(data.train, strategy=strategy, fitting=fitting)[1])
    assert_alike(*histories)


@pytest.mark.parametrize("objective", ["elbo", "beta_tc"])
def test_predict_may_be_the_first_call(objective, x):
    results = []
    for strategy in (None, mirrored()):
        with strategy.scope() if strategy else contextlib.nullcontext():
            vae = kvae.VAE(2, hidden_units=(4,), objective=objective, prior="mixture", seed=0)
            vae.compile(keras.optimizers.Adam(), jit_compile=False)
        results.append(vae.predict(x, verbose=0))
        vae.fit(x, verbose=0)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


def test_an_objective_is_set_outside_of_the_scope(x):
    with mirrored().scope():
        vae = kvae.VAE(2, hidden_units=(4,), seed=0)
        vae.compile(keras.optimizers.Adam())
    vae.fit(x, verbose=0)
    vae.objective = "info"
    assert "mmd" in vae.fit(x, verbose=0).history
