"""What a model card says to those who use the files: inputs and outputs, least runtimes, licences and the preview."""

import json

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from small_models import built, tiny_built

from kvae import export, runtime
from kvae.export import interface, licences, preview
from kvae.internal import files, pictures, sealed
from kvae.internal.errors import UserError
from kvae.runtime import cards

pytestmark = pytest.mark.usefixtures("quick_exports")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """The bundle of a conditional model of colour images."""
    from exports import quick_parity

    vae = built((4, 3, 3), latent_dim=2, hidden_units=(8,), condition_shape=(5,), likelihood="gaussian")
    folder = tmp_path_factory.mktemp("conditional") / "bundle"
    with quick_parity():
        card = export.bundle(
            vae, folder, formats=["tflite"], variants=["float32"], conditions=np.eye(5), licence="MIT", dataset="mnist"
        )
    return folder, card


# --- inputs and outputs


def check_signatures(path, stated):
    """Compares what a card states with what LiteRT finds in the file and returns."""
    interpreter = Interpreter(str(path))
    found = interpreter.get_signature_list()
    assert set(stated) == set(found)
    for name, sides in stated.items():
        count = sides["inputs"][0]["shape"][0]
        assert count == (int(name.partition("_")[2]) if "_" in name else "n")
        count = 3 if count == "n" else count
        given = {each["name"]: np.zeros([count, *each["shape"][1:]], each["dtype"]) for each in sides["inputs"]}
        assert set(given) == set(found[name]["inputs"])
        outputs = interpreter.get_signature_runner(name)(**given)
        assert {each["name"] for each in sides["outputs"]} == set(outputs)
        for each in sides["outputs"]:
            values = outputs[each["name"]]
            assert (str(values.dtype), list(values.shape)) == (each["dtype"], [count, *each["shape"][1:]])
            assert len(each["axes"]) == values.ndim
            if each["range"] is not None:
                assert each["range"][0] <= values.min() <= values.max() <= each["range"][1]


def test_the_card_states_the_inputs_and_outputs_of_every_signature_of_the_file(lite):
    card = cards.read_card(lite)
    assert card["variants"]["float32"]["signatures"] == list(card["interface"])
    check_signatures(lite / "decoder.tflite", card["interface"])
    means = card["interface"]["decode"]["outputs"][0]
    assert (means["shape"], means["axes"]) == (["n", 6, 5, 1], ["n", "y", "x", "channel"])
    assert (means["channels"], means["range"]) == ("grey", [0, 1])
    assert "0 or 255" in card["interface"]["sample_64"]["outputs"][0]["meaning"]


@pytest.mark.slow
def test_a_conditional_model_of_colour_images_has_a_condition_and_rgb(conditional):
    folder, card = conditional
    check_signatures(folder / "decoder.tflite", card["interface"])
    assert [each["name"] for each in card["interface"]["sample_1"]["inputs"]] == ["seed", "condition"]
    images = card["interface"]["sample"]["outputs"][0]
    assert (images["channels"], images["range"]) == ("RGB", [0, 255])
    assert "0 or 255" not in images["meaning"]


def test_a_saved_model_states_its_own_signatures_and_none_of_a_fixed_batch(whole):
    card = whole[2]
    assert card["variants"]["saved_model_decoder"]["signatures"] == ["decode", "sample"]
    assert card["variants"]["saved_model"]["signatures"] == list(export.ENDPOINTS)
    fields = {"z": "float32", "seed": "int32"}
    assert {
        each["name"]: each["dtype"] for name in ("decode", "sample") for each in card["interface"][name]["inputs"]
    } == fields


def test_several_numbers_per_pixel_are_parameters_with_an_axis_more():
    made = interface.interface(
        ["decode_64"], latent_dim=2, image_shape=(6, 5), condition_shape=None, decoded="parameters",
        decoded_shape=(6, 5, 7), likelihood="Categorical",
    )  # fmt: skip
    means, parameters = made["decode_64"]["outputs"]
    assert (means["axes"], means["channels"]) == (["n", "y", "x"], "grey")
    assert (parameters["name"], parameters["shape"]) == ("parameters", [64, 6, 5, 7])
    assert "Categorical" in parameters["meaning"]


@pytest.mark.parametrize("names", [["decode", "encode", "sample_x", 5, "sample_64"], "decode", None])
def test_signatures_that_are_none_of_a_decoder_are_left_out(names):
    expected = ["decode", "sample_64"] if isinstance(names, list) else []
    assert interface.names_of({"a": {"signatures": names}}) == expected
    assert interface.names_of({"of a user's format": {}}) == ["decode", "sample"]


# --- least runtimes


@pytest.mark.slow
def test_the_least_runtime_is_the_one_that_the_file_states(whole, tmp_path):
    variants = whole[2]["variants"]
    assert variants["float32"]["least_runtime"] == {"TensorFlow Lite": "2.14.0", "LiteRT": "1.0.1"}
    assert variants["saved_model"]["least_runtime"] == {"TensorFlow": whole[2]["versions"]["tensorflow"]}
    vae = tiny_built(hidden_units=(100, 110))  # 11,000 weights: a layer that int8 quantizes
    card = export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["int8"])
    assert card["variants"]["int8"]["least_runtime"]["TensorFlow Lite"] == "2.17.0"


# --- licences


