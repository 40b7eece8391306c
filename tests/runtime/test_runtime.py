"""`kvae.runtime` and `kvae.runtime.footprint`: exported decoders against the Keras model, and files that are none."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kvae
from kvae import export, runtime
from kvae.internal import files
from kvae.internal.errors import KvaeWarning, UserError
from kvae.internal.tensorflow import tf
from kvae.noise import portable
from kvae.noise.streams import Stream
from kvae.runtime import cards, latent, litert
from kvae.runtime.footprint import footprint

ROOT = Path(__file__).parents[2]
MODELS = {
    "bernoulli": {"latent_dim": 2, "likelihood": "bernoulli", "image_shape": (5, 4, 1)},
    "continuous_bernoulli": {"latent_dim": 2, "likelihood": "continuous_bernoulli", "image_shape": (5, 4, 1)},
    "gaussian": {"latent_dim": 3, "likelihood": kvae.model.likelihoods.Gaussian(0.05), "image_shape": (4, 3, 3)},
}
SIZES = [1, 7, 64, 300]  # also a runtime's own batch of 64, and more than CHUNK
sizes = pytest.mark.parametrize("n", SIZES)


def make(latent_dim, likelihood, image_shape):
    """An untrained model whose means are not all about 1/2."""
    vae = kvae.VAE(latent_dim, hidden_units=(8,), likelihood=likelihood, seed=0)
    vae.build((None, *image_shape))
    vae.decoder.set_weights([4 * weight for weight in vae.decoder.get_weights()])
    return vae


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Every model with its decoder, made when it is first asked for."""
    made = {}

    def pair(name):
        if name not in made:
            vae, path = make(**MODELS[name]), tmp_path_factory.mktemp(name) / "decoder.tflite"
            path.write_bytes(export.convert(vae, ["float32"])["float32"])
            made[name] = (vae, runtime.load(path))
        return made[name]

    return pair


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A bundle of the Bernoulli model, not to be changed."""
    folder = tmp_path_factory.mktemp("run") / "bundle"
    export.bundle(make(**MODELS["bernoulli"]), folder, formats=["tflite"], variants=["float32", "float16"])
    return folder


@pytest.fixture
def bundle(bundled, tmp_path):
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(bundled, tmp_path / "bundle"))


@pytest.fixture(params=MODELS)
def pair(request, pairs):
    return pairs(request.param)


@pytest.fixture
def decoder(pairs):
    return pairs("bernoulli")[1]


# Values


def test_a_decoder_knows_its_shapes(pair):
    vae, decoder = pair
    assert (decoder.latent_dim, decoder.image_shape) == (vae.latent_dim, vae.image_shape)


@sizes
def test_decoded_points_are_those_of_the_model(pair, n, rng):
    vae, decoder = pair
    z = np.float32(rng.normal(size=(n, vae.latent_dim)))
    decoded = decoder.decode(z)
    for part in decoded:
        assert (part.shape, part.dtype) == ((n, *vae.image_shape), np.float32)
    logits = vae.decode(z)
    # Sums of 8 products of numbers up to about 10, float32 in another order; the means change by a quarter of that.
    np.testing.assert_allclose(decoded.logits, logits, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(decoded.means, vae.likelihood.mean(logits), rtol=0, atol=3e-6)
    assert (decoded.means.min() >= 0, decoded.means.max() <= 1) == (True, True)


@sizes
def test_samples_are_those_of_the_model(pair, n):
    vae, decoder = pair
    seeds = portable.seeds(n, 1)
    drawn, expected = decoder.sample(seeds), vae.sample(seeds)
    assert [part.dtype for part in drawn] == [np.uint8, np.float32, np.float32]
    assert [part.shape for part in drawn] == [(n, *vae.image_shape)] * 2 + [(n, vae.latent_dim)]
    assert np.array_equal(drawn.z, expected.z)
    np.testing.assert_allclose(drawn.means, expected.means, rtol=0, atol=3e-6)  # as above
    levels = np.rint(np.float32(expected.images) * np.float32(255))
    distance = np.abs(drawn.images - levels)
    if vae.likelihood.binary:
        # A pixel changes where its mean rounds across its number: 6000 pixels, means that err by some 1e-7.
        assert np.count_nonzero(distance) <= 1
    else:
        # A grey value rounds to another of 255 levels for a few of 10^5 pixels, of the 11,000 here; then to the next.
        assert (np.count_nonzero(distance) <= 5, distance.max() <= 1) == (True, True)


def test_bernoulli_images_are_black_and_white(pairs):
    assert np.unique(pairs("bernoulli")[1].sample(portable.seeds(64, 1)).images).tolist() == [0, 255]


def test_samples_are_the_images_of_generate(pairs):
    vae, decoder = pairs("bernoulli")
    drawn = decoder.sample(runtime.seeds(64, seed=3)).images
    assert np.count_nonzero(drawn != 255 * vae.generate(64, seed=3).numpy()) <= 1  # as above


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_extreme_seeds_have_the_z_of_the_model(pair, seed):
    vae, decoder = pair
    z = decoder.sample([seed]).z
    assert np.array_equal(z, vae.sample([seed]).z)
    assert np.array_equal(z, portable.normals([seed], Stream.LATENT, vae.latent_dim))


@pytest.mark.parametrize("places", [[0], [299], [255, 256], [7, 3, 290, 7]])
def test_an_image_depends_on_its_own_seed_alone(pair, places):
    _, decoder = pair
    seeds = portable.seeds(300, 2)
    whole, part = decoder.sample(seeds), decoder.sample(seeds[places])
    assert np.array_equal(part.z, whole.z[places])
    # Kernels of other batch sizes round otherwise: float32 eps, and at most one pixel of 144 to the next level.
    np.testing.assert_allclose(part.means, whole.means[places], rtol=0, atol=1e-6)
    assert np.count_nonzero(part.images != whole.images[places]) <= 1


def test_samples_have_the_means_of_their_z(pair):
    _, decoder = pair
    drawn = decoder.sample(portable.seeds(100, 0))
    np.testing.assert_allclose(drawn.means, decoder.decode(drawn.z).means, rtol=0, atol=1e-6)  # float32 eps


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, list])
def test_z_of_every_type_is_taken(decoder, dtype):
    z = [[0, 1], [2, 3]] if dtype is list else np.array([[0, 1], [2, 3]], dtype)
    assert np.array_equal(decoder.decode(z).means, decoder.decode(np.float32([[0, 1], [2, 3]])).means)


def test_z_and_seeds_may_be_tensors(decoder):
    assert np.array_equal(decoder.decode(tf.zeros((2, 2))).means, decoder.decode(np.zeros((2, 2))).means)
    assert np.array_equal(decoder.sample(tf.constant([4, 5])).z, decoder.sample([4, 5]).z)


def test_what_a_call_returned_is_not_changed_by_the_next(decoder):
    first = decoder.sample([1, 2])
    kept = [part.copy() for part in first]
    decoder.sample([3, 4])
    decoder.decode(np.ones((2, 2)))
    assert all(np.array_equal(part, before) for part, before in zip(first, kept, strict=True))


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_the_number_of_threads_changes_no_z(bundled, threads):
    decoder = runtime.load(bundled, threads=threads)
    assert np.array_equal(decoder.sample(range(20)).z, portable.normals(range(20), Stream.LATENT, 2))


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_a_wrong_number_of_threads_is_not_the_fault_of_the_file(bundled, threads):
    with pytest.raises(UserError, match=r"^(?!.*damaged).*threads"):
        runtime.load(bundled, threads=threads)


@pytest.mark.parametrize("n", [1, 2, 5, 17])
@pytest.mark.parametrize("extent", [2.0, 0.5, None])
def test_a_lattice_is_its_points_decoded_and_laid_out(pairs, n, extent):
    vae, decoder = pairs("bernoulli")
    picture = decoder.lattice(n, extent)
    assert (picture.shape, picture.dtype) == ((5 * n, 4 * n, 1), np.float32)
    means = vae.likelihood.mean(vae.decode(latent.lattice(n, extent))).numpy().reshape(n, n, 5, 4, 1)
    expected = means.transpose(0, 2, 1, 3, 4).reshape(5 * n, 4 * n, 1)
    np.testing.assert_allclose(picture, expected, rtol=0, atol=3e-6)  # as the means above


def test_a_latent_space_that_is_no_plane_has_no_lattice(pairs):
    with pytest.raises(UserError, match=r"Expected 2 latent dimensions for a lattice\. This decoder has 3"):
        pairs("gaussian")[1].lattice()


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_a_lattice_of_no_number_of_points_is_refused(decoder, n):
    with pytest.raises(UserError, match="Expected n to be a whole number of at least 1"):
        decoder.lattice(n)


@pytest.mark.parametrize("extent", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lattice_of_no_extent_is_refused(decoder, extent):
    with pytest.raises(UserError, match="Expected a positive, finite extent"):
        decoder.lattice(2, extent)


# Input that is refused


@pytest.mark.parametrize(
    ("z", "shown"),
    [
        (np.zeros((3, 1)), r"float64 of shape \[3, 1\]"),
        (np.zeros((3, 3)), r"float64 of shape \[3, 3\]"),
        (np.zeros((0, 2)), r"float64 of shape \[0, 2\]"),
        (np.zeros(2), r"float64 of shape \[2\]"),
        (np.zeros((1, 1, 2)), r"float64 of shape \[1, 1, 2\]"),
        (1.0, r"float64 of shape \[\]"),
        ([], r"float64 of shape \[0\]"),
        (np.zeros((1, 2), complex), r"complex128 of shape \[1, 2\]"),
        (np.zeros((1, 2), bool), r"bool of shape \[1, 2\]"),
        ([["1", "2"]], r"<U1 of shape \[1, 2\]"),
        ("z", r"<U1 of shape \[\]"),
        (None, r"object of shape \[\]"),
    ],
)
def test_what_is_no_list_of_points_is_refused(decoder, z, shown):
    with pytest.raises(UserError, match=rf"Expected z, numbers of shape \[n, 2\].*Received {shown}\."):
        decoder.decode(z)


def test_a_ragged_list_of_points_is_refused(decoder):
    with pytest.raises(UserError, match="Expected z"):
        decoder.decode([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_that_are_not_finite_are_refused(decoder, value, dtype):
    with pytest.raises(UserError, match=rf"Expected finite z\. Received {value}\."):
        decoder.decode(np.array([[0, 1], [value, 2]], dtype))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_points_beyond_float32_are_refused(decoder):
    with pytest.raises(UserError, match="Expected finite z"):
        decoder.decode([[1e300, 0.0]])


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([0.5], "Expected seeds, a list of whole numbers"),
        (3, "Expected seeds, a list of whole numbers"),
        ([[1, 2]], "Expected seeds, a list of whole numbers"),
        (["1"], "Expected seeds, a list of whole numbers"),
        ([], "Received float64 of shape"),
        (np.zeros(0, int), "Expected at least one seed"),
        ([2**31], "Expected seeds in int32"),
        ([-(2**31) - 1], "Expected seeds in int32"),
    ],
)
def test_what_is_no_list_of_seeds_is_refused(decoder, seeds, message):
    with pytest.raises(UserError, match=message):
        decoder.sample(seeds)


# Bundles


@pytest.mark.parametrize("place", ["", "..", "decoder.tflite"], ids=["bundle", "run", "file"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_decoder_comes_from_a_bundle_a_run_or_a_file(bundled, place, kind):
    decoder = runtime.load(kind(bundled / place if place != ".." else bundled.parent))
    assert (decoder.path.name, decoder.image_shape) == ("decoder.tflite", (5, 4, 1))


def test_another_variant_is_another_file_with_the_same_z(bundled):
    decoder, exact = runtime.load(bundled, "float16"), runtime.load(bundled)
    assert decoder.path.name == "decoder_float16.tflite"
    drawn, expected = decoder.sample(range(50)), exact.sample(range(50))
    assert np.array_equal(drawn.z, expected.z)
    # Weights up to about 4 rounded by 2^-12 of themselves, nine products a layer, a quarter of that in the means.
    np.testing.assert_allclose(drawn.means, expected.means, rtol=0, atol=5e-3)


def test_the_card_states_the_z_of_its_reference_seeds(bundled):
    reference = cards.read_card(bundled)["reference"]
    assert runtime.load(bundled).sample(reference["seeds"]).z.tolist() == reference["z"]


@pytest.mark.parametrize(("variant", "near"), [("flaot16", "float16"), ("int-8", "int8"), ("full_int", "full_int8")])
def test_an_unknown_variant_is_refused_with_the_nearest(bundled, variant, near):
    with pytest.raises(UserError, match=f"Unknown variant '{variant}'. Did you mean '{near}'"):
        runtime.load(bundled, variant)


def test_a_variant_that_the_bundle_lacks_is_refused_with_those_it_has(bundled):
    with pytest.raises(UserError, match=r"has no int8 decoder\. It has: float32, float16\."):
        runtime.load(bundled, "int8")


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Expected a bundle.*'.*missing' does not exist"):
        runtime.load(tmp_path / "missing")


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Expected a bundle, with a model_card\.json\. .* has none.*kvae export"):
        runtime.load(tmp_path)


@pytest.mark.parametrize("place", [0, 5, 1000, -1])
def test_a_bundle_with_one_changed_byte_is_refused(bundle, place):
    content = bytearray((bundle / "decoder.tflite").read_bytes())
    content[place] ^= 1
    (bundle / "decoder.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"decoder\.tflite is not the file that model_card\.json states"):
        runtime.load(bundle)
    assert runtime.load(bundle, "float16").latent_dim == 2  # the other file is as it was


def test_a_bundle_without_a_file_of_its_card_is_refused(bundle):
    (bundle / "decoder.tflite").unlink()
    with pytest.raises(UserError, match=r"Could not read .*decoder\.tflite: No such file"):
        runtime.load(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"no card", b'{"files": {"decoder'])
def test_a_card_that_is_no_json_is_refused(bundle, content):
    (bundle / "model_card.json").write_bytes(content)
    with pytest.raises(UserError, match=r"model_card\.json is not valid JSON"):
        runtime.load(bundle)


@pytest.mark.parametrize("card", [[], {}, None, 3, "card", {"files": None}, {"files": ["decoder.tflite"]}])
def test_a_card_without_files_is_refused(bundle, card):
    (bundle / "model_card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(UserError, match=r"model_card\.json is not the model card of a bundle"):
        runtime.load(bundle)


def edited(bundle, **fields):
    """Writes the bundle's card with other fields; None leaves one out."""
    path = bundle / "model_card.json"
    card = {**json.loads(path.read_text(encoding="utf-8")), **fields}
    path.write_text(json.dumps({name: value for name, value in card.items() if value is not None}), encoding="utf-8")


