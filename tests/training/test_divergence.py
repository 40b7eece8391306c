"""A training that diverges ends in one line: what diverged and when, what is kept and what to try."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import some

import kvae
from kvae import training
from kvae.internal.errors import UserError
from kvae.training.config import RunConfig
from kvae.training.divergence import Seen, StopAtDivergence, advice
from kvae.training.runs import Run

pytestmark = pytest.mark.usefixtures("without_xla")

STEPS = 4  # per epoch
LEARNED = {"kind": "gaussian", "variance": "learned"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The path of 20 random images of 6 x 5 pixels."""
    path = tmp_path_factory.mktemp("images") / "random.npz"
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 5), np.uint8)
    np.savez(path, x_train=x, x_test=x[:10])
    return path


@pytest.fixture
def make(images, tmp_path):
    """Trains or resumes the run of this test, and returns it or the message of its error."""

    def make(how=training.train, model=None, data=None, extra=(), **settings):
        values = {
            "data": {"source": f"npz:{images}", "batch_size": 5, **(data or {})},
            "model": {"hidden_units": [4], **(model or {})},
            "training": {"epochs": 3, "checkpoint_seconds": 0, **settings},
        }
        try:
            if how is training.resume:
                return training.resume(tmp_path / "run", verbose=0, extra=extra)
            return training.train(RunConfig.from_dict(values), tmp_path / "run", verbose=0, extra=extra)
        except UserError as error:
            return str(error)

    return make


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


class Spoils(keras.callbacks.Callback):
    """Sets a bias in the encoder at the end of the last batch of an epoch."""

    def __init__(self, epoch, value):
        super().__init__()
        self.epoch, self.value = epoch, value

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == STEPS - 1:
            fill(self.model.encoder.layers[1].bias, self.value)