def test_the_licences_of_known_data_name_their_source():
    mnist = licences.entry("mnist", None, None)
    assert mnist["model"] is None
    assert mnist["data"]["licence"] == "CC-BY-SA-3.0"
    assert "Keras" in mnist["data"]["source"]
    assert licences.entry("fashion_mnist", "MIT", None)["data"]["licence"] == "MIT"
    unknown = licences.entry("images:mine", None, None)["data"]
    assert unknown == {"dataset": "images:mine", "licence": None, "source": None}
    stated = licences.entry("mnist", None, "my own")["data"]
    assert (stated["licence"], stated["source"]) == ("my own", licences.STATED)


@pytest.mark.slow
def test_a_run_states_the_name_of_its_data_and_its_licence(trained, conditional):
    data = cards.read_card(trained / "bundle")["licence"]["data"]
    assert data["dataset"] == json.loads((trained / "config.json").read_text())["config"]["data"]["source"]
    assert conditional[1]["licence"]["model"] == "MIT"


@pytest.mark.parametrize("licence", ["", " ", 3])
@pytest.mark.parametrize("name", ["licence", "data_licence"])
def test_a_licence_without_a_letter_is_refused(tmp_path, name, licence):
    with pytest.raises(UserError, match=f"Expected {name} to be the name of a licence"):
        export.bundle(tiny_built(), tmp_path / "bundle", **{name: licence})


# --- the preview


def test_the_preview_has_the_pixels_of_kvae_sample(lite, call, tmp_path):
    stated = cards.read_card(lite)["preview"]
    assert stated == {"file": "preview.png", "variant": "float32", "images": 64, "seed": 0, "means": True}
    assert call("sample", lite, "-n", 64, "--means", "-o", "drawn.png")[0] == 0
    assert (lite / "preview.png").read_bytes() == (tmp_path / "drawn.png").read_bytes()


def test_the_preview_of_a_conditional_model_uses_its_conditions_one_after_the_other(conditional):
    folder, _ = conditional
    drawn = runtime.load(folder).sample(runtime.seeds(64, 0), np.eye(5)[np.arange(64) % 5])
    with Image.open(folder / "preview.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pictures.sheet(drawn.means))


@pytest.mark.parametrize(
    ("shape", "count"),
    [((28, 28, 1), 64), ((64, 100), 49), ((64, 199, 3), 16), ((64, 266), 2), ((999, 999, 3), 1), ((4, 4, 2), None)],
)
def test_larger_images_have_a_preview_of_fewer(shape, count):
    stated = preview.entry({"float32": {}}, shape)
    assert (None if stated is None else stated["images"]) == count


# --- what is verified


def failed(folder, **options) -> dict[str, str]:
    return {check.name: check.detail for check in export.verify(folder, **options) if check.passed is False}


def test_another_preview_does_not_verify_although_the_card_has_its_digest(lite_copy):
    before = np.asarray(Image.open(lite_copy / "preview.png"))
    changed = before.copy()
    changed[5, 7] ^= 8
    pictures.save_picture(lite_copy / "preview.png", changed)
    card = cards.read_card(lite_copy)
    facts = {"bytes": (lite_copy / "preview.png").stat().st_size, "sha256": files.digest(lite_copy / "preview.png")}
    card["files"]["preview.png"] = facts
    sealed.write(lite_copy / cards.CARD, card)
    found = failed(lite_copy)
    assert list(found) == ["preview"]
    assert "differs from the means that float32 draws by at most 8 of 255" in found["preview"]


LATER = ("interface", "licence", "preview")


def test_a_card_from_before_there_was_a_readme_verifies(lite_copy):
    card = cards.read_card(lite_copy)
    for name in LATER:
        del card[name]
    for name in ("README.md", "preview.png"):
        del card["files"][name]
        (lite_copy / name).unlink()
    for name in ("purpose", "least_runtime", "least_runtime_is", "signatures"):
        del card["variants"]["float32"][name]
    sealed.write(lite_copy / cards.CARD, card)
    assert failed(lite_copy) == {}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda card: card.pop("licence"), "licence.code: the file does not state it"),
        (lambda card: card.update(licence="none"), "licence.code: the file does not state it"),
        (lambda card: card.update(interface="x"), "interface"),
        (lambda card: card["interface"].pop("sample_64"), "interface.sample_64.inputs.0.name"),
        (
            lambda card: card["interface"]["decode"]["outputs"][0].update(range=[0, 255]),
            "interface.decode.outputs.0.range",
        ),
        (lambda card: card["preview"].update(images=9), "preview.images: computed 64, stated 9"),
        (lambda card: card["model"].update(likelihood=["x"]), "interface.decode.outputs.1.meaning"),
    ],
)
def test_a_wrong_entry_does_not_verify(lite_copy, edit, words):
    card = cards.read_card(lite_copy)
    edit(card)
    sealed.write(lite_copy / cards.CARD, card)
    assert words in failed(lite_copy)["model_card.json: further statements"]


def test_a_wrong_least_runtime_does_not_verify(lite_copy):
    card = cards.read_card(lite_copy)
    card["variants"]["float32"]["least_runtime"]["TensorFlow Lite"] = "2.13.0"
    sealed.write(lite_copy / cards.CARD, card)
    assert "least_runtime.TensorFlow Lite" in failed(lite_copy)["float32 parity"]