def test_a_card_that_lists_no_file_has_no_decoder(bundle):
    edited(bundle, files={})
    with pytest.raises(UserError, match=r"has no float32 decoder\. It has: none\."):
        runtime.load(bundle)


@pytest.mark.parametrize("field", sorted(cards.FIELDS))
@pytest.mark.parametrize("value", [None, "text"])
def test_a_card_that_lacks_what_reading_relies_on_is_refused(bundle, field, value):
    edited(bundle, **{field: value})
    with pytest.raises(UserError, match=rf"is not the model card of a bundle: {field} missing or changed"):
        runtime.load(bundle)


def test_a_card_of_another_format_is_refused(bundle):
    edited(bundle, format=99)
    with pytest.raises(UserError, match=r"is of format 99\. This version of kvae reads format 1"):
        runtime.load(bundle)


@pytest.mark.parametrize("name", ["../decoder.tflite", "/etc/passwd", "a/../../b", "nul\0"])
def test_a_card_does_not_lead_out_of_the_bundle(bundle, name):
    edited(bundle, files={name: {"sha256": "0"}})
    with pytest.raises(UserError, match="is not the model card of a bundle: files has"):
        runtime.load(bundle)


def test_threads_that_share_a_decoder_get_the_images_of_their_own_seeds(bundle):
    decoder = runtime.load(bundle)
    expected = {number: decoder.sample(runtime.seeds(64, number)).images for number in range(3)}
    wrong = []

    def draw(number):
        for _ in range(40):
            if not np.array_equal(decoder.sample(runtime.seeds(64, number)).images, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=draw, args=(number,)) for number in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_bundle_without_float32_gives_the_first_that_it_has(bundle):
    (bundle / "decoder.tflite").unlink()
    listed = json.loads((bundle / "model_card.json").read_text(encoding="utf-8"))["files"]
    edited(bundle, files={name: facts for name, facts in listed.items() if name != "decoder.tflite"})
    assert runtime.load(bundle).path.name == "decoder_float16.tflite"


