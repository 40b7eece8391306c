"""Extensions that keep the fast path, and the model's own step counter."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvae
from kvae.model import compiling
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream
from kvae.training.runs import Run

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (60, 6, 5, 1)).astype(np.float32)


def small(kind=kvae.VAE, **options):
    vae = kind(2, hidden_units=(8,), seed=1, **options)
    vae.compile(keras.optimizers.Adam(1e-2))
    return vae


class OwnStep(kvae.VAE):
    def train_step(self, data):
        return super().train_step(data)


class MarkedStep(kvae.VAE):
    @compiling.returns_metrics
    def train_step(self, data):
        return super().train_step(data)


class Extended(kvae.VAE):
    """Penalises means of q that are far from 0, and shows the mean of the first dimension."""

    def added_losses(self, x, draws):
        return {"distance": 3.0 * tf.reduce_sum(tf.square(draws.q.mean), axis=-1)}

    def added_metrics(self, x, draws):
        return {"first": draws.q.mean[:, 0]}


# Staying on the fast path


@pytest.mark.slow
def test_a_step_of_a_subclass_trains_as_that_of_kvae(x):
    own = small(OwnStep).fit(x, batch_size=25, epochs=2, verbose=0).history
    plain = small().fit(x, batch_size=25, epochs=2, verbose=0).history
    np.testing.assert_allclose(own["loss"], plain["loss"], rtol=2e-5)  # the same steps, compiled differently


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Extended, kvae.VAE, OwnStep, MarkedStep])
def test_these_models_keep_the_fast_path_without_a_warning(kind, x, paths):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(kind).fit(x, batch_size=20, validation_data=x, steps_per_epoch=2, validation_steps=1, verbose=0)
    assert set(paths) == {"fast"}


def test_eager_training_was_requested_and_needs_no_warning(x):
    vae = kvae.VAE(2, hidden_units=(8,), seed=1)
    vae.compile(run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        vae.fit(x[:20], batch_size=20, verbose=0)


# Extending


def test_an_added_loss_changes_the_loss_only_and_both_added_terms_are_metrics(x):
    vae = small(Extended)
    logs = vae.evaluate(x, batch_size=25, verbose=0, return_dict=True)
    mean = np.float64(vae.encode(x).mean)
    assert logs["distance"] == pytest.approx(3 * np.square(mean).sum(axis=1).mean(), rel=1e-5)
    assert logs["first"] == pytest.approx(mean[:, 0].mean(), abs=1e-6)
    assert logs["elbo"] == pytest.approx(-logs["reconstruction"] - logs["kl"], rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["reconstruction"] + logs["kl"] + logs["distance"], rel=1e-5)


@pytest.mark.slow
def test_an_added_loss_is_minimised(x):
    plain, extended = small(), small(Extended)
    for vae in (plain, extended):
        vae.fit(x, batch_size=20, epochs=30, verbose=0)
    distances = [float(tf.reduce_mean(tf.square(vae.encode(x).mean))) for vae in (plain, extended)]
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.slow
def test_added_terms_are_the_same_on_both_paths(x):
    fast = small(Extended).fit(x, batch_size=25, shuffle=False, epochs=2, verbose=0).history
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(25)
    ordinary = small(Extended).fit(dataset, epochs=2, verbose=0).history
    for name, values in fast.items():
        np.testing.assert_allclose(values, ordinary[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_the_metrics_of_an_objective_come_and_go_with_it(x):
    class Weighed(kvae.objectives.ELBO):
        def terms(self, draws):
            return {"weight": draws.log_weights[0]}

    vae = small(objective=Weighed())
    assert "weight" in vae.fit(x, verbose=0).history
    vae.objective = kvae.objectives.ELBO(2.0)
    history = vae.fit(x, verbose=0).history
    assert "weight" not in history
    assert history["loss"][0] == pytest.approx(history["reconstruction"][0] + 2 * history["kl"][0], rel=1e-5)


# Counting


@pytest.mark.slow
def test_every_path_counts_every_step(x):
    vae = small()
    vae.fit(x, batch_size=25, epochs=2, verbose=0)  # three batches, the last one with 10 images
    assert int(vae.steps) == 6
    vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(30), verbose=0)
    assert int(vae.steps) == 8
    vae.train_on_batch(x)
    assert int(vae.steps) == 9
    vae.evaluate(x, verbose=0)
    assert int(vae.steps) == 9


@pytest.mark.slow
def test_compiling_again_does_not_repeat_noise_order_or_schedule(x):
    warmup = kvae.objectives.LinearWarmup(1.0, steps=4)
    vae = small(beta=warmup)
    vae.fit(x, batch_size=15, verbose=0)
    vae.compile(keras.optimizers.Adam(1e-2))
    logs = vae.fit(x, batch_size=15, verbose=0).history
    assert int(vae.optimizer.iterations) == 4
    assert int(vae.steps) == 8
    assert logs["loss"][0] == pytest.approx(-logs["elbo"][0], rel=1e-6)  # beta stays at 1


@pytest.mark.slow
def test_the_count_decides_the_noise_of_a_step(x):
    losses = []
    for steps in (0, 5, 5):
        vae = small()
        vae.build(x.shape)
        vae.steps.assign(steps)
        noise = Keyed(1, Stream.TRAINING, steps, 0, tf.range(len(x)))
        expected = -float(tf.reduce_mean(vae.draw(x, noise).elbo))
        losses.append(vae.train_on_batch(x))
        assert losses[-1][0] == pytest.approx(expected, rel=1e-5)
    assert losses[1] == losses[2] != losses[0]


@pytest.mark.slow
def test_the_count_is_saved_although_it_is_not_a_weight(x, tmp_path):
    vae = small()
    vae.fit(x, batch_size=20, verbose=0)
    names = [weight.path for weight in vae.weights]
    assert not any("steps" in name for name in names)
    assert len(vae.get_weights()) == len(vae.encoder.get_weights()) + len(vae.decoder.get_weights())
    vae.save(tmp_path / "vae.keras")
    assert int(keras.saving.load_model(tmp_path / "vae.keras").steps) == 3
    vae.save_weights(tmp_path / "vae.weights.h5")
    other = small()
    other.build(x.shape)
    other.load_weights(tmp_path / "vae.weights.h5")
    assert int(other.steps) == 3


@pytest.mark.slow
def test_the_model_of_a_run_keeps_the_count(tmp_path):
    from kvae import training
    from kvae.training.config import RunConfig

    config = RunConfig.from_dict(
        {
            "data": {"source": "mnist5k", "train": "train[:60]", "test": "test[:20]", "batch_size": 25},
            "model": {"hidden_units": [4]},
            "training": {"epochs": 2},
        }
    )
    training.train(config, tmp_path / "run", verbose=0)
    assert int(Run.open(tmp_path / "run").load_model().steps) == 6


@pytest.mark.slow
def test_an_objective_gets_the_number_of_training_images(x):
    told = []

    class Told(kvae.objectives.ELBO):
        def build(self, data_size):
            told.append(data_size)

    vae = small(objective=Told())
    vae.fit(x, verbose=0)
    vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(30), verbose=0)
    vae.fit(kvae.data.load("mnist5k", train="train[:50]", batch_size=10).train.map(lambda x: x[:, :6, :5]), verbose=0)
    assert told == [60, None, None]


def test_setting_beta_keeps_the_rest_of_the_objective(x):
    class Own(kvae.objectives.ELBO):
        pass

    vae = small(objective=Own(1.0, samples=3, kl="sampled"))
    vae.beta = 4.0
    assert (type(vae.objective), vae.beta, vae.samples, vae.kl) == (Own, 4.0, 3, "sampled")
    vae.objective = kvae.objectives.Objective()
    with pytest.raises(kvae.internal.errors.UserError, match=r"objective ELBO.*This model has Objective"):
        vae.beta = 2.0
