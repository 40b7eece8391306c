"""training.average: a moving average of the weights, which is evaluated, kept and saved instead of the last weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from fit_paths import recorded_paths

import kvae
from kvae import evaluation, training
from kvae.training.config import RunConfig
from kvae.training.runs import Run

MOMENTUM = 0.8


def config(**keys) -> RunConfig:
    """A training of three epochs of three steps, which measures the ELBO of the test images after each epoch."""
    values = {"epochs": 3, "checkpoint_seconds": 0.0, "jit_compile": False, "average": MOMENTUM, "monitor_test": True}
    values.update(learning_rate=0.01, steps_per_execution=1)
    data = {"source": "mnist5k", "train": "train[:60]", "test": "test[:20]", "batch_size": 20}
    if "early_stopping" in keys:
        data["validation"] = "train[60:100]"
    model = {"hidden_units": [8]}
    return RunConfig.from_dict({"data": data, "model": model, "training": {**values, **keys}})


class Average(keras.callbacks.Callback):
    """The average of the weights after each step, computed with NumPy; it begins with those after the first step."""

    def __init__(self):
        super().__init__()
        self.weights = None

    def on_train_batch_end(self, batch, logs=None):
        now = [weight.numpy() for weight in self.model.trainable_variables]
        if self.weights is None:
            self.weights = now
        else:
            pairs = zip(self.weights, now, strict=True)
            self.weights = [MOMENTUM * average + (1 - MOMENTUM) * weight for average, weight in pairs]


class Stop(keras.callbacks.Callback):
    """Ends a training at the beginning of an epoch, as far as Python can."""

    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise KeyboardInterrupt


def trainable(vae) -> list[np.ndarray]:
    return [weight.numpy() for weight in vae.trainable_variables]


def assert_close(weights, expected):
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-5, atol=1e-7)


def contents(run: Run) -> list[object]:
    """What an interrupted and an uninterrupted training must have in common, bit for bit."""
    weights = [weight.tobytes() for weight in run.load_model().get_weights()]
    return [weights, run.history_file.read_text(), (run.folder / "evaluation.json").read_text()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Run, Average]:
    average = Average()
    folder = tmp_path_factory.mktemp("whole") / "run"
    return training.train(config(), folder, verbose=0, extra=[average]), average


def test_the_saved_model_has_the_average_of_the_weights_after_each_step(whole):
    run, average = whole
    assert_close(trainable(run.load_model()), average.weights)


def test_the_elbo_during_training_is_that_of_the_averaged_weights(whole):
    run, _ = whole
    test = training.load_data(run.config).test
    measured = evaluation.elbo(run.load_model(), test, draws=200).elbo.mean
    assert run.history()["val_elbo"][-1] == pytest.approx(measured, abs=0.5)  # one draw per image
    assert run.history()["val_elbo"][-1] < run.history()["elbo"][-1] - 5  # the weights of the training are far ahead


def test_the_training_itself_goes_on_as_without_an_average(whole, tmp_path):
    plain = training.train(config(average=None), tmp_path / "run", verbose=0)
    assert plain.history()["loss"].tolist() == whole[0].history()["loss"].tolist()


def test_a_resumed_training_ends_as_an_uninterrupted_one(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        training.train(config(), tmp_path / "run", verbose=0, extra=[Stop(1)])
    assert contents(training.resume(tmp_path / "run", verbose=0)) == contents(whole[0])


def test_a_process_that_was_killed_before_the_last_evaluation_leaves_the_average(whole, tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(config(), tmp_path / "run", verbose=0)
    assert contents(training.resume(tmp_path / "run", verbose=0)) == contents(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"jit_compile": True},
        {"precision": "mixed_float16"},
        {"optimizer": "nadam", "early_stopping": 1, "learning_rate": 0.3, "epochs": 12},
        {"optimizer": "lion"},
        {"optimizer": "muon"},
    ],
    ids=lambda keys: "-".join(map(str, keys.values())),
)
def test_every_kind_of_training_with_an_average_resumes_bit_for_bit(keys, tmp_path):
    whole = training.train(config(**keys), tmp_path / "whole", verbose=0)
    epochs = len(whole.history()["epoch"])
    assert epochs < 12
    with pytest.raises(KeyboardInterrupt):
        training.train(config(**keys), tmp_path / "run", verbose=0, extra=[Stop(epochs - 1)])
    assert contents(training.resume(tmp_path / "run", verbose=0)) == contents(whole)


def test_early_stopping_keeps_averaged_weights(tmp_path):
    kept = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept.append((logs["val_elbo"], trainable(self.model)))

    keys = {"early_stopping": 1, "learning_rate": 0.3, "epochs": 12}
    run = training.train(config(**keys), tmp_path / "run", verbose=0, extra=[Spy()])
    best = max(range(len(kept)), key=lambda epoch: kept[epoch][0])
    assert best < len(kept) - 1
    for weight, expected in zip(trainable(run.load_model()), kept[best][1], strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("path", ["fast", "ordinary"])
def test_an_optimizer_of_keras_with_an_average_gives_what_keras_gives(digits, path):
    average = Average()
    vae = kvae.VAE(2, hidden_units=(8,), seed=0)
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=MOMENTUM)
    vae.compile(optimizer, steps_per_execution=1, jit_compile=False)
    x = digits[:60]
    data = x if path == "fast" else tf.data.Dataset.from_tensor_slices(x).batch(20)
    with recorded_paths() as taken:
        vae.fit(data, batch_size=20 if path == "fast" else None, epochs=1, callbacks=[average], verbose=0)
    assert set(taken) == {path}
    assert_close(trainable(vae), average.weights)
