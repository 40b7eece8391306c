"""SavedModels where kvae is not installed: the numbers of the model itself, for any batch."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from exports import without
from small_models import built

import kvae
from kvae import export
from kvae.internal.errors import UserError
from kvae.model import likelihoods, networks
from kvae.noise import portable

# Loads a SavedModel where kvae cannot be imported, and writes what its functions return.
ALONE = (
    without("kvae")
    + """
try:
    import kvae
except ImportError:
    pass
else:
    sys.exit("kvae was imported")

import numpy as np
import tensorflow as tf

given = np.load(sys.argv[2])
loaded = tf.saved_model.load(sys.argv[1])
found = {}
for size in (1, 7, 64):
    x, z, seeds = (given[name][:size] for name in ("x", "z", "seeds"))
    calls = {"decode": {"z": z}, "sample": {"seed": seeds}}
    if "encode" in loaded.signatures:
        seed = np.int32(5)
        calls.update(encode={"x": x}, reconstruct={"x": x, "seed": seed}, elbo={"x": x, "seed": seed})
    for name, inputs in calls.items():
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        outputs = loaded.signatures[name](**inputs)
        attribute = getattr(loaded, name)(*inputs.values())
        for key, value in outputs.items():
            found[f"{name} {key} {size}"] = value.numpy()
            np.testing.assert_array_equal(attribute[key], value)