def test_a_run_that_was_trained_on_since_its_bundle_was_made_draws_with_its_present_model(bundle, pairs, tmp_path):
    run, (vae, _) = tmp_path / "run", pairs("bernoulli")
    shutil.copytree(bundle, run / "bundle")
    vae.save(run / "model.keras")
    with pytest.warns(KvaeWarning, match=r"is of another model than .*model\.keras\. Make it again"):
        decoder = runtime.load(run)
    np.testing.assert_array_equal(decoder.sample(runtime.seeds(4, 0)).means, vae.sample(runtime.seeds(4, 0)).means)
    with pytest.raises(UserError, match=r"is of another model than .*model\.keras\. Make it again"):
        runtime.load(run, "float16")
    edited(run / "bundle", run={"model.keras": {"sha256": files.digest(run / "model.keras")}})
    assert runtime.load(run).path.name == "decoder.tflite"


def test_a_run_without_a_bundle_draws_with_its_keras_model(pairs, tmp_path):
    vae, _ = pairs("bernoulli")
    vae.save(tmp_path / "model.keras")
    for path in (tmp_path, tmp_path / "model.keras"):
        drawn = runtime.load(path).sample(runtime.seeds(4, 0))
        np.testing.assert_array_equal(drawn.z, vae.sample(runtime.seeds(4, 0)).z)
        assert drawn.images.dtype == np.uint8


