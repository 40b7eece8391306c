"""`kvae.load` of bundles, runs and files: which file it opens, and the damage that it refuses."""

import hashlib
import json
import shutil
import threading
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from kvae import runtime
from kvae.internal import sealed
from kvae.internal.errors import UserError
from kvae.internal.tensorflow import tf
from kvae.model.vae import VAE
from kvae.runtime import cards, litert
from kvae.runtime.litert import LiteRTDecoder

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
    with pytest.raises(UserError, match=r"Expected a bundle.*'.*missing', which does not exist"):
        runtime.load(tmp_path / "missing")


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Expected a bundle, which has a model_card\.json\. .* has none.*kvae export"):
        runtime.load(tmp_path)


@pytest.mark.parametrize("place", [0, 5, 1000, -1])
def test_a_bundle_with_one_changed_byte_is_refused(bundle, place):
    content = bytearray((bundle / "decoder.tflite").read_bytes())
    content[place] ^= 1
    (bundle / "decoder.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"decoder\.tflite is not the file that model_card\.json states"):
        runtime.load(bundle)
    assert runtime.load(bundle, "float16").latent_dim == 2  # the other file is as it was


def test_a_single_decoder_in_a_folder_of_a_bundle_is_the_file_of_its_card_too(bundle, tmp_path):
    card = json.loads((bundle / "model_card.json").read_text())
    page, content = bundle / "web" / "index.html", b"a page"
    page.parent.mkdir()
    page.write_bytes(content)
    card["files"]["web/index.html"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    sealed.write(bundle / "model_card.json", card)
    assert cards.vouches(page)
    page.write_bytes(b"another page")
    with pytest.raises(UserError, match=r"index\.html is not the file that model_card\.json states"):
        runtime.load(page)
    assert not cards.vouches(Path(shutil.copy(page, bundle / "web" / "other.html")))
    assert not cards.vouches(Path(shutil.copy(page, tmp_path)))


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
    with pytest.raises(
        UserError,
        match=r"model_card\.json is not the model card of a bundle|Expected a JSON object in .*model_card\.json",
    ):
        runtime.load(bundle)


def edited(bundle, **fields):
    """Writes the bundle's card with other fields; None leaves one out."""
    path = bundle / "model_card.json"
    card = {**json.loads(path.read_text(encoding="utf-8")), **fields}
    sealed.write(path, {name: value for name, value in card.items() if value is not None})


def test_a_card_that_lists_no_file_has_no_decoder(bundle):
    edited(bundle, files={})
    with pytest.raises(UserError, match=r"has no float32 decoder\. It has: none\."):
        runtime.load(bundle)


@pytest.mark.parametrize("field", sorted(cards.FIELDS))
@pytest.mark.parametrize("value", [None, "text"])
def test_a_card_that_lacks_what_reading_relies_on_is_refused(bundle, field, value):
    edited(bundle, **{field: value})
    with pytest.raises(UserError, match=rf"is not the model card of a bundle: {field} missing or of another type"):
        runtime.load(bundle)


@pytest.mark.parametrize("format", [[], {}, 1])
def test_a_variant_whose_format_is_no_name_is_refused(bundle, format):
    variants = json.loads((bundle / "model_card.json").read_text(encoding="utf-8"))["variants"]
    edited(bundle, variants={**variants, "float32": {**variants["float32"], "format": format}})
    with pytest.raises(UserError, match="is not the model card of a bundle: variants has 'float32'"):
        runtime.load(bundle)


def test_a_card_of_another_format_is_refused(bundle):
    edited(bundle, format=99)
    with pytest.raises(UserError, match=r"in format 1, which this version of kvae reads\. Received format 99"):
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


def test_a_run_that_trained_on_since_its_bundle_was_made_is_refused(bundle, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(bundle, run / "bundle")
    (run / "model.keras").write_bytes(b"another model")
    with pytest.raises(UserError, match=r"made of another model than .*model\.keras\. To make it again"):
        runtime.load(run, "float32")
    digest = hashlib.sha256(b"another model").hexdigest()
    edited(run / "bundle", run={"model.keras": {"sha256": digest}})
    assert runtime.load(run).latent_dim == runtime.load(bundle).latent_dim


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


def test_a_file_with_weights_that_are_no_numbers_is_refused(bundled, tmp_path):
    content = (bundled / "decoder.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    weights = max((buffer for buffer in model.buffers if buffer.data is not None), key=lambda buffer: len(buffer.data))
    biases = [each for each in model.subgraphs[0].tensors if each.type == schema.TensorType.FLOAT32]
    for tensor in biases:
        data = model.buffers[tensor.buffer].data
        if data is not None and model.buffers[tensor.buffer] is not weights:
            model.buffers[tensor.buffer].data = np.full(len(data) // 4, np.nan, np.float32).view(np.uint8)
    builder = flatbuffers.Builder(100_000)
    builder.Finish(model.Pack(builder), litert.MAGIC)
    (tmp_path / "diverged.tflite").write_bytes(builder.Output())
    with pytest.raises(UserError, match=r"diverged\.tflite gives means that are not finite numbers"):
        LiteRTDecoder(tmp_path / "diverged.tflite")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("use", ["decode", "sample", "lattice"])
def test_means_that_are_not_finite_are_refused_whenever_they_come(bundled, monkeypatch, bad, use):
    decoder = runtime.load(bundled)
    run = decoder.run

    def damaged(name, inputs):
        outputs = run(name, inputs)
        outputs["means"].flat[-1] = bad
        return outputs

    monkeypatch.setattr(decoder, "run", damaged)
    uses = {"decode": lambda: decoder.decode(np.zeros((3, 2))), "sample": lambda: decoder.sample([1, 2, 3])}
    with pytest.raises(UserError, match="gives means that are not finite numbers"):
        uses.get(use, lambda: decoder.lattice(3))()


@pytest.mark.parametrize("name", ["images", "means", "z"])
def test_outputs_of_another_shape_are_refused(bundled, monkeypatch, name):
    decoder = runtime.load(bundled)
    run = decoder.run
    monkeypatch.setattr(decoder, "run", lambda *given: {**run(*given), name: run(*given)[name][:1]})
    with pytest.raises(UserError, match=rf"is damaged: expected {name} of shape \[3, .*received \[1, "):
        decoder.sample([1, 2, 3])


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
    with pytest.raises(UserError, match=rf"that kvae exported, with the signatures .* the signatures {name}\."):
        runtime.load(tmp_path / "double.tflite")


@pytest.mark.parametrize("name", ["", "missing.tflite"])
def test_a_decoder_of_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"Could not read|Expected a file"):
        LiteRTDecoder(tmp_path / name)


def test_loading_says_nothing(bundled, capfd):
    runtime.load(bundled)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_was_saved_before_it_was_built_is_refused_in_one_line(tmp_path):
    VAE(2, hidden_units=(4,)).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"model\.keras .* before its model was built"):
        runtime.load(tmp_path / "model.keras")
