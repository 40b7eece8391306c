"""A model of classes: its networks take the label, and every method accepts labels in place of one-hot vectors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import SHAPE, compiled

import kvae
from kvae import networks
from kvae.data.in_memory import ImageDataset
from kvae.internal.errors import UserError
from kvae.noise import portable

CLASSES = 3
pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested


def labelled(**options):
    """A model of 3 classes, built for images of `SHAPE`, whose decoder depends visibly on z and on the label."""
    vae = kvae.VAE(**{"latent_dim": 2, "hidden_units": (8,), "condition": CLASSES, "seed": 0, **options})
    vae.build((None, *SHAPE))
    return vae


@pytest.fixture(scope="module")
def vae():
    return labelled()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).integers(0, 2, (7, *SHAPE)).astype(np.float32)


LABELS = np.array([0, 2, 1, 1, 0, 2, 2])
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[LABELS]

FAMILIES = {
    "mlp": lambda **options: networks.MLPEncoder(2, (7, 5), **options),
    "conv": lambda **options: networks.ConvEncoder(2, (4, 6), 8, **options),
    "residual": lambda **options: networks.ResidualEncoder(2, (4, 6), 1, 2, 8, **options),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(CLASSES,), (2, 2), ()], ids=str)
def test_both_networks_join_the_condition_to_their_inputs(family, shape, rng):
    encoder = FAMILIES[family](condition_shape=shape, seed=0)
    decoder = encoder.mirror(SHAPE)
    inputs = {encoder: rng.random((2, *SHAPE), np.float32), decoder: rng.random((2, 2), np.float32)}
    for network, values in inputs.items():
        assert networks.takes_condition(network)
        first, second = (network(values, condition=rng.random((2, *shape), np.float32)) for _ in range(2))
        assert not np.allclose(first[0], second[0])
        with pytest.raises(UserError, match="Expected condition="):
            network(values)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_option_nothing_of_a_network_changes(family, rng):
    plain, again = (FAMILIES[family](seed=0, **options) for options in ({}, {"condition_shape": None}))
    x = rng.random((2, *SHAPE), np.float32)
    np.testing.assert_array_equal(plain(x)[0], again(x, condition=np.ones((2, 1)))[0])
    assert not networks.takes_condition(plain)
    assert not networks.takes_condition(plain.mirror(SHAPE))
    assert "condition_shape" not in plain.get_config()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_gives_its_networks_the_condition_and_is_saved_with_it(family, x, tmp_path):
    vae = kvae.VAE(encoder=FAMILIES[family](seed=0), condition=CLASSES, seed=0)
    vae.build((None, *SHAPE))
    assert vae.encoder.condition_shape == vae.decoder.condition_shape == vae.condition_shape == (CLASSES,)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(loaded.elbo(x, 1, LABELS), vae.elbo(x, 1, LABELS))


def test_keras_exports_a_model_with_its_condition(x, tmp_path):
    vae = compiled(labelled())
    vae.predict((x, LABELS), verbose=0)
    vae.export(tmp_path / "out", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    found = served(x=x, condition=ONE_HOT)["output_0"]
    np.testing.assert_allclose(found, vae(x, LABELS), rtol=1e-5, atol=1e-6)


def test_the_shape_of_a_condition_can_be_given(x):
    vae = labelled(condition=(2, 2))
    assert vae.condition_shape == (2, 2)
    assert vae.elbo(x, 0, np.ones((7, 2, 2))).shape == 7


@pytest.mark.parametrize(
    "call",
    [
        lambda vae, x, y: vae.encode(x, y).mean,
        lambda vae, x, y: vae.decode(np.ones((7, 2)), y),
        lambda vae, x, y: vae.decode(np.ones((2, 7, 2)), y),
        lambda vae, x, y: vae.reconstruct(x, 1, y),
        lambda vae, x, y: vae.sample(portable.seeds(7, 0), y).means,
        lambda vae, x, y: vae.generate_means(7, 0, y),
        lambda vae, x, y: vae.elbo(x, 0, y),
        lambda vae, x, y: vae.log_joint(x, np.ones((7, 2)), y),
        lambda vae, x, y: vae(x, y),
        lambda vae, x, y: kvae.evaluation.elbo(vae, (x, y)).elbo.per_example,
        lambda vae, x, y: kvae.runtime.keras.KerasDecoder(vae).sample(portable.seeds(7, 0), y).means,
        lambda vae, x, y: kvae.runtime.keras.KerasDecoder(vae).decode(np.ones((7, 2)), y).means,
        lambda vae, x, y: kvae.completion.complete(vae, x, "top", samples=5, steps=3, condition=y).means,
    ],
)
def test_labels_are_taken_in_place_of_their_vectors(vae, x, call):
    of_labels, of_vectors = (np.asarray(call(vae, x, y)) for y in (LABELS, ONE_HOT))
    np.testing.assert_allclose(of_labels, of_vectors, rtol=1e-5, atol=1e-6)
    others = np.asarray(call(vae, x, (LABELS + 1) % CLASSES))
    assert not np.allclose(of_labels, others, rtol=1e-3)


def test_a_single_label_is_that_of_all_images(vae, x):
    twos = np.full(7, 2)
    np.testing.assert_array_equal(vae.decode(np.ones((7, 2)), 2), vae.decode(np.ones((7, 2)), twos))
    np.testing.assert_array_equal(vae.generate_means(7, 0, 2), vae.generate_means(7, 0, twos))
    np.testing.assert_array_equal(vae.encode(x, 2).mean, vae.encode(x, twos).mean)
    decoder = kvae.runtime.keras.KerasDecoder(vae)
    np.testing.assert_array_equal(decoder.sample([1, 2], 2).means, decoder.sample([1, 2], [2, 2]).means)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.int32, np.uint16])
def test_labels_may_be_whole_numbers_of_any_type_also_in_a_graph(vae, kind):
    decode = tf.function(vae.decode)
    wanted = vae.decode(np.ones((7, 2)), ONE_HOT)
    np.testing.assert_allclose(decode(tf.ones((7, 2)), tf.constant(LABELS.astype(kind))), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ([0, 1, 3, 0, 0, 0, 0], r"Expected labels in 0\.\.2, because the model has 3 classes\. Received 3"),
        ([0, 1, -1, 0, 0, 0, 0], r"Expected labels in 0\.\.2.* Received -1"),
        (3, r"Expected labels in 0\.\.2.* Received 3"),
        (
            [0.0] * 7,
            r"Expected a condition \[7, 3\], or labels \[7\], whole numbers in 0\.\.2\. Received \[7\] of float32",
        ),
        (
            None,
            r"Expected a condition \[7, 3\], or labels \[7\], whole numbers in 0\.\.2 for this model\. Received none",
        ),
    ],
)
def test_what_is_no_label_is_refused(vae, x, condition, message):
    with pytest.raises(UserError, match=message):
        vae.encode(x, condition)


def test_predictions_take_labels_and_refuse_those_that_are_no_class(x):
    vae = compiled(labelled())
    labels = np.arange(len(x)) % 3
    wanted = vae.predict((x, labels), verbose=0)
    np.testing.assert_allclose(vae.predict_on_batch((x, labels)), wanted, rtol=1e-5)
    batches = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4)
    np.testing.assert_allclose(vae.predict(batches, verbose=0), wanted, rtol=1e-5)
    with pytest.raises(UserError, match=r"Expected labels in 0\.\.2"):
        vae.predict(batches.map(lambda x, y: (x, y + 1)), verbose=0)
    with pytest.raises(UserError, match=r"Expected labels in 0\.\.2"):
        vae.predict_on_batch((x, labels + 1))
    with pytest.raises(UserError, match="y is the condition of this model"):
        vae.predict_on_batch(x)


def test_labels_of_images_in_memory_are_checked_before_the_training(x):
    vae = compiled(labelled())
    wrong = np.array([0, 1, 2, 0, 1, 2, 3])
    dataset = kvae.data.in_memory.ImagesInMemory(x, kvae.data.in_memory.as_float32, 4, condition=wrong).dataset()
    for arguments in ((x, wrong), (dataset,)):
        with pytest.raises(UserError, match=r"Expected labels in 0\.\.2"):
            vae.fit(*arguments, verbose=0)
    assert int(vae.steps) == 0


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_labels_of_other_batches_are_checked_as_they_come(x, eager):
    batches = tf.data.Dataset.from_tensor_slices((x, np.array([0, 1, 2, 0, 1, 2, 3]))).batch(4)
    vae = compiled(labelled(), run_eagerly=eager)
    for run in (vae.fit, vae.evaluate):
        with pytest.raises(UserError, match=r"Expected labels in 0\.\.2.* Received 3"):
            run(batches, verbose=0)
    assert np.isfinite(vae.get_weights()[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("y", [LABELS, 1], ids=["labels", "one label"])
def test_both_paths_of_fit_train_on_labels_as_on_vectors(paths, x, y):
    vectors = np.eye(CLASSES, dtype=np.float32)[np.broadcast_to(y, 7)]
    fast = compiled(labelled()).fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
    of_vectors = compiled(labelled()).fit(x, vectors, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert set(paths) == {"fast"}
    batches = tf.data.Dataset.from_tensor_slices((x, np.broadcast_to(y, 7))).batch(4)
    ordinary = compiled(labelled()).fit(ImageDataset(batches, 2, binary=True), epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(fast, of_vectors, rtol=1e-6)
    np.testing.assert_allclose(fast, ordinary, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kvae.VAE(2, condition=3, condition_shape=(3,)), "either condition= or condition_shape="),
        (lambda: kvae.VAE(2, condition=0), "number of classes"),
        (lambda: kvae.VAE(2, condition=True), "number of classes"),
        (lambda: kvae.VAE(encoder=networks.MLPEncoder(2, condition_shape=(4,)), condition=3), r"shape \(3,\)"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_network_that_was_built_without_a_condition_is_refused(x):
    encoder = networks.MLPEncoder(2)
    encoder(x)
    with pytest.raises(UserError, match="not built yet"):
        kvae.VAE(encoder=encoder, condition=3)
