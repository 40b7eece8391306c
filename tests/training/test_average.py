"""training.average: a moving average of the weights, which is evaluated, kept and saved instead of the last weights."""

import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from fit_paths import recorded_paths
from part_cases import Watch
from slow_cases import slow

import kvae
from kvae import evaluation, training
from kvae.internal.errors import KvaeWarning, UserError
from kvae.training import train_resume
from kvae.training.config import RunConfig
from kvae.training.runs import Run

pytestmark = [
    pytest.mark.filterwarnings("ignore:The model has collapsed"),  # as it may have, in so short a training
    pytest.mark.filterwarnings("ignore:At the end of this training of"),
]

MOMENTUM = 0.8
CONV = {"kind": "conv", "filters": [2, 3], "dense_units": 4}


def config(**keys) -> RunConfig:
    """A training of three epochs of three steps, which measures the ELBO of the test images after each epoch."""
    values = {"epochs": 3, "checkpoint_seconds": 0.0, "jit_compile": False, "average": MOMENTUM, "monitor_test": True}
    values.update(learning_rate=0.01, steps_per_execution=1)
    data = {"source": "mnist5k", "train": "train[:60]", "test": "test[:20]", "batch_size": 20}
    if "early_stopping" in keys:
        data["validation"] = "train[60:100]"
    model = {"network": keys.pop("network", {"kind": "mlp", "hidden_units": [8]})}
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


class Whole(NamedTuple):
    """A finished training, and what was seen of it."""

    run: Run
    average: Average
    interrupted: Path  # a copy of the folder of the run after the first epoch, as a killed process leaves it


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    average, folder = Average(), tmp_path_factory.mktemp("whole")
    watch = Watch(folder / "run", folder / "interrupted")
    with pytest.warns(KvaeWarning, match=r"training of 9 steps, 17% .*training\.average=0\.5\."):
        run = training.train(config(), watch.folder, verbose=0, extra=[average, watch])
    return Whole(run, average, watch.copy)


@pytest.mark.slow
def test_the_saved_model_has_the_average_of_the_weights_after_each_step(whole):
    assert_close(trainable(whole.run.load_model()), whole.average.weights)


def test_the_elbo_during_training_is_that_of_the_averaged_weights(whole):
    history, test = whole.run.history(), training.load_data(whole.run.config).test
    measured = evaluation.elbo(whole.run.load_model(), test, draws=200).elbo.mean
    assert history["val_elbo"][-1] == pytest.approx(measured, abs=0.5)  # one draw per image
    assert history["val_elbo"][-1] < history["elbo"][-1] - 5  # the weights of the training are far ahead


@pytest.mark.slow
def test_the_training_itself_goes_on_as_without_an_average(whole, tmp_path):
    plain = training.train(config(average=None, epochs=2, monitor_test=False), tmp_path / "run", verbose=0)
    assert plain.history()["loss"].tolist() == whole.run.history()["loss"][:2].tolist()


@pytest.mark.slow
def test_a_resumed_training_ends_as_an_uninterrupted_one(whole):
    assert contents(training.resume(whole.interrupted, verbose=0)) == contents(whole.run)


def test_a_process_that_was_killed_before_the_last_evaluation_leaves_the_average(whole, tmp_path):
    folder = shutil.copytree(whole.run.folder, tmp_path / "run")
    Run.open(folder).discard_results()
    assert contents(training.resume(folder, verbose=0)) == contents(whole.run)


@pytest.mark.parametrize(
    ("momentum", "steps", "advice"), [(0.999, 600, "0.9"), (0.9999, 5000, "0.99"), (0.5, 2, "0.5"), (0.99, 600, None)]
)
def test_an_average_over_more_steps_than_a_training_has_is_warned_of(momentum, steps, advice):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_resume._warn_of_long_average(config(average=momentum, epochs=1), steps)
    assert [str(each.message).rpartition("=")[2] for each in caught] == ([] if advice is None else [f"{advice}."])


@pytest.mark.parametrize("value", [0, 1, -0.5, True, "x"])
def test_a_momentum_is_a_number_between_0_and_1(value):
    with pytest.raises(UserError, match=r"training\.average: .*Received"):
        config(average=value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"jit_compile": True},
        {"precision": "mixed_float16"},
        {"optimizer": "nadam", "early_stopping": 1, "learning_rate": 0.3, "epochs": 12},
        {"optimizer": "lion"},
        {"optimizer": "muon"},
        {"optimizer": "muon", "network": CONV, "precision": "mixed_float16"},
    ],
    ids=lambda keys: "-".join(str(value) for value in keys.values() if value != CONV),
)
def test_every_kind_of_training_with_an_average_resumes_bit_for_bit(keys, tmp_path):
    whole = training.train(config(**keys), tmp_path / "whole", verbose=0)
    epochs = len(whole.history()["epoch"])
    assert epochs < 12
    with pytest.raises(KeyboardInterrupt):
        training.train(config(**keys), tmp_path / "run", verbose=0, extra=[Stop(epochs - 1)])
    assert contents(training.resume(tmp_path / "run", verbose=0)) == contents(whole)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("path", ["fast", *slow("ordinary")])
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
