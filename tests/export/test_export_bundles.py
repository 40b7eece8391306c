"""Bundles: what the card says, what fails an export, what verification finds, and the sampler that stands alone."""

import json
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvae
from kvae import export, runtime, training
from kvae.export import litert, parity
from kvae.internal import files, pictures
from kvae.internal.errors import UserError
from kvae.noise import portable
from kvae.runtime import cards
from kvae.training.config import RunConfig

REAL = {name: getattr(parity, name) for name in ("costs", "LATENTS", "IMAGES", "CHUNK")}
LATENCY = {"1": 10.0, "64": 20.0}


def pretended_costs(path: Path) -> dict:
    latency = {f"{threads} threads": LATENCY for threads in (1, 2)}
    return {"bytes": parity.size(path), "load_seconds": 0.1, "peak_memory_mb": 50.0, "latency_us": latency}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Parity over few samples in two parts, and no processes for what the files cost."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("costs", pretended_costs), ("LATENTS", 100), ("IMAGES", 100), ("CHUNK", 70)):
            patch.setattr(parity, name, value)
        yield


def built(**options) -> kvae.VAE:
    vae = kvae.VAE(**{"latent_dim": 2, "hidden_units": (8,), "seed": 0, **options})
    vae.build((None, 6, 5, 1))
    return vae


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (20, 6, 5, 1)).astype(np.float32)


FORMATS = ("savedmodel", "savedmodel_decoder", "tflite")
VARIANTS = ("float32", "float16", "int8")
NAMES = ("saved_model", "saved_model_decoder", *VARIANTS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, x) -> tuple[kvae.VAE, Path, dict]:
    """A model, its bundle with everything in it and the card that `bundle` returned."""
    vae, folder = built(), tmp_path_factory.mktemp("whole") / "bundle"
    card = export.bundle(vae, folder, formats=FORMATS, test=x, name="tiny", metrics={"elbo": -20.0}, tolerances={})
    return vae, folder, card


@pytest.fixture(scope="module")
def lite(tmp_path_factory) -> Path:
    """A bundle of one .tflite file."""
    folder = tmp_path_factory.mktemp("lite") / "bundle"
    export.bundle(built(), folder, formats=["tflite"], variants=["float32"])
    return folder


@pytest.fixture
def lite_copy(lite, tmp_path) -> Path:
    return Path(shutil.copytree(lite, tmp_path / "bundle"))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The card


def test_a_bundle_has_every_file_in_its_place(whole):
    _, folder, _ = whole
    assert {path.name for path in folder.iterdir()} == {
        "saved_model", "saved_model_decoder", "decoder.tflite", "decoder_float16.tflite", "decoder_int8.tflite",
        "model_card.json", "sample.py",
    }  # fmt: skip


def test_the_card_is_what_bundle_returns(whole):
    _, folder, card = whole
    assert json.loads((folder / "model_card.json").read_text()) == card


def test_the_card_says_what_the_model_is(whole):
    vae, _, card = whole
    assert set(card) == {
        "format", "name", "description", "metrics", "run", "model", "signatures", "guarantee", "reference", "protocol",
        "versions", "variants", "tolerances", "files",
    }  # fmt: skip
    assert card["format"] == 1
    assert (card["name"], card["metrics"]) == ("tiny", {"elbo": -20.0})
    assert card["model"] == {
        "latent_dim": 2,
        "image_shape": [6, 5, 1],
        "likelihood": "bernoulli",
        "prior": "standard_normal",
        "condition_shape": None,
        "decoder_weights": vae.decoder.count_params(),
    }
    assert set(card["signatures"]) == {"decode", "sample"}
    assert "bit for bit" in card["guarantee"]
    assert set(card["protocol"]) == {"parity", "costs"}
    assert card["versions"]["tensorflow"] == tf.__version__
    seeds = np.array(card["reference"]["seeds"], np.int32)
    np.testing.assert_array_equal(seeds, portable.seeds(8, 0))
    np.testing.assert_array_equal(np.array(card["reference"]["z"], np.float32), vae.sample_prior(8, 0))


