"""`fit`, `evaluate` and `predict` of Keras: data in every form, options of `compile`, callbacks, seeds."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow
from small_models import compiled, tiny

import kvae
from kvae.internal.errors import UserError
from kvae.model import networks

pytestmark = pytest.mark.usefixtures("without_xla")  # but where a test asks for it


def losses(x, **options):
    return compiled(tiny(), **options).fit(x, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]


PLAIN = {}  # the losses without XLA, trained once: `x` is the same in every test


@pytest.mark.parametrize(
    "likelihood", ["bernoulli", "learned", *slow("continuous_bernoulli", "gaussian", "squared_error")]
)
def test_every_likelihood_learns(likelihood, x):
    if likelihood == "learned":
        likelihood = kvae.likelihoods.Gaussian("learned")
    vae = compiled(tiny(likelihood=likelihood))
    losses = vae.fit(x, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"jit_compile": True},
        {"run_eagerly": True},
        {"steps_per_execution": 3},
        *slow({"jit_compile": True, "steps_per_execution": 3}),
    ],
    ids=str,
)
def test_every_way_to_run_gives_the_same_training(options, x):
    if not PLAIN:
        PLAIN["losses"] = losses(x, jit_compile=False)
    # Nine float32 steps in another order of operations.
    np.testing.assert_allclose(losses(x, **options), PLAIN["losses"], rtol=1e-4)


@pytest.mark.parametrize("as_data", [lambda x: x, *slow(lambda x: tf.data.Dataset.from_tensor_slices((x, x)).batch(8))])
def test_every_metric_is_there_in_training_and_in_validation(as_data, x):
    history = compiled(tiny()).fit(as_data(x), validation_data=as_data(x), epochs=2, verbose=0).history
    names = {"loss", "elbo", "reconstruction", "kl"}
    assert set(history) == names | {f"val_{name}" for name in names}


@pytest.mark.parametrize("weights", [{"sample_weight": np.ones(23)}, {"class_weight": {0: 1.0}, "y": np.zeros(23)}])
def test_weights_are_refused(weights, x):
    with pytest.raises(UserError, match="sample_weight"):
        compiled(tiny()).fit(x, verbose=0, **weights)


@pytest.mark.parametrize("options", [{"loss": "mse"}, {"metrics": ["mae"]}])
def test_a_loss_or_metric_of_the_users_is_refused(options, x):
    vae = tiny()
    vae.compile(optimizer="adam", **options)
    for use in (lambda: vae.fit(x, verbose=0), lambda: vae.evaluate(x, verbose=0), lambda: vae.train_on_batch(x)):
        with pytest.raises(UserError, match="without loss= and metrics="):
            use()
    vae.compile(optimizer="adam", run_eagerly=True)  # as the error says
    assert np.isfinite(vae.fit(x, verbose=0).history["loss"]).all()


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_penalties_of_layers_in_every_precision_count_in_the_loss(dtype, x):
    encoder = networks.MLPEncoder(2, (5,), kernel_regularizer=keras.regularizers.L2(0.5), dtype=dtype, seed=1)
    vae = kvae.VAE(encoder=encoder, decoder=networks.MLPDecoder(x.shape[1:], (5,), seed=2), seed=0)
    vae.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    found = vae.fit(x, batch_size=len(x), shuffle=False, verbose=0).history
    penalty = sum(float(term) for term in vae.losses)
    assert penalty > 1
    assert found["loss"][0] == pytest.approx(found["reconstruction"][0] + found["kl"][0] + penalty, rel=1e-4)


@pytest.mark.parametrize("fraction", [1.0, 0.99999, -0.5])
def test_a_validation_split_leaves_images_on_both_sides_or_is_refused(fraction, x):
    with pytest.raises(UserError, match="validation_split that leaves images"):
        compiled(tiny()).fit(x, validation_split=fraction, verbose=0)


def test_grey_pixels_under_a_continuous_likelihood_do_not_warn(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(tiny(likelihood="continuous_bernoulli")).fit(x * 0.5, verbose=0)


def test_predict_is_the_reconstruction_at_the_posterior_mean(vae, x):
    np.testing.assert_allclose(vae.predict(x, verbose=0), vae.reconstruct(x), atol=1e-6)  # float32 in (0, 1)


@pytest.mark.slow
def test_callbacks_of_keras_work(x, tmp_path):
    pytest.importorskip("tensorboard")
    vae = compiled(tiny())
    callbacks = [
        keras.callbacks.EarlyStopping(monitor="val_elbo", mode="max", patience=1, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_elbo", mode="max", save_best_only=True),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    vae.fit(x, validation_data=x, epochs=3, callbacks=callbacks, verbose=0)
    best = keras.saving.load_model(tmp_path / "best.keras")
    assert isinstance(best, kvae.VAE)
    assert list((tmp_path / "logs").rglob("events*"))


def test_terminate_on_nan_stops_a_diverging_training(x):
    vae = tiny()
    vae.compile(optimizer=keras.optimizers.SGD(1e30))
    history = vae.fit(x, batch_size=8, epochs=5, callbacks=[keras.callbacks.TerminateOnNaN()], verbose=0).history
    assert len(history["loss"]) < 5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_with_float32_densities(policy, x):
    encoder = networks.MLPEncoder(2, (8,), seed=0, dtype=policy)
    vae = compiled(kvae.VAE(encoder=encoder, seed=0, dtype=policy))
    losses = vae.fit(x, epochs=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert vae.elbo(x, seed=0).dtype == tf.float32


@pytest.mark.slow
def test_one_seed_gives_the_same_weights_bit_for_bit(x):
    trained = []
    for _ in range(2):
        vae = compiled(tiny(seed=3))
        vae.fit(x, batch_size=8, epochs=2, verbose=0)
        trained.append(vae.get_weights())
    for first, second in zip(*trained, strict=True):
        np.testing.assert_array_equal(first, second)


def test_without_a_seed_the_global_one_counts():
    seeds = []
    for _ in range(2):
        keras.utils.set_random_seed(12)
        seeds.append(kvae.VAE().seed)
    assert seeds[0] == seeds[1]
    assert kvae.VAE().seed != seeds[0]


@pytest.mark.slow
def test_validation_does_not_change_the_training(x):
    with_, without = (compiled(tiny()) for _ in range(2))
    with_.fit(x, validation_data=x, epochs=3, verbose=0)
    without.fit(x, epochs=3, verbose=0)
    for first, second in zip(with_.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_positional_arguments_of_fit_are_those_of_keras(x):
    by_place, by_name = (compiled(tiny()) for _ in range(2))
    by_place.fit(x, x, 10, 2, 0)
    by_name.fit(x, y=x, batch_size=10, epochs=2, verbose=0)
    assert by_place.history.history == by_name.history.history
    assert int(by_place.optimizer.iterations) == 6


def test_fit_before_compile_says_so(x):
    with pytest.raises(ValueError, match="compile"):
        tiny().fit(x)


def test_an_array_is_shuffled_anew_every_epoch_and_each_image_seen_once(x):
    vae = compiled(tiny())
    images, _, options = vae._images_of_array(x, None, None, {"batch_size": 10})
    dataset = images.dataset()
    epochs = [np.concatenate(list(dataset.as_numpy_iterator())) for _ in range(2)]
    assert options == {"validation_batch_size": 10}
    assert not np.array_equal(epochs[0], epochs[1])
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch.reshape(23, -1), axis=0), np.sort(x.reshape(23, -1), axis=0))


def test_validation_split_takes_the_last_images_as_in_keras(x):
    vae = compiled(tiny())
    images, (held_out, _), _ = vae._images_of_array(x, None, None, {"validation_split": 0.25})
    np.testing.assert_array_equal(held_out, x[17:])  # floor(23 * 0.75)
    assert sum(len(batch) for batch in images.dataset()) == 17


@pytest.mark.slow
def test_beta_may_change_between_two_fits(x):
    vae = compiled(tiny(beta=1.0))
    vae.fit(x, verbose=0)
    vae.beta = 100.0
    logs = vae.fit(x, verbose=0).history
    assert logs["loss"][0] == pytest.approx(logs["reconstruction"][0] + 100 * logs["kl"][0], rel=1e-5)


def test_the_precision_policy_reaches_the_networks():
    vae = kvae.VAE(2, dtype="mixed_bfloat16")
    vae.build((None, 4))
    assert vae.encoder.hidden[0].compute_dtype == vae.decoder.hidden[0].compute_dtype == "bfloat16"