@pytest.mark.parametrize("content", [b"", b"PK no zip"])
def test_a_keras_file_that_is_damaged_is_refused(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(UserError, match=r"Could not open .*model\.keras"):
        runtime.load(tmp_path)


def test_a_keras_file_of_another_model_is_refused(pairs, tmp_path):
    vae, _ = pairs("bernoulli")
    vae.encoder.save(tmp_path / "encoder.keras")
    with pytest.raises(UserError, match=r"Expected a whole model of kvae, such as RUN/model\.keras"):
        runtime.load(tmp_path / "encoder.keras")


@pytest.mark.parametrize("stated", [{}, {"sha256": None}, {"sha256": ""}])
def test_a_card_without_a_digest_is_refused(bundle, stated):
    edited(bundle, files={"decoder.tflite": stated})
    with pytest.raises(UserError, match=r"decoder\.tflite is not the file that model_card\.json states"):
        runtime.load(bundle)


@pytest.mark.parametrize("stated", [None, 3, "0" * 64, []], ids=["null", "number", "text", "list"])
def test_a_card_that_states_no_object_for_a_file_is_refused(bundle, stated):
    edited(bundle, files={"decoder.tflite": stated})
    with pytest.raises(UserError, match=r"model_card\.json"):
        runtime.load(bundle)


# Files that are no decoder


@pytest.mark.parametrize("share", [0, 3, 7, 8, 100, 0.25, 0.5, 0.75, 0.99, -1])
def test_a_file_that_was_cut_off_is_refused(bundled, tmp_path, share):
    content = (bundled / "decoder.tflite").read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: int(share * len(content)) if 0 < share < 1 else share])
    with pytest.raises(UserError, match=r"cut\.tflite is (damaged|not a \.tflite file)"):
        runtime.load(tmp_path / "cut.tflite")


