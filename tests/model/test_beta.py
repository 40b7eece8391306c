"""The weight of the KL term follows callbacks, variables and schedules, in training and in validation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow

import kvae
from kvae.internal.errors import UserError
from kvae.model.loop import StepFunction

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (60, 4, 4, 1)).astype(np.float32)


def small(beta=1.0, **options):
    vae = kvae.VAE(2, hidden_units=(4,), beta=beta, seed=0)
    vae.compile(keras.optimizers.SGD(0.0), **options)
    return vae


def betas(vae, data, *callbacks, epochs=3, **options):
    """The weight that the losses of each epoch show: of training, and of validation on the same data."""
    history = vae.fit(
        data, validation_data=data, epochs=epochs, callbacks=list(callbacks), verbose=0, **options
    ).history
    return tuple(
        [
            pytest.approx((loss - reconstruction) / kl, rel=1e-3, abs=1e-3)  # differences of float32 means
            for loss, reconstruction, kl in zip(*(history[kind + name] for name in NAMES), strict=True)
        ]
        for kind in ("", "val_")
    )


NAMES = ("loss", "reconstruction", "kl")


class Setting(keras.callbacks.Callback):
    """Sets `model.beta` at the begin of each epoch, as many write KL annealing."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_begin(self, epoch, logs=None):
        self.model.beta = self.values[epoch]


@pytest.fixture
def made(monkeypatch):
    """How often a model made compiled functions."""
    count, make = [], StepFunction._compile_all
    monkeypatch.setattr(StepFunction, "_compile_all", lambda self: (count.append(1), make(self))[1])
    return count


def as_dataset(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(20)


@pytest.mark.slow
@pytest.mark.parametrize("route", [lambda x: x, as_dataset], ids=["array", "dataset"])
@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.5, 2.0],
        *slow([np.float32(0), np.float64(0.5), 2], [tf.constant(0.0), np.array(0.5), tf.constant(2.0)]),
    ],
)
def test_a_callback_sets_beta_without_another_compilation(route, values, x, made):
    vae = small()
    assert betas(vae, route(x), Setting(values)) == ([0.0, 0.5, 2.0], [0.0, 0.5, 2.0])
    assert vae.beta == 2.0
    assert len(made) == 2  # the functions for training and for validation


@pytest.mark.slow
def test_a_callback_sets_beta_before_single_batches(x):
    class EachBatch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.beta = float(batch)

    vae = small(steps_per_execution=1)
    training, validation = betas(vae, x, EachBatch(), epochs=1, batch_size=20)
    assert validation == [2.0]
    assert 0 < training[0].expected < 2


@pytest.mark.slow
@pytest.mark.parametrize("make", [tf.Variable, keras.Variable], ids=["tf", "Keras"])
def test_a_variable_counts_with_its_value_at_each_step(make, x, tmp_path):
    weight = make(0.0)
    assign = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: weight.assign(float(epoch)))
    vae = small(weight)
    assert betas(vae, x, assign) == ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    assert vae.beta is weight
    vae.save(tmp_path / "vae.keras")
    assert keras.saving.load_model(tmp_path / "vae.keras").beta == 2.0


def with_condition(step):
    if step < 3:
        return 0.0
    return 1.0


SCHEDULES = {  # values in three epochs of three steps each, and at the steps 3, 6 and 9
    "with a final value": (kvae.objectives.LinearWarmup(3.0, 6), [0.5, 2, 3], [3, 3, 3]),
    "lambda": (lambda step: 0.5, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "operations": (lambda step: tf.cast(step, tf.float32), [1, 4, 7], [3, 6, 9]),
    "arithmetic": (lambda step: step / 2, [0.5, 2, 3.5], [1.5, 3, 4.5]),
    "condition": (with_condition, [0, 1, 1], [1, 1, 1]),
    "of Keras": (keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.0, 3.0]), [0, 3, 3], [3, 3, 3]),
    "decay of Keras": (keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0), [0.1, 0.4, 0.7], [0.3, 0.6, 0.9]),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, *slow({"run_eagerly": True})], ids=["compiled", "eager"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_counts_with_its_value_at_each_step(schedule, options, x):
    beta, training, validation = SCHEDULES[schedule]
    one_image = np.repeat(x[:1], 60, axis=0)  # Then each step has the same KL term.
    assert betas(small(beta, **options), one_image, batch_size=20) == (training, validation)


@pytest.mark.slow
def test_a_schedule_under_xla_too(x):
    vae = small(with_condition, jit_compile=True)
    assert betas(vae, x, batch_size=20) == ([0, 1, 1], [1, 1, 1])


@pytest.mark.slow
def test_a_callback_may_replace_the_kind_of_beta_and_the_objective(x):
    class Replacing(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.beta = lambda step: 3.0
            if epoch == 2:
                self.model.objective = kvae.objectives.ELBO(7.0, samples=2)

    assert betas(small(), x, Replacing()) == ([1.0, 3.0, 7.0], [1.0, 3.0, 7.0])


@pytest.mark.parametrize("value", [-1.0, float("nan"), "half", None, [1.0, 2.0], True])
def test_another_value_is_refused_when_it_is_set(value, x):
    vae = small()
    with pytest.raises(UserError, match="Expected beta to be a finite number of at least 0"):
        vae.fit(x, callbacks=[Setting([value])], verbose=0)
    assert vae.beta == 1.0


def test_a_function_that_cannot_be_compiled_is_refused_by_name(x):
    def with_numpy(step):
        return np.tanh(step)

    with pytest.raises(UserError, match=r"function of the step that TensorFlow can compile.*with_numpy"):
        small(with_numpy).fit(x, verbose=0)


@pytest.mark.parametrize("before", [1.0, kvae.objectives.LinearWarmup(1.0, 5)])
def test_a_table_is_a_schedule(before):
    vae = small(before)
    vae.beta = {"kind": "linear", "beta": 2.0, "steps": 10}
    assert vae.beta.get_config() == {"beta": 2.0, "steps": 10, "start": 0.0}


def test_two_models_with_numbers_do_not_share_them(x):
    one, other = small(2.0), small(2.0)
    one.beta = 5.0
    assert (one.beta, other.beta) == (5.0, 2.0)
    assert kvae.VAE.from_config(one.get_config()).beta == 5.0
