"""The fast path of fit trains as the ordinary path does, and has the same Keras interface."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow

import kvae
from kvae.data import in_memory
from kvae.data.in_memory import ImageDataset

IMAGES, BATCH = 70, 16  # five steps, the last of 6 images


def load(**options):
    settings = {"train": f"train[:{IMAGES}]", "test": "test[:40]", "batch_size": BATCH, "seed": 3, **options}
    return kvae.data.load("mnist5k", **settings)


def compiled(optimizer=None, vae=None, **options):
    """A model that runs with XLA only if a test asks for it."""
    vae = vae or kvae.VAE(2, hidden_units=(8,), seed=1)
    vae.compile(optimizer=optimizer or keras.optimizers.Adam(1e-2), **{"jit_compile": False, **options})
    return vae


def ordinary(dataset):
    """The same batches as a dataset without images in memory."""
    # `binary` is kept, because fit would otherwise look at the first batch, which would count as an epoch.
    return ImageDataset(dataset.prefetch(1), int(dataset.cardinality()), binary=dataset.binary)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("options", "settings"),
    [
        pytest.param({"binarize": "threshold"}, {}, marks=pytest.mark.slow),
        ({"binarize": "stochastic"}, {"steps_per_execution": 2}),
        pytest.param({"binarize": "fixed", "drop_remainder": True}, {"steps_per_execution": 1}, marks=pytest.mark.slow),
        pytest.param(
            {"binarize": "stochastic", "train": "train[10:74]"}, {"steps_per_execution": 3}, marks=pytest.mark.slow
        ),
    ],
    ids=["ragged", "chunks and a ragged rest", "no rest, batch by batch", "a slice"],
)
def test_the_fast_path_trains_as_the_ordinary_one(jit_compile, options, settings, paths):
    histories = []
    for route in (ordinary, lambda dataset: dataset):
        data = load(**options)
        vae = compiled(jit_compile=jit_compile, **settings)
        fit = vae.fit(route(data.train), validation_data=route(data.test), epochs=4, verbose=0)
        histories.append(fit.history)
    assert paths.count("fast")
    assert paths.count("ordinary")
    for name, values in histories[0].items():
        # Float32 rounding over twenty steps of Adam; XLA fuses the operations of a step differently inside a loop.
        np.testing.assert_allclose(histories[1][name], values, rtol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [True, *slow(False)])
def test_arrays_take_the_fast_path_and_train_as_in_eager_mode(shuffle, paths):
    x, _ = load(binarize="threshold").examples("train")
    losses = []
    for eager in (True, False):
        vae = compiled(run_eagerly=eager, jit_compile="auto")
        losses.append(vae.fit(x, batch_size=BATCH, epochs=3, shuffle=shuffle, verbose=0).history["loss"])
    assert (paths.count("fast"), paths.count("ordinary")) == (
        3,
        15,
    )  # an epoch is one call of the loop, or five eager steps
    np.testing.assert_allclose(*losses, rtol=2e-5)  # float32 rounding over fifteen steps


@pytest.mark.slow
def test_an_epoch_uses_each_image_once_and_weighs_it_once(paths):
    # With a learning rate of 0, the mean over an epoch is the mean over 70 images. Each has weight 1/70, also in the
    # last batch, which is smaller.
    data = load(binarize="threshold")
    vae = compiled(keras.optimizers.SGD(0.0), steps_per_execution=2)
    vae.build((None, *data.info.image_shape))
    x, _ = data.examples("train")
    mean, log_var = vae.encode(x)
    kl = kvae.model.densities.gaussian_kl(mean, log_var).numpy().sum(axis=-1).mean()
    history = vae.fit(data.train, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["kl"], [kl, kl], rtol=1e-5)  # a sum of 70 float32
    assert paths.count("fast") == 2 * 3


def test_each_epoch_has_its_own_order():
    images = load().train.in_memory
    epochs = [images.next_epoch() for _ in range(3)]
    orders = [indices.numpy() for _, indices in epochs]
    assert [int(number) for number, _ in epochs] == [0, 1, 2]
    for order in orders:
        assert sorted(order) == list(range(IMAGES))
    assert not (orders[0] == orders[1]).all()
    assert not (orders[1] == orders[2]).all()


class Recorded(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.begins, self.ends, self.losses = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.begins.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(batch)
        self.losses.append(float(logs["loss"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "begins", "ends"),
    [(2, [0, 2, 4], [1, 3, 4]), (1, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]), ("auto", [0], [4])],
)
def test_batch_callbacks_are_called_once_per_group_with_exact_numbers(steps, begins, ends):
    recorded = []
    for route in (ordinary, lambda dataset: dataset):
        seen = Recorded()
        compiled(steps_per_execution=steps).fit(route(load().train), callbacks=[seen], verbose=0)
        recorded.append(seen)
    for seen in recorded:
        assert (seen.begins, seen.ends) == (begins, ends)
    # Means of the batches so far; float32 rounding, because the loop may order its operations differently.
    np.testing.assert_allclose(recorded[0].losses, recorded[1].losses, rtol=2e-5)


def test_a_callback_can_stop_the_training_within_an_epoch():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    vae = compiled(steps_per_execution=2)
    vae.fit(load().train, epochs=3, callbacks=[Stop()], verbose=0)
    assert int(vae.optimizer.iterations) == 2


def test_a_diverging_training_is_stopped_by_terminate_on_nan():
    vae = compiled(keras.optimizers.SGD(1e30))
    history = vae.fit(load().train, epochs=5, callbacks=[keras.callbacks.TerminateOnNaN()], verbose=0).history
    assert len(history["loss"]) == 1


@pytest.mark.slow
def test_the_loop_follows_schedules_and_a_learning_rate_that_a_callback_sets():
    def histories(route):
        beta = kvae.objectives.LinearWarmup(2.0, 12)
        vae = compiled(vae=kvae.VAE(2, hidden_units=(8,), beta=beta, seed=1))
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (1 + epoch))
        return vae.fit(route(load().train), epochs=3, callbacks=[schedule], verbose=0).history

    one, other = histories(ordinary), histories(lambda dataset: dataset)
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=2e-5)  # float32 rounding over fifteen steps
    np.testing.assert_allclose(one["learning_rate"], [0.01, 0.005, 0.01 / 3])


@pytest.mark.slow
def test_the_progress_bar_counts_the_batches(capsys):
    compiled().fit(load().train, verbose=1)
    assert "5/5" in capsys.readouterr().out


@pytest.mark.slow
def test_beta_may_be_set_between_two_calls_of_fit(paths):
    data, vae = load(), compiled(keras.optimizers.SGD(0.0))
    vae.fit(data.train, verbose=0)
    vae.beta = 0.0
    history = vae.fit(data.train, verbose=0).history
    np.testing.assert_allclose(history["loss"], history["reconstruction"], rtol=1e-6)  # float32
    assert paths.count("ordinary") == 0


@pytest.mark.slow
def test_evaluation_depends_neither_on_the_path_nor_on_the_batch_size(paths):
    vae = compiled()
    vae.fit(load().train, verbose=0)
    results = [
        vae.evaluate(route(load(batch_size=size).test), return_dict=True, verbose=0)
        for route in (ordinary, lambda dataset: dataset)
        for size in (16, 40)
    ]
    assert paths.count("fast") >= 3
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=2e-5)  # sums of 40 float32 in another order


@pytest.mark.parametrize("case", ["derived dataset", "run_eagerly", *slow("functions run eagerly")])
def test_cases_that_the_fast_path_cannot_serve_take_the_ordinary_path(case, paths):
    dataset, settings = load().train, {}
    if case == "derived dataset":
        dataset = dataset.map(lambda x: 1 - x)
    elif case == "run_eagerly":
        settings["run_eagerly"] = True
    if case == "functions run eagerly":
        tf.config.run_functions_eagerly(True)
    try:
        history = compiled(**settings).fit(dataset, verbose=0)
    finally:
        tf.config.run_functions_eagerly(False)
    assert "fast" not in paths
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.slow
def test_the_model_does_not_keep_the_data_after_fit():
    vae = compiled()

    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("stop here")

    data = load()
    with pytest.raises(RuntimeError, match="stop here"):
        vae.fit(data.train, validation_data=data.test, callbacks=[Fails()], verbose=0)
    # Otherwise the loop would use the old images for other data.
    assert np.isfinite(vae.fit(ordinary(data.train), verbose=0).history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_xla_does_not_compile_a_smaller_last_batch_unless_asked(jit_compile):
    vae, steps = compiled(jit_compile=jit_compile), compiled(jit_compile=False)
    histories = [model.fit(load().train, epochs=2, verbose=0).history for model in (vae, steps)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=2e-5)
    ((full_batches, last_batch),) = vae.train_function._loops.values()
    assert (full_batches._jit_compile, last_batch._jit_compile) == (True, jit_compile is True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "options", "expected"),
    [
        ("mlp", {}, (True, 50)),
        ("conv", {}, (False, 50)),  # XLA's convolutions are slower on a CPU
        ("mlp", {"run_eagerly": True}, (False, 1)),
        *slow(("conv", {"jit_compile": True, "steps_per_execution": 7}, (True, 7))),
    ],
)
def test_compile_chooses_by_network_and_a_saved_model_keeps_the_choice(encoder, options, expected, tmp_path):
    networks = kvae.networks
    make = {"mlp": lambda: networks.MLPEncoder(2, (8,)), "conv": lambda: networks.ConvEncoder(2, (2,), 4)}
    if encoder == "conv" and tf.config.list_logical_devices("GPU"):
        pytest.skip("On a GPU, convolutions are compiled too.")
    vae = kvae.VAE(encoder=make[encoder](), seed=0)
    vae.compile(keras.optimizers.Adam(1e-2), **options)
    assert (vae.jit_compile, vae.steps_per_execution) == expected
    if "run_eagerly" in options:
        return
    vae.fit(load().train, verbose=0)
    vae.save(tmp_path / "vae.keras")
    again = keras.saving.load_model(tmp_path / "vae.keras")
    assert (again.jit_compile, again.steps_per_execution) == expected
    for one, other in zip(vae.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_images_that_are_too_large_for_a_gpu_stay_on_the_host(monkeypatch, paths):
    monkeypatch.setattr(in_memory, "DEVICE_BYTES", IMAGES * 784 - 1)
    data, vae = load(), compiled()
    assert data.train.in_memory.fits_on_device  # Without a GPU, images of any size are on the device already.
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"] if kind == "GPU" else [])
    assert not data.train.in_memory.fits_on_device
    vae.fit(data.train, verbose=0)
    assert paths.count("fast") == 0