class Collapses(keras.callbacks.Callback):
    """Sets the learned variance to e^-60 in epoch 2."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            fill(self.model.likelihood.trainable_variables[0], -60.0)


def fill(weight, value):
    weight.assign(np.full(weight.shape, value))


def last_bias(network):
    return next(weight for weight in reversed(network.weights) if weight.path.endswith("bias"))


@pytest.fixture
def spiky(monkeypatch):
    """The loss is infinite at step 7, within the group of the 4 steps of epoch 2."""

    def added_losses(self, x, draws):
        at = tf.equal(tf.convert_to_tensor(self.steps), 6)
        return {"spike": tf.where(at, np.inf, 0.0) * tf.ones(tf.shape(x)[0])}

    monkeypatch.setattr(kvae.VAE, "added_losses", added_losses, raising=False)


DIVERGING = {
    "rate": (
        {"learning_rate": 1e30},
        r"in epoch 1 at step 2\. NaN or infinite: loss, reconstruction, kl\. There is no checkpoint yet.* What to try: "
        r"a lower learning rate than 1e\+30, e\.g\. --learning-rate 1e\+29\.$",
    ),
    "rate of another optimizer": (
        {"learning_rate": 1e30, "optimizer": "sgd"},
        r"in epoch 1 at step 2\. NaN or infinite",
    ),
    "one step per call": ({"learning_rate": 1e30, "steps_per_execution": 1}, r"in epoch 1 at step 2\. NaN or infinite"),
    "L2": (
        {"model": {"decoder_l2": 1e38}},
        r"in epoch 1 at step 1\. "
        r"NaN or infinite: loss\. .* a lower model\.decoder_l2 \(1e\+38\), because .*finite, but not "
        r"the penalty that is added\.$",
    ),
    "beta": (
        {"model": {"beta": 3e38}},
        r"in epoch 1 at step 1\. "
        r"NaN or infinite: loss\. .* a lower model\.beta \(3e\+38\), because .* KL term times beta",
    ),
    "learned variance": (
        {"model": {"likelihood": LEARNED}, "extra": [Collapses()], "steps_per_execution": 1},
        r"in epoch 2 at step 7\. "
        r"NaN or infinite: loss, reconstruction, kl\. The checkpoint of epoch 1 is kept\. .* a fixed "
        r"model\.variance such as 0\.1, because the learned variance had fallen to 9e-27; a lower .*rate",
    ),
    "weights alone, first epoch": (
        {"extra": [Spoils(1, np.inf)]},
        r"in epoch 1 at its end\. NaN or infinite: \S*bias, although the loss was finite\. There is no checkpoint yet",
    ),
    "weights alone": (
        {"extra": [Spoils(2, np.inf)]},
        r"in epoch 2 at its end\. "
        r"NaN or infinite: \S*bias, although the loss was finite\. The checkpoint of epoch 1 is kept\. "
        r"kvae train --resume --out \S*run goes on from it",
    ),
    "weights, with early stopping": (
        {"extra": [Spoils(2, np.nan)], "early_stopping": 1}
        | {"data": {"train": "train[:15]", "validation": "train[15:]", "batch_size": 4}},
        r"in epoch 2 at its end\. "
        r"NaN or infinite: \S*bias, although the loss was finite\. The checkpoint of epoch 1 is kept\. ",
    ),
}


@pytest.mark.parametrize("case", some(DIVERGING, 2))
def test_a_diverging_training_says_what_when_what_is_kept_and_what_to_try(case, make, folder):
    options, message = DIVERGING[case]
    assert_matches(make(**options), r"The training diverged " + message)
    run = Run.open(folder)
    assert not run.finished
    assert not list(folder.glob("*.keras"))
    kept = list(run.checkpoints.glob("epoch-*")) if run.checkpoints.exists() else []
    assert bool(kept) == ("is kept" in message)
    for checkpoint in kept:
        weights = keras.saving.load_model(checkpoint / "model.keras").get_weights()
        assert all(np.isfinite(weight).all() for weight in weights)


def assert_matches(text, pattern):
    assert isinstance(text, str), "The training ended without an error."
    assert "\n" not in text
    assert re.match(pattern, text), text


@pytest.mark.slow
def test_the_step_within_a_group_is_exact_and_a_resume_comes_to_it_again(make, spiky):
    message = (
        r"The training diverged in epoch 2 at step 7\. NaN or infinite: loss, spike\. The checkpoint of epoch 1 is"
    )
    assert_matches(make(), message)
    assert_matches(make(training.resume), message)


@pytest.mark.slow
def test_a_resume_goes_on_from_the_last_good_epoch_bit_for_bit(make, folder, tmp_path):
    assert "diverged in epoch 3" in make(extra=[Spoils(3, np.nan)])
    resumed = make(training.resume)
    folder.rename(tmp_path / "resumed")
    whole = make()
    again = Run.open(tmp_path / "resumed").load_model().get_weights()
    for one, other in zip(again, whole.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert resumed.config == whole.config
    assert (tmp_path / "resumed" / "history.csv").read_bytes() == whole.history_file.read_bytes()


def test_weights_that_a_callback_spoils_before_the_checkpoint_are_not_written(make, folder):
    class SpoilsLate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                fill(last_bias(self.model.decoder), np.nan)

    assert_matches(make(extra=[SpoilsLate()]), r"Expected weights that are finite numbers\. The model has NaN")
    assert [path.name for path in Run.open(folder).checkpoints.iterdir()] == ["epoch-000001"]


@pytest.mark.slow
def test_mixed_float16_is_no_divergence(make):
    assert make(precision="mixed_float16").finished


def test_a_training_does_not_start_from_weights_that_are_not_finite(rng, tmp_path):
    vae = kvae.VAE(2, hidden_units=(4,), seed=0)
    vae.build((None, 6, 5, 1))
    vae.compile("adam")
    fill(last_bias(vae.decoder), np.nan)
    stop = StopAtDivergence(RunConfig(), tmp_path, tmp_path / "checkpoint")
    with pytest.raises(UserError, match=r"finite numbers to start the training from\. Received NaN .*bias"):
        vae.fit(np.zeros((4, 6, 5, 1), np.float32), callbacks=[stop], verbose=0)


@pytest.mark.slow
def test_a_value_of_a_callback_that_is_not_finite_does_not_damage_the_checkpoint(make):
    class Logs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["strange"] = np.nan if epoch == 0 else 1.0

    assert "diverged in epoch 3" in make(extra=[Logs(), Spoils(3, np.nan)])
    run = make(training.resume, extra=[Logs()])
    np.testing.assert_array_equal(run.history()["strange"], [np.nan, 1.0, 1.0])


@pytest.mark.slow
def test_an_evaluation_that_is_not_finite_is_refused_before_anything_is_written(make, folder):
    class Overflows(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            fill(last_bias(self.model.decoder), 1e38)  # finite, but not the sum over the pixels

    message = make(extra=[Overflows()], epochs=1)
    assert_matches(
        message, r"Expected a finite result of the evaluation\. Received NaN or infinity as elbo of 10 of 10"
    )
    assert not list(folder.glob("*.keras"))
    assert not (folder / "evaluation.json").exists()


RATE = "a lower learning rate than 0.001, e.g. --learning-rate 0.0001"
LOSS = {"loss": 1e9, "reconstruction": 200.0, "kl": 5.0}


@pytest.mark.parametrize(
    ("model", "seen", "expected"),
    [
        ({}, {}, [RATE]),
        ({}, {"before": LOSS, "losses": [300.0, 155.0]}, [f"{RATE}, because the loss had grown from 155 to 1e+09"]),
        ({}, {"step": 1, "terms": ("loss",)}, ["another seed, for other initial weights"]),
        ({"decoder_l2": 1e-3}, {}, [RATE]),
        ({"encoder_l2": 5.0}, {}, ["a lower model.encoder_l2 (5)", RATE]),
        ({"decoder_l2": 0.1}, {"before": LOSS}, ["a lower model.decoder_l2 (0.1), because the penalty was most", RATE]),
        ({"decoder_l2": 0.1}, {"before": {**LOSS, "loss": 206.0}}, [RATE]),
        ({"beta": 1e6}, {}, ["a lower model.beta (1e+06)", RATE]),
        ({"beta": 1e3}, {"before": LOSS}, ["a lower model.beta (1000), because the KL term times beta was most", RATE]),
        ({"beta": 4.0}, {"before": {**LOSS, "loss": 220.0}}, [RATE]),
        ({"likelihood": LEARNED}, {"variance": 1e-9}, ["a fixed model.variance such as 0.1", RATE]),
        ({"likelihood": LEARNED}, {"variance": 0.02}, [RATE]),
        ({"objective": {"kind": "iwae", "samples": 2}}, {"before": LOSS}, [RATE]),
    ],
    ids=str,
)
def test_the_advice_follows_the_evidence(model, seen, expected):
    config = RunConfig.from_dict({"model": model})
    known = {"step": 9, "terms": ("loss", "kl"), "before": {}, "losses": [], "variance": None, **seen}
    found = advice(config, Seen(**known))
    assert [each.startswith(start) for each, start in zip(found, expected, strict=True)] == [True] * len(expected)


def test_the_advice_names_the_precision():
    config = RunConfig.from_dict({"training": {"precision": "mixed_float16"}})
    assert "mixed_bfloat16" in advice(config, Seen(9, ("loss",), {}, [], None))[0]
