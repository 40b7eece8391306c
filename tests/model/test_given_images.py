"""What users pass as images is read in the obvious way, or refused with a clear line."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from slow_cases import slow, some
from stock_keras import Batches, Loader

import kvae
from kvae.evaluation import evidence
from kvae.internal import blocks
from kvae.internal.errors import UserError
from kvae.model import given_images

pytestmark = pytest.mark.usefixtures("without_xla")  # many small models, of which XLA is not what is tested
SHAPE = (6, 5, 1)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, (40, *SHAPE)).astype(np.float32)


def small(run_eagerly=False, **options):
    vae = kvae.VAE(**{"latent_dim": 2, "hidden_units": (4,), "seed": 0, **options})
    vae.compile(keras.optimizers.Adam(0.01), run_eagerly=run_eagerly)
    return vae


def losses(x, *args, run_eagerly=False, **options):
    vae = small(run_eagerly)
    history = vae.fit(x, *args, **{"epochs": 2, "verbose": 0, **options}).history
    assert vae.image_shape == SHAPE
    return history["loss"]


EXPECTED = {}  # the losses of the array itself, trained once for all forms: `x` is the same in every test


def expected(x, **options):
    key = tuple(options.items())
    if key not in EXPECTED:
        EXPECTED[key] = losses(x, batch_size=16, **options)
    return EXPECTED[key]


SAME = {
    "list with one array": lambda x: [x],
    "tuple with one array": lambda x: (x,),
    "images and labels": lambda x: (x, np.arange(len(x))),
    "images twice": lambda x: (x, x),
    "list of images": list,
    "list of grey images": lambda x: list(x[..., 0]),
    "nested lists of numbers": lambda x: x[..., 0].tolist(),
    "no channel axis": lambda x: x[..., 0],
    "list with an array without channels": lambda x: [x[..., 0]],
    "tensor without channel axis": lambda x: tf.constant(x[..., 0]),
    "integers": lambda x: x.astype(np.uint8),
    "booleans": lambda x: x.astype(bool),
    "double precision": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("form", some(SAME, 4))
def test_forms_of_one_array_train_alike(form, x):
    """Arrays are read before it is decided how the steps run, so eager steps show it soonest."""
    assert losses(SAME[form](x), batch_size=16, run_eagerly=True) == expected(x, run_eagerly=True)


BATCHES = {
    "dataset": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(16),
    "dataset without channels": lambda x: tf.data.Dataset.from_tensor_slices(x[..., 0]).batch(16),
    "dataset of unknown sides": lambda x: tf.data.Dataset.from_generator(
        lambda: iter([x[:16], x[16:32], x[32:]]), output_signature=tf.TensorSpec((None, None, None, 1))
    ),
    "dataset of pairs": lambda x: tf.data.Dataset.from_tensor_slices((x, x)).batch(16),
    "PyDataset without channels": lambda x: Batches(x[..., 0], 16),
    "loader": lambda x: Loader(x, 16),
    "loader without channels": lambda x: Loader(x[..., 0], 16),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", some(BATCHES, 3))
def test_forms_of_batches_train_alike(form, x):
    # Compiled differently.
    np.testing.assert_allclose(losses(BATCHES[form](x), shuffle=False), expected(x, shuffle=False), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", [lambda batches: map(tuple, batches), *slow(lambda batches: (batch for batch in batches), iter)]
)
def test_generators_and_other_iterators_train_alike(form, x):
    batches = [[x[:16]], [x[16:32]], [x[32:]]]
    found = losses(form(batches), epochs=1, steps_per_epoch=3)
    np.testing.assert_allclose(found, expected(x, shuffle=False)[:1], rtol=1e-5)


REFUSED = {
    "two arrays": (lambda x: [x, x], "Received a list of 2 arrays"),
    "two arrays without channels": (lambda x: [x[..., 0], x[..., 0]], "Received a list of 2 arrays"),
    "two different sets": (lambda x: (x, 1 - x), "Received other images as y"),
    "images of several shapes": (lambda x: [*x, x[0][:4]], "Expected images of one shape"),
    "one image": (lambda x: x[0], "that of one image"),
    "a dataset that was never batched": (tf.data.Dataset.from_tensor_slices, "that of one image"),
    "square images that were never batched": (
        lambda x: tf.data.Dataset.from_tensor_slices(x[:, :5, :, 0]),
        "that of one image",
    ),
    "a generator of single images": (iter, "that of one image"),
    "a loader of single images": (lambda x: type("L", (), {"__iter__": lambda self: iter(x)})(), "that of one image"),
    "vectors that were never batched": (
        lambda x: tf.data.Dataset.from_tensor_slices(x.reshape(40, -1)),
        "has no axes for the pixels",
    ),
    "a number": (lambda x: np.float32(1.0), "single value"),
    "a path": (lambda x: "mnist", "Received str"),
    "a dictionary": (lambda x: {"image": x}, "Received dict"),
    "batches of dictionaries": (lambda x: tf.data.Dataset.from_tensors({"image": x}), "Use map"),
    "unknown rank": (
        lambda x: tf.data.Dataset.from_generator(lambda: iter([x]), output_types=tf.float32),
        "unknown rank",
    ),
    "no image": (lambda x: x[:0], "at least one image"),
    "an empty loader": (lambda x: Loader(x[:0], 4), "at least one batch"),
    "text": (lambda x: np.array([["a", "b"]]), "array of at least one image"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_forms_are_refused(form, x):
    make, message = REFUSED[form]
    vae = small()
    with pytest.raises(UserError, match=message):
        vae.fit(make(x), verbose=0)
    assert int(vae.steps) == 0


@pytest.mark.parametrize("form", ["two arrays", "one image", "a number", "a dataset that was never batched", "a path"])
def test_validation_and_evaluation_refuse_them_too(form, x):
    make, message = REFUSED[form]
    vae = small()
    vae.build((None, *SHAPE))
    calls = [lambda given: vae.evaluate(given, verbose=0), lambda given: vae.predict(given, verbose=0)]
    if form != "two arrays":  # as validation data a list of two arrays is [x, y]
        calls.append(lambda given: vae.fit(x, validation_data=given, verbose=0))
    for call in calls:
        with pytest.raises(UserError, match=message):
            call(make(x))


@pytest.mark.parametrize("form", some(SAME, 4, 2))
def test_evaluation_and_validation_read_them_alike(form, x):
    vae = small(run_eagerly=True)
    vae.build((None, *SHAPE))
    expected = vae.evaluate(x, verbose=0)
    assert vae.evaluate(SAME[form](x), verbose=0) == expected
    vae.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    history = vae.fit(x, validation_data=SAME[form](x), verbose=0).history
    assert history["val_loss"][0] == pytest.approx(expected[0], rel=1e-6)


@pytest.mark.slow
def test_every_method_of_a_model_gives_grey_images_their_channel_axis(x):
    vae, grey = small(), x[..., 0]
    vae.build((None, *SHAPE))
    np.testing.assert_array_equal(vae.predict(grey, verbose=0), vae.predict(x, verbose=0))
    np.testing.assert_array_equal(vae.encode(grey).mean, vae.encode(x).mean)
    np.testing.assert_array_equal(vae.reconstruct(grey), vae.reconstruct(x))
    np.testing.assert_array_equal(vae.elbo(grey, seed=1), vae.elbo(x, seed=1))
    assert vae.test_on_batch(grey) == vae.test_on_batch(x)
    one, other = (kvae.evaluation.log_likelihood(vae, data, samples=3).mean for data in (grey, x))
    assert one == other
    one, other = (evidence.log_evidence(vae, data[:2]) for data in (grey, x))
    np.testing.assert_array_equal(one.log_value, other.log_value)
    options = {"observed": "top", "seed": 0, "samples": 20, "steps": 5}
    one, other = (kvae.completion.complete(vae, data[:3], **options) for data in (grey, x))
    np.testing.assert_array_equal(one.means, other.means)


@pytest.mark.slow
def test_a_convolutional_encoder_trains_on_images_without_channel_axis(x):
    vae = kvae.VAE(encoder=kvae.networks.ConvEncoder(2, (2,), 4), seed=0)
    vae.compile()
    vae.fit(x[..., 0], verbose=0)
    assert vae.image_shape == SHAPE


@pytest.mark.slow
def test_a_model_made_for_images_without_channel_axis_keeps_them(x):
    built = small()
    built.build((None, 6, 5))
    built.fit(x[..., 0], verbose=0)
    assert built.image_shape == (6, 5)
    image, z = keras.Input((6, 5)), keras.Input((2,))
    h = keras.layers.Flatten()(image)
    encoder = keras.Model(image, (keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)))
    decoder = keras.Model(z, keras.layers.Reshape((6, 5))(keras.layers.Dense(30)(z)))
    declared = small(encoder=encoder, decoder=decoder, latent_dim=None, hidden_units=None)
    declared.fit(x[..., 0], verbose=0)
    assert declared.image_shape == (6, 5)
    assert declared.reconstruct(x[:3, ..., 0]).shape == (3, 6, 5)


@pytest.mark.slow
def test_vectors_are_images_of_one_axis(x):
    vae = small()
    vae.fit(x.reshape(40, -1), verbose=0)
    assert vae.image_shape == (30,)


@pytest.mark.slow
def test_labels_of_a_conditional_model_are_read_in_each_form(x):
    labels = np.arange(40, dtype=np.float32) % 2

    class WithLabel(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.heads = keras.layers.Flatten(), [keras.layers.Dense(2), keras.layers.Dense(2)]

        def call(self, x, condition=None):
            h = tf.concat([self.flatten(x), condition[:, None]], axis=-1)
            return tuple(head(h) for head in self.heads)

    def history(*data):
        keras.utils.set_random_seed(0)
        decoder = kvae.networks.MLPDecoder(SHAPE, (4,), seed=0)
        vae = kvae.VAE(encoder=WithLabel(), decoder=decoder, condition_shape=(), seed=0)
        vae.compile()
        return vae.fit(*data, batch_size=None if isinstance(data[0], tf.data.Dataset) else 16, verbose=0).history[
            "loss"
        ]

    expected = history(x, labels)
    assert history((x, labels)) == expected
    assert history(x[..., 0], labels) == expected
    dataset = tf.data.Dataset.from_tensor_slices((x[..., 0], labels)).batch(16)
    assert np.isfinite(history(dataset)).all()
    with pytest.raises(UserError, match="one y per image"):
        history((x, labels[:5]))


@pytest.mark.slow
def test_a_model_of_images_without_channel_axis_completes_and_samples(x, tmp_path):
    vae = small()
    vae.build((None, 6, 5))
    completion = kvae.completion.complete(vae, x[:3, ..., 0], observed="top", seed=0)
    np.testing.assert_array_equal(completion.means[:, :3], x[:3, :3, :, 0])
    kvae.export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    command = [sys.executable, str(tmp_path / "bundle" / "sample.py"), "-n", "4", "-o", str(tmp_path / "samples.png")]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (21 * (4 * 6 - 1), 21 * 6)  # four images of 6 x 5 in a row, one pixel apart, enlarged


BINARY = np.array([[0, 1], [1, 1], [0, 0]])
AS_BYTES = {
    "single precision": BINARY.astype(np.float32),
    "double precision": BINARY.astype(np.float64),
    "half precision": BINARY.astype(np.float16),
    "not contiguous": np.repeat(BINARY, 2, axis=1).astype(np.float32)[:, ::2],
    "an image above the size of a part": np.ones((2, blocks.VALUES_AT_ONCE + 1), np.float32),
}
KEPT = {
    "grey": BINARY * 0.5,
    "grey where a mask hides it": np.ma.MaskedArray(np.where(BINARY, 1, 0.5), mask=BINARY == 0),
    "grey in the last of several parts": np.concatenate([np.zeros((3, 2**16)), np.full((1, 2**16), 0.5)]),
    "two": BINARY * 2.0,
    "negative": -1.0 * BINARY,
    "NaN": np.where(BINARY, np.nan, 0),
    "infinite": np.where(BINARY, np.inf, 0),
    "bytes": BINARY.astype(np.uint8),
    "booleans": BINARY.astype(bool),
    "no image": np.zeros((0, 2), np.float32),
    "images without pixels": np.zeros((2, 0), np.float32),
    "tensor": tf.constant(BINARY, tf.float32),
    "text": "images",
}


@pytest.mark.parametrize("images", AS_BYTES.values(), ids=AS_BYTES)
def test_arrays_of_zeros_and_ones_are_kept_as_bytes(images):
    result = given_images.as_bytes_if_binary(images)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize("images", KEPT.values(), ids=KEPT)
def test_other_images_stay_as_they_are(images):
    assert given_images.as_bytes_if_binary(images) is images


def test_methods_that_pass_an_array_on_to_keras_keep_its_type(x):
    types = []

    class Watched(kvae.VAE):
        def batch_of(self, data, before=None):
            types.append(data[0].dtype if isinstance(data, tuple) else data.dtype)
            return super().batch_of(data, before)

    vae = Watched(2, hidden_units=(4,), seed=0)
    vae.compile(keras.optimizers.Adam(0.01))
    vae.predict(x, verbose=0)
    vae.train_on_batch(x)
    assert types == [tf.float32] * len(types)
    assert len(types) >= 2