def test_the_card_states_sha256_and_bytes_of_every_file_but_itself(whole):
    _, folder, card = whole
    contents = tree(folder)
    del contents["model_card.json"]
    assert set(card["files"]) == set(contents)
    for name, content in contents.items():
        assert card["files"][name] == {"bytes": len(content), "sha256": files.digest(folder / name)}


def test_every_variant_has_its_report(whole):
    _, folder, card = whole
    assert tuple(card["variants"]) == NAMES
    for name, report in card["variants"].items():
        assert set(report) == {
            "bytes", "load_seconds", "peak_memory_mb", "latency_us", "means_error_greatest", "means_error_mean",
            "pixels_differing", "pixels_difference_greatest", "pixels", "z_identical", "elbo_change",
        }  # fmt: skip
        assert report["bytes"] == parity.size(folder / runtime.VARIANTS.get(name, name))
        assert report["z_identical"]
        assert report["pixels"] == 100 * 30
        assert report["means_error_mean"] <= report["means_error_greatest"]
        kind = "saved_model" if name.startswith("saved_model") else name
        assert card["tolerances"][name] == export.TOLERANCES[kind]


@pytest.mark.parametrize("name", ["saved_model", "saved_model_decoder", "float32"])
def test_float32_changes_the_elbo_by_its_rounding_alone(whole, name):
    report = whole[2]["variants"][name]
    assert abs(report["elbo_change"]) < 1e-5  # means of sums of 30 float32 terms of size 1
    assert report["means_error_greatest"] < 1e-6  # a sum of 8 such terms under a sigmoid


def test_the_elbo_is_compared_only_with_data(lite):
    card = cards.read_card(lite)
    assert "elbo_change" not in card["variants"]["float32"]
    assert (card["name"], list(card["variants"])) == (None, ["float32"])


def test_data_may_be_batches_and_change_nothing(whole, x):
    vae, folder, card = whole
    decoders = {"float16": runtime.load(folder, "float16")}
    changes = parity.elbo_changes(vae, decoders, tf.data.Dataset.from_tensor_slices(x).batch(7))
    # The same draws in batches of another size: float32 sums of 30 terms of size 1.
    assert changes["float16"] == pytest.approx(card["variants"]["float16"]["elbo_change"], abs=1e-5)


def test_a_bundle_without_tflite_has_no_sampler(tmp_path):
    card = export.bundle(built(), tmp_path / "bundle", formats=["savedmodel_decoder"])
    assert list(card["variants"]) == ["saved_model_decoder"]
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {"saved_model_decoder", "model_card.json"}