np.savez(sys.argv[3], **found)
"""
)


MODELS = {
    "MLP": lambda: built((6, 5, 1), latent_dim=2, hidden_units=(8,), likelihood=likelihoods.Gaussian("learned")),
    "convolutional": lambda: built(
        (7, 8, 3),
        encoder=networks.ConvEncoder(5, filters=(4, 8), dense_units=16, seed=0),
        likelihood="continuous_bernoulli",
        samples=3,
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def made(request, tmp_path_factory):
    """A model, its SavedModel, what goes into the functions and what a process without kvae gets out of them."""
    folder, vae = tmp_path_factory.mktemp("saved"), MODELS[request.param]()
    assert export.saved_model(vae, folder / "model") == folder / "model"
    rng = np.random.default_rng(0)
    given = {
        "x": rng.random((64, *vae.image_shape), np.float32),
        "z": rng.standard_normal((64, vae.latent_dim)).astype(np.float32),
        "seeds": portable.seeds(64, 1),
    }
    np.savez(folder / "given.npz", **given)
    result = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, "model", "given.npz", "found.npz"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ},
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return vae, folder / "model", given, np.load(folder / "found.npz")


def assert_near(found, expected):
    # A graph may fuse and reorder float32 operations: sums of up to 168 terms of size 1.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_decode_gives_logits_and_means_where_kvae_is_not(made, size):
    vae, _, given, found = made
    logits = vae.decode(given["z"][:size])
    assert_near(found[f"decode logits {size}"], logits)
    assert_near(found[f"decode means {size}"], vae.likelihood.mean(logits))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_sample_draws_what_the_model_draws_where_kvae_is_not(made, size):
    vae, _, given, found = made
    drawn = vae.sample(given["seeds"][:size])
    np.testing.assert_array_equal(found[f"sample z {size}"], drawn.z)
    assert_near(found[f"sample means {size}"], drawn.means)
    images = found[f"sample images {size}"]
    assert images.dtype == np.uint8
    # 1 level where rounding to 0..255 falls the other way.
    assert np.abs(images - np.rint(255 * drawn.images.numpy())).max() <= 1


@pytest.mark.parametrize("size", [1, 7, 64])
def test_encode_reconstruct_and_elbo_are_those_of_the_model_where_kvae_is_not(made, size):
    vae, _, given, found = made
    x = given["x"][:size]
    for name, value in vae.encode(x)._asdict().items():
        assert_near(found[f"encode {name} {size}"], value)
    assert_near(found[f"reconstruct means {size}"], vae.reconstruct(x, 5))
    terms = kvae.sampling.elbo_draws(vae, x, 5)
    for name in ("elbo", "reconstruction", "kl"):
        assert_near(found[f"elbo {name} {size}"], getattr(terms, name))


def test_signatures_take_and_give_named_tensors_of_any_batch(made):
    vae, folder, *_ = made
    signatures = tf.saved_model.load(str(folder)).signatures
    image, latent = [None, *vae.image_shape], [None, vae.latent_dim]
    expected = {
        "decode": ({"z": latent}, {"means": image, "logits": image}),
        "sample": ({"seed": [None]}, {"images": image, "means": image, "z": latent}),
        "encode": ({"x": image}, {"mean": latent, "log_var": latent}),
        "reconstruct": ({"x": image, "seed": []}, {"means": image}),
        "elbo": ({"x": image, "seed": []}, {key: [None] for key in ("elbo", "reconstruction", "kl")}),
    }
    assert sorted(signatures) == sorted(expected)
    for name, (inputs, outputs) in expected.items():
        _, given = signatures[name].structured_input_signature
        assert {key: spec.shape.as_list() for key, spec in given.items()} == inputs
        assert {key: spec.shape.as_list() for key, spec in signatures[name].structured_outputs.items()} == outputs
        for key, spec in given.items():
            assert spec.dtype == (tf.int32 if key == "seed" else tf.float32)


def test_savedmodel_decoder_has_the_interface_of_a_litert_decoder(made):
    vae, folder, given, found = made
    decoder = export.SavedModelDecoder(folder)
    assert (decoder.latent_dim, decoder.image_shape) == (vae.latent_dim, vae.image_shape)
    np.testing.assert_array_equal(decoder.decode(given["z"]).means, found["decode means 64"])
    np.testing.assert_array_equal(decoder.sample(given["seeds"]).images, found["sample images 64"])
    with pytest.raises(UserError, match=rf"shape \[n, {vae.latent_dim}\]"):
        decoder.decode(np.zeros((3, vae.latent_dim + 1)))
    with pytest.raises(UserError, match="seeds"):
        decoder.sample([0.5])


def test_a_large_set_is_drawn_in_parts_that_join(made, monkeypatch):
    _, folder, given, found = made
    monkeypatch.setattr(export.SavedModelDecoder, "chunk", 10)
    decoder = export.SavedModelDecoder(folder)
    drawn = decoder.sample(given["seeds"])
    np.testing.assert_array_equal(drawn.z, found["sample z 64"])
    assert_near(drawn.means, found["sample means 64"])
    assert_near(decoder.decode(given["z"]).logits, found["decode logits 64"])


# Files


def variables_size(folder) -> int:
    return (folder / "variables" / "variables.data-00000-of-00001").stat().st_size


def test_a_decoder_alone_holds_each_of_its_weights_once(tmp_path):
    vae = built((16, 16, 1), latent_dim=2, hidden_units=(100,))
    folder = export.saved_model(vae, tmp_path / "decoder", export.DECODER)
    loaded = tf.saved_model.load(str(folder))
    assert sorted(loaded.signatures) == ["decode", "sample"]
    assert not hasattr(loaded, "encode")
    weights = vae.decoder.count_params()
    # TensorFlow writes its table of contents, a few kB, among the values.
    assert 4 * weights <= variables_size(folder) <= 4 * weights + 10_000


def test_a_whole_model_is_no_larger_than_its_weights_and_graph(tmp_path):
    vae = built((16, 16, 1), latent_dim=2, hidden_units=(100,))
    folder = export.saved_model(vae, tmp_path / "model")
    weights = vae.encoder.count_params() + vae.decoder.count_params()
    assert 4 * weights <= variables_size(folder) <= 4 * weights + 20_000  # as above, of five functions
    graph = (folder / "saved_model.pb").stat().st_size
    whole = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert whole <= 4 * weights * 1.2 + graph


@pytest.mark.slow
def test_mixed_precision_is_exported_in_float32(tmp_path):
    mixed = built((6, 5, 1), latent_dim=2, hidden_units=(8,), dtype="mixed_float16")
    plain = built((6, 5, 1), latent_dim=2, hidden_units=(8,))
    plain.set_weights(mixed.get_weights())
    decoder = export.SavedModelDecoder(export.saved_model(mixed, tmp_path / "model"))
    z = kvae.sampling.draw_z(plain, 7, 0).numpy()
    assert_near(decoder.decode(z).logits, plain.decode(z))
    assert mixed.encoder.compute_dtype == "float16"


@pytest.fixture
def small() -> kvae.VAE:
    return built((6, 5, 1), latent_dim=2, hidden_units=(4,))


def test_a_folder_that_exists_is_refused_and_replaced_on_request(small, tmp_path):
    folder = export.saved_model(small, tmp_path / "model", ("decode",))
    before = (folder / "saved_model.pb").read_bytes()
    with pytest.raises(UserError, match=r"exists\..*overwrite"):
        export.saved_model(small, folder)
    assert (folder / "saved_model.pb").read_bytes() == before
    export.saved_model(small, folder, export.DECODER, overwrite=True)
    assert sorted(tf.saved_model.load(str(folder)).signatures) == ["decode", "sample"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_savedmodel_is_not_replaced(small, tmp_path, kind):
    path = tmp_path / "mine"
    if kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(UserError, match=r"so it is not replaced\. It has no saved_model\.pb|is a file"):
        export.saved_model(small, path, overwrite=True)
    assert (path / "notes.txt" if kind == "folder" else path).read_text() == "mine"


def test_an_empty_folder_is_filled(small, tmp_path):
    (tmp_path / "empty").mkdir()
    assert (export.saved_model(small, tmp_path / "empty", ("decode",)) / "saved_model.pb").is_file()


@pytest.mark.parametrize("there", [False, True], ids=["new", "in place of an earlier one"])
def test_a_failure_leaves_nothing_half_written(small, tmp_path, monkeypatch, there):
    if there:
        export.saved_model(small, tmp_path / "model", ("decode",))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def save(module, folder, **_):
        (folder / "saved_model.pb").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(UserError, match="No space left on device"):
        export.saved_model(small, tmp_path / "model", overwrite=there)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == there


@pytest.mark.parametrize(
    ("names", "message"),
    [(["decoed"], "Unknown endpoint 'decoed'. Did you mean 'decode'"), (["decode", "train"], "Unknown endpoint")],
)
def test_an_unknown_endpoint_is_refused_with_the_list_of_endpoints(small, tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        export.saved_model(small, tmp_path / "model", names)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_not_built_is_refused(tmp_path):
    with pytest.raises(UserError, match="trained, or built"):
        export.saved_model(kvae.VAE(2), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_savedmodel_that_kvae_did_not_export_is_refused(tmp_path):
    class Other(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def double(self, x):
            return 2 * x

    tf.saved_model.save(Other(), tmp_path / "other")
    (tmp_path / "empty").mkdir()
    for name in ("other", "empty", "nowhere"):
        with pytest.raises(UserError, match=f"Expected a SavedModel that kvae exported. Received .*{name}"):
            export.SavedModelDecoder(tmp_path / name)


def test_a_decoder_of_the_users_own_keeps_its_weights(tmp_path):
    x = keras.Input((6, 5, 1))
    h = keras.layers.Flatten()(x)
    encoder = keras.Model(x, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    layers = [keras.Input((2,)), keras.layers.Dense(30), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    vae = built((6, 5, 1), encoder=encoder, decoder=keras.Sequential([*layers, keras.layers.Reshape((6, 5, 1))]))
    decoder = export.SavedModelDecoder(export.saved_model(vae, tmp_path / "model", export.DECODER))
    z = kvae.sampling.draw_z(vae, 7, 0).numpy()
    assert_near(decoder.decode(z).logits, vae.decode(z))