@pytest.mark.parametrize("signature", ["decode", "sample"])
def test_a_file_that_is_damaged_within_a_signature_is_refused(bundled, tmp_path, signature):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((bundled / "decoder.tflite").read_bytes()))
    place = next(known.subgraphIndex for known in model.signatureDefs if known.signatureKey == signature.encode())
    operator = model.subgraphs[place].operators[0]
    operator.inputs = np.full_like(operator.inputs, 9999)  # there are fewer tensors
    builder = flatbuffers.Builder(100_000)
    builder.Finish(model.Pack(builder), litert.MAGIC)
    (tmp_path / "damaged.tflite").write_bytes(builder.Output())
    with pytest.raises(UserError, match=r"damaged\.tflite is damaged"):
        runtime.load(tmp_path / "damaged.tflite").decode([[0.0, 0.0]])


@pytest.mark.parametrize("content", [b"No decoder, but words.\n", bytes(1000), b"\x1c\0\0\0TFL3" + bytes(1000)])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "other.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"other\.tflite is (damaged|not a \.tflite file)"):
        runtime.load(tmp_path / "other.tflite")


@pytest.mark.parametrize("name", ["serving_default", "decode"])
def test_a_tflite_file_that_is_not_of_kvae_is_refused(tmp_path, name):
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([1, 2], name="x")])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={name: module.double})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "model"), signature_keys=[name])
    (tmp_path / "double.tflite").write_bytes(converter.convert())
    with pytest.raises(UserError, match=rf"not one that kvae exported: expected the signatures .* Received {name}\."):
        runtime.load(tmp_path / "double.tflite")