def test_real_costs_are_those_of_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "costs", REAL["costs"])
    card = export.bundle(built(), tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    report = card["variants"]["float32"]
    assert report["bytes"] == (tmp_path / "bundle" / "decoder.tflite").stat().st_size
    assert set(report["latency_us"]) == {"1 threads", "2 threads"}
    for latency in report["latency_us"].values():
        assert set(latency) == {"1", "64"}
        assert 0 < latency["1"] < 1e6
    assert 0 < report["load_seconds"] < 60
    assert report["peak_memory_mb"] is None or 5 < report["peak_memory_mb"] < 1000


# What fails an export


def test_a_tolerance_that_is_exceeded_names_the_variant_and_both_figures(tmp_path):
    pattern = r"Nothing was exported\. float16: its means are off by \d.*e-0\d, more than the tolerance of 1e-07"
    with pytest.raises(UserError, match=pattern):
        export.bundle(built(), tmp_path / "b", formats=["tflite"], variants=["float16"], tolerances={"float16": 1e-7})
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_bundle_survives_an_export_that_fails(lite_copy, tmp_path):
    before = tree(lite_copy)
    with pytest.raises(UserError, match="float16: its means are off"):
        export.bundle(
            built(), lite_copy, formats=["tflite"], variants=["float16"], tolerances={"float16": 1e-7}, overwrite=True
        )
    assert tree(lite_copy) == before
    assert list(tmp_path.iterdir()) == [lite_copy]


@pytest.mark.parametrize("formats", [["savedmodel"], pytest.param(["tflite"], marks=pytest.mark.slow)])
def test_weights_that_are_nan_fail_the_export(tmp_path, formats):
    vae = built()
    kernel = vae.decoder.head.kernel
    kernel.assign(np.where(np.arange(kernel.shape[1]) == 3, np.nan, kernel))
    with pytest.raises(UserError, match="its means are off by nan"):
        export.bundle(vae, tmp_path / "bundle", formats=formats, variants=["float32"])
    assert list(tmp_path.iterdir()) == []


class Noise(keras.layers.Layer):
    """A layer that draws numbers of its own, which LiteRT can do and which makes every call another one."""

    def call(self, z):
        return z + tf.random.normal(tf.shape(z))


@pytest.mark.slow
def test_a_decoder_that_is_no_function_of_z_fails_the_export(tmp_path):
    image, z = keras.Input((6, 5, 1)), keras.Input((2,))
    h = keras.layers.Flatten()(image)
    encoder = keras.Model(image, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    decoder = keras.Model(z, keras.layers.Reshape((6, 5, 1))(keras.layers.Dense(30)(Noise()(z))))
    vae = kvae.VAE(encoder=encoder, decoder=decoder, seed=0)
    vae.build((None, 6, 5, 1))
    with pytest.raises(UserError, match="draws random numbers of its own"):
        export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_z_fails_with_every_tolerance_except_in_full_int8():
    report = {"means_error_greatest": 0.0, "z_identical": False, "z_error_greatest": 1e-6}
    limits = {"means": 1.0, "elbo": 1.0}
    said = "int8: its z are not those of the Keras model, but off by up to 1e-06"
    assert parity.failures("int8", report, limits) == [said]
    assert parity.failures("full_int8", report, limits) == []


@pytest.mark.parametrize(("error", "fails"), [(5e-5, False), (2e-4, True), (np.nan, True)])
def test_z_of_a_prior_with_weights_may_be_off_by_its_tolerance(error, fails):
    report = {"means_error_greatest": 0.0, "z_identical": False, "z_error_greatest": error}
    limits = {"means": 1.0, "elbo": 1.0, "z": parity.Z_TOLERANCE}
    assert bool(parity.failures("float32", report, limits)) == fails


@pytest.mark.parametrize(("change", "fails"), [(0.5, False), (-0.5, False), (1.5, True), (-1.5, True), (np.nan, True)])
def test_an_elbo_that_changes_too_much_in_either_direction_fails(change, fails):
    report = {"means_error_greatest": 0.0, "z_identical": True, "elbo_change": change}
    found = parity.failures("int8", report, {"means": 0.1, "elbo": 1.0})
    assert len(found) == fails
    if fails:
        assert f"int8: the test ELBO changes by {change:.3g} nats, more than 1" in found[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["savedmodle"]}, "Unknown format 'savedmodle'. Did you mean 'savedmodel'"),
        ({"formats": []}, "Expected a list of at least one format of savedmodel, savedmodel_decoder, tflite"),
        ({"formats": ["tflite"], "variants": ["int4"]}, "Unknown variant 'int4'"),
        ({"formats": ["tflite"], "variants": []}, "Expected a list of at least one variant"),
        ({"formats": "tflite"}, "Expected a list of at least one format .* Received 'tflite'"),
        ({"formats": None}, "Expected a list of at least one format"),
        ({"formats": ["savedmodel"], "variants": ["int4"]}, "Unknown variant 'int4'"),
        ({"tolerances": ["int8"]}, "Expected tolerances by variant"),
        ({"metrics": {"elbo": float("nan")}}, "that JSON can hold"),
        ({"metrics": {"elbo": np.float32(1)}}, "that JSON can hold"),
        ({"tolerances": {"int4": 0.1}}, "Unknown variant 'int4'"),
        ({"tolerances": {"int8": 0}}, r"in \(0, 1\] for the means of int8. Received 0"),
        ({"tolerances": {"int8": 1.5}}, "Received 1.5"),
        ({"tolerances": {"int8": float("nan")}}, "Received nan"),
        ({"tolerances": {"int8": True}}, "Received True"),
        ({"tolerances": {"int8": "0.1"}}, "Received '0.1'"),
        ({"tolerances": {"saved_model": -1.0}}, "means of saved_model. Received -1.0"),
    ],
)
def test_invalid_options_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        export.bundle(built(), tmp_path / "bundle", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_not_built_is_refused(tmp_path):
    for formats in FORMATS:
        with pytest.raises(UserError, match="trained, or built"):
            export.bundle(kvae.VAE(2), tmp_path / "bundle", formats=[formats])
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_refused_and_replaced_on_request(lite_copy, tmp_path):
    before = tree(lite_copy)
    with pytest.raises(UserError, match=r"exists\. Replace it with overwrite"):
        export.bundle(built(), lite_copy, formats=["tflite"], variants=["float32"])
    assert tree(lite_copy) == before
    export.bundle(built(seed=1), lite_copy, formats=["tflite"], variants=["float32"], overwrite=True)
    after = tree(lite_copy)
    assert set(after) == set(before)
    assert after["decoder.tflite"] != before["decoder.tflite"]
    assert list(tmp_path.iterdir()) == [lite_copy]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no model_card.json, so it is not replaced"):
        export.bundle(built(), tmp_path / "mine", overwrite=True)
    assert tree(tmp_path) == {"mine/notes.txt": b"mine"}


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    make = tempfile.mkdtemp

    def refuse(*arguments, **options):  # a folder's mode would not stop root, who may run this
        if options.get("dir") == tmp_path / "locked":
            raise PermissionError(13, "Permission denied")
        return make(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UserError, match=r"Could not write .*locked/bundle"):
        export.bundle(built(), tmp_path / "locked" / "bundle", formats=["tflite"], variants=["float32"])


def test_a_file_in_place_of_the_parent_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"Could not write .*file/bundle"):
        export.bundle(built(), tmp_path / "file" / "bundle", formats=["tflite"], variants=["float32"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
def test_a_write_that_breaks_off_leaves_no_bundle(tmp_path, monkeypatch, error):
    def write_json(*_):
        raise error

    monkeypatch.setattr(files, "write_json", write_json)
    with pytest.raises((KeyboardInterrupt, UserError)):
        export.bundle(built(), tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    assert list(tmp_path.rglob("*")) == []


# Verification


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A tiny run with its bundle."""
    folder, rng = tmp_path_factory.mktemp("trained"), np.random.default_rng(0)
    arrays = {name: rng.integers(0, 256, (20, 6, 5), np.uint8) for name in ("x_train", "x_test")}
    np.savez(folder / "odd.npz", **arrays)
    values = {
        "name": "odd",
        "data": {"source": f"npz:{folder / 'odd.npz'}", "batch_size": 10},
        "model": {"latent_dim": 2, "hidden_units": [4]},
        "training": {"epochs": 1, "jit_compile": False},
    }
    run = training.train(RunConfig.from_dict(values), folder / "run", verbose=0)
    export.bundle_of_run(run, variants=["float32"], test=export.test_images(run))
    return run.folder


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_the_card_of_a_run_has_its_evaluation_and_its_files(trained):
    card = cards.read_card(trained / "bundle")
    assert card["name"] == "odd"
    assert card["metrics"] == json.loads((trained / "evaluation.json").read_text())
    names = ("config.json", "model.keras")
    assert card["run"] == {name: {"sha256": files.digest(trained / name)} for name in names}


def test_everything_holds_of_a_run_and_its_bundle(trained):
    checks = list(export.verify(trained))
    assert [check for check in checks if not check.passed] == []
    terms = ("elbo", "reconstruction", "kl")
    assert [check.name for check in checks if "/" not in check.name] == [
        "decoder.tflite",
        "sample.py",
        "config.json",
        "model.keras",
        *[f"{source}: {term}" for source in ("evaluation.json", "model_card.json") for term in terms],
        "reference z",
        "saved_model parity",
        "float32 parity",
    ]


def test_without_evaluation_no_data_are_needed(copied):
    config = json.loads((copied / "config.json").read_text())
    config["config"]["data"]["source"] = "npz:nowhere.npz"
    (copied / "config.json").write_text(json.dumps(config))
    failed = [check.name for check in export.verify(copied, evaluate=False) if not check.passed]
    assert failed == ["config.json"]
    with pytest.raises(UserError, match=r"nowhere\.npz"):
        list(export.verify(copied))


@pytest.mark.parametrize("name", ["whole", "lite"])
def test_a_bundle_alone_verifies(request, name):
    folder = request.getfixturevalue(name)
    checks = list(export.verify(folder if name == "lite" else folder[1]))
    assert [check for check in checks if not check.passed] == []
    assert f"{'float32' if name == 'lite' else 'int8'} parity" in [check.name for check in checks]


def failed_checks(path: Path) -> dict[str, str]:
    """The claims that do not hold, up to the one after which nothing can be loaded."""
    found = {}
    try:
        for check in export.verify(path):
            if not check.passed:
                found[check.name] = check.found
    except UserError:
        pass
    return found


def change(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


VALUES = "saved_model/variables/variables.data-00000-of-00001"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("bundle/decoder.tflite", "middle"),
        ("bundle/sample.py", "end"),
        (f"bundle/{VALUES}", "middle"),
        ("bundle/saved_model/saved_model.pb", "end"),
        ("model.keras", "middle"),
        ("config.json", "end"),
    ],
)
def test_a_file_of_which_one_bit_has_changed_is_named(copied, name, place):
    path = copied / name
    if place == "end":  # where JSON and Python have a line feed, and a space does as well
        path.write_bytes(path.read_bytes() + b" ")
    else:
        change(path, path.stat().st_size // 2)
    found = failed_checks(copied)
    stated = name.removeprefix("bundle/")
    assert stated in found
    assert "was changed or damaged" in found[stated]


@pytest.mark.parametrize("name", ["decoder.tflite", "sample.py", VALUES])
def test_a_file_that_is_missing_is_named(copied, name):
    (copied / "bundle" / name).unlink()
    found = failed_checks(copied)
    assert "No such file" in found[name]


def restate(copied: Path, name: str) -> None:
    """Writes the SHA-256 of a changed file into the card."""
    card = cards.read_card(copied / "bundle")
    files_of = card["files"] if name in card["files"] else card["run"]
    folder = copied / "bundle" if name in card["files"] else copied
    files_of[name]["sha256"] = files.digest(folder / name)
    (copied / "bundle" / "model_card.json").write_text(json.dumps(card))


def boast(card: dict) -> None:
    card["variants"]["float32"]["means_error_greatest"] = -1.0


def forget(*names: str):
    def edit(card: dict) -> None:
        for name in names[:-1]:
            card = card[name]
        del card[names[-1]]

    return edit


@pytest.mark.parametrize(
    ("edit", "claim", "words"),
    [
        (lambda card: card.update(files={}), "sample.py", "does not list it"),
        (lambda card: card.update(files={}), "float32", "does not list decoder.tflite"),
        (lambda card: card.update(variants={}), "variants", "states none"),
        (forget("run", "model.keras"), "run", "of which model.keras"),
        (boast, "float32 parity", "too good"),
        (lambda card: card["variants"]["float32"].update(bytes=1), "float32 parity", "bytes, stated 1"),
        (forget("variants", "float32", "means_error_greatest"), "float32 parity", "does not state it"),
        (forget("tolerances", "float32"), "float32 parity", "does not state it"),
        (lambda card: card["tolerances"]["float32"].update(means="x"), "float32 parity", "does not state it"),
        (lambda card: card["model"].update(latent_dim=99), "model", "of another model"),
        (lambda card: card["reference"].update(seeds=[2**40]), "reference z", ""),
        (lambda card: card["reference"].update(z="x"), "reference z", ""),
        (lambda card: card.update(reference={}), "reference z", ""),
    ],
)
def test_a_wrong_or_incomplete_card_does_not_verify(copied, edit, claim, words):
    card = cards.read_card(copied / "bundle")
    edit(card)
    (copied / "bundle" / "model_card.json").write_text(json.dumps(card))
    found = {check.name: check.found for check in export.verify(copied, evaluate=False) if not check.passed}
    assert words in found[claim]


def test_a_file_that_the_card_does_not_list_is_named(copied):
    (copied / "bundle" / "more.py").write_text("")
    found = {check.name: check.found for check in export.verify(copied, evaluate=False) if not check.passed}
    assert found == {"more.py": "model_card.json does not list it"}


def test_verification_reports_a_tolerance_wider_than_usual(copied):
    card = cards.read_card(copied / "bundle")
    card["tolerances"]["float32"]["means"] = 0.9
    (copied / "bundle" / "model_card.json").write_text(json.dumps(card))
    found = {check.name: check for check in export.verify(copied, evaluate=False)}["float32 parity"]
    assert found.passed
    assert "wider than the usual 0.0001" in found.found


def test_a_folder_that_appears_while_an_export_runs_is_not_replaced(tmp_path, monkeypatch):
    convert = litert.convert

    def slow(*arguments, **options):
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "thesis.txt").write_text("all of it")
        return convert(*arguments, **options)

    monkeypatch.setattr(litert, "convert", slow)
    with pytest.raises(UserError, match="Could not write"):
        export.bundle(built(), tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    assert (tmp_path / "bundle" / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize("place", [".", "link"])
def test_neither_the_current_folder_nor_a_link_is_replaced(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(UserError, match="Expected a folder to create"):
        export.bundle(built(), place, formats=["tflite"], variants=["float32"])


@pytest.mark.parametrize("source", ["evaluation.json", "model_card.json"])
def test_a_wrong_elbo_does_not_verify(copied, source):
    path = copied / source if source == "evaluation.json" else copied / "bundle" / source
    values = json.loads(path.read_text())
    metrics = values if source == "evaluation.json" else values["metrics"]
    stated, metrics["elbo"] = metrics["elbo"], metrics["elbo"] + 0.5
    path.write_text(json.dumps(values))
    found = failed_checks(copied)
    assert list(found) == [f"{source}: elbo"]
    assert f"{stated:.3f} nats, stated {metrics['elbo']:.3f}" in found[f"{source}: elbo"]


@pytest.mark.parametrize("content", ["{}", "[]", '{"protocol": 1}', '{"elbo": "high"}'])
def test_an_evaluation_of_something_else_is_a_claim_that_fails(copied, content):
    (copied / "evaluation.json").write_text(content)
    found = failed_checks(copied)
    assert list(found) == ["evaluation.json: elbo"]
    assert "not an evaluation of kvae" in found["evaluation.json: elbo"]


def test_the_decoder_of_another_model_does_not_verify_although_the_card_fits(copied, tmp_path):
    vae = built(hidden_units=(4,), seed=9)
    export.bundle(vae, tmp_path / "other", formats=["tflite"], variants=["float32"])
    shutil.copy(tmp_path / "other" / "decoder.tflite", copied / "bundle" / "decoder.tflite")
    restate(copied, "decoder.tflite")
    found = failed_checks(copied)
    assert list(found) == ["float32 parity"]
    assert "its means are off by" in found["float32 parity"]


def test_wrong_reference_z_do_not_verify(copied):
    card = cards.read_card(copied / "bundle")
    card["reference"]["z"][0][0] += 2.0**-20  # one step of the sampler
    (copied / "bundle" / "model_card.json").write_text(json.dumps(card))
    assert list(failed_checks(copied)) == ["reference z"]


def test_a_run_without_a_bundle_verifies_its_elbo(copied):
    shutil.rmtree(copied / "bundle")
    checks = list(export.verify(copied))
    names = [f"evaluation.json: {term}" for term in ("elbo", "reconstruction", "kl")]
    assert [(check.name, check.passed) for check in checks] == [(name, True) for name in names]
    (copied / "evaluation.json").unlink()
    assert [check.passed for check in export.verify(copied)] == [False]


@pytest.mark.parametrize("kind", ["nowhere", "empty", "file"])
def test_what_is_neither_run_nor_bundle_is_refused(tmp_path, kind):
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    with pytest.raises(UserError, match="Expected a run or a bundle"):
        list(export.verify(path))


def test_a_card_of_something_else_is_refused(tmp_path):
    (tmp_path / "model_card.json").write_text("[]")
    with pytest.raises(UserError, match="not the model card of a bundle"):
        list(export.verify(tmp_path))


def test_a_bundle_verifies_with_its_variants_in_any_order(tmp_path):
    vae = built(hidden_units=(100, 110))  # 11,000 weights: a layer that int8 quantizes
    export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["int8", "float32"])
    assert [check for check in export.verify(tmp_path / "bundle") if not check.passed] == []


# sample.py

ALONE = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("kvae", "tensorflow", "keras", "PIL"):
            raise ImportError(f"no {name} here")

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    """sample.py of a bundle, where neither kvae nor TensorFlow nor Pillow can be imported."""
    return subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(folder / "sample.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        check=False,
    )


@pytest.fixture(scope="module")
def colour(tmp_path_factory) -> Path:
    """A bundle of a model of colour pictures."""
    vae = kvae.VAE(5, hidden_units=(8,), likelihood="continuous_bernoulli", seed=0)
    vae.build((None, 7, 8, 3))
    folder = tmp_path_factory.mktemp("colour") / "bundle"
    export.bundle(vae, folder, formats=["tflite"], variants=["float32", "float16"])
    return folder


def pixels(sheet: np.ndarray) -> np.ndarray:
    return np.rint(255 * sheet).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "count", "more"),
    [
        ("lite", 1, []),
        ("colour", 23, []),
        pytest.param("lite", 10, ["--means"], marks=pytest.mark.slow),
        pytest.param("lite", 11, [], marks=pytest.mark.slow),
        pytest.param("colour", 10, ["--means"], marks=pytest.mark.slow),
    ],
)
def test_sample_py_draws_what_the_runtime_draws(request, tmp_path, name, count, more):
    folder = request.getfixturevalue(name)
    result = alone(folder, "-n", count, "--seed", 4, "-o", tmp_path / "drawn.png", *more)
    assert (result.returncode, result.stdout.strip()) == (0, str(tmp_path / "drawn.png")), result.stderr
    drawn = runtime.load(folder).sample(portable.seeds(count, 4))
    images = drawn.means if more else drawn.images / np.float32(255)
    expected = pixels(pictures.tile(images, count if count <= 10 else None, gap=1))
    with Image.open(tmp_path / "drawn.png") as picture:
        assert picture.mode == ("L" if images.shape[-1] == 1 else "RGB")
        found = np.asarray(picture)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_sample_py_uses_the_decoder_that_was_asked_for(colour, lite, tmp_path):
    assert alone(colour, "-n", 4, "-o", tmp_path / "a.png", "--model", lite / "decoder.tflite").returncode == 0
    assert alone(lite, "-n", 4, "-o", tmp_path / "b.png").returncode == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_sample_py_uses_another_variant_where_float32_was_left_out(colour, tmp_path):
    folder = Path(shutil.copytree(colour, tmp_path / "bundle"))
    (folder / "decoder.tflite").unlink()
    result = alone(folder, "-n", 2)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "samples.png").is_file()


@pytest.mark.parametrize("seed", [0, 1, 2, 12345, 2**30, 2**31 - 1])
def test_the_seeds_of_sample_py_are_those_of_kvae(seed):
    from kvae.export import standalone

    np.testing.assert_array_equal(standalone.image_seeds(1000, seed), portable.seeds(1000, seed))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-n", "0"], "expected -n from 1 to 10000, received 0"),
        (["-n", "-1"], "received -1"),
        (["-n", "1000000"], "received 1000000"),
        (["-n", "two"], "two"),
        (["--seed", "-1"], "expected --seed from 0 to 2147483647, received -1"),
        (["--seed", "2147483648"], "received 2147483648"),
        (["--model", "nowhere.tflite"], "could not load nowhere.tflite"),
        (["--model", "bundle/sample.py"], "could not load bundle/sample.py"),
        (["-o", "nowhere/samples.png"], "could not write nowhere/samples.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_calling_sample_py_ends_in_status_2_and_one_line(lite, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(lite.parent)
    monkeypatch.setattr(sys, "argv", ["sample.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(lite / "sample.py"), run_name="__main__")
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    last = err.strip()
    assert out == ""
    assert last.startswith("sample.py: ")
    assert expected in last


def test_sample_py_refuses_to_draw_vectors_with_a_clear_message(tmp_path):
    vae = kvae.VAE(2, hidden_units=(8,), seed=0)
    vae.build((None, 12))
    export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    result = alone(tmp_path / "bundle")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