@pytest.mark.parametrize(
    ("name", "message"), [("", "Expected a decoder, one of"), ("missing.tflite", "Could not read")]
)
def test_a_decoder_of_what_is_no_file_is_refused(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        runtime.open_decoder(tmp_path / name)


def test_loading_says_nothing(bundled, capfd):
    runtime.load(bundled)
    assert capfd.readouterr() == ("", "")


# Without TensorFlow


WITHOUT = """
import sys
import kvae.runtime
decoder = kvae.runtime.load(sys.argv[1])
decoder.sample(kvae.runtime.seeds(2, seed=0))
decoder.lattice(3)
print(sorted({"tensorflow", "keras", "jax", "torch"} & set(sys.modules)))
"""


def test_sampling_loads_neither_tensorflow_nor_keras(bundled):
    command = [sys.executable, "-c", WITHOUT, str(bundled)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.fixture
def no_tensorflow(tmp_path, monkeypatch):
    """Child processes in which TensorFlow cannot be loaded."""
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "tensorflow.py").write_text("raise SystemExit('TensorFlow was loaded')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "shadow"), str(ROOT)]))


@pytest.mark.usefixtures("no_tensorflow")
def test_the_footprint_of_a_tflite_file_is_measured_without_tensorflow(bundled):
    measured = footprint(bundled / "decoder.tflite", 1)
    assert sorted(measured) == ["latency_us", "load_seconds", "peak_memory_mb"]
    assert list(measured["latency_us"]) == ["1", "64"]
    assert min(measured["load_seconds"], *measured["latency_us"].values()) > 0
    if sys.platform == "linux":
        # Python, NumPy and LiteRT are some 50 MB, TensorFlow alone 400.
        assert 10 < measured["peak_memory_mb"] < 200


@pytest.mark.usefixtures("no_tensorflow")
def test_the_footprint_of_a_file_that_is_no_decoder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"missing\.tflite does not run in a process of its own: .*Could not read"):
        footprint(tmp_path / "missing.tflite", 1)
