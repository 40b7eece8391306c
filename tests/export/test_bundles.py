"""What fails the export of a bundle, and that nothing is lost or left behind where it fails."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from exports import FORMATS, tree
from small_models import tiny_built

import kvae
from kvae import export
from kvae.export import litert, parity
from kvae.internal import files
from kvae.internal.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_exports")


@pytest.mark.slow
def test_a_tolerance_that_is_exceeded_names_the_variant_and_both_figures(tmp_path):
    pattern = r"Nothing was exported\. float16: its means differ by \d.*e-0\d, more than the tolerance of 1e-07"
    with pytest.raises(UserError, match=pattern):
        export.bundle(
            tiny_built(), tmp_path / "b", formats=["tflite"], variants=["float16"], tolerances={"float16": 1e-7}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_earlier_bundle_survives_an_export_that_fails(lite_copy, tmp_path):
    before = tree(lite_copy)
    with pytest.raises(UserError, match="float16: its means differ"):
        export.bundle(
            tiny_built(),
            lite_copy,
            formats=["tflite"],
            variants=["float16"],
            tolerances={"float16": 1e-7},
            overwrite=True,
        )
    assert tree(lite_copy) == before
    assert list(tmp_path.iterdir()) == [lite_copy]


@pytest.mark.parametrize("formats", [["savedmodel"], pytest.param(["tflite"], marks=pytest.mark.slow)])
def test_weights_that_are_nan_fail_the_export(tmp_path, formats):
    vae = tiny_built()
    kernel = vae.decoder.head.kernel
    kernel.assign(np.where(np.arange(kernel.shape[1]) == 3, np.nan, kernel))
    with pytest.raises(UserError, match="Expected weights that are finite numbers"):
        export.bundle(vae, tmp_path / "bundle", formats=formats)
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
    with pytest.raises(UserError, match="draws random numbers itself"):
        export.bundle(vae, tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_z_fails_with_every_tolerance_except_in_full_int8():
    report = {"means_error_greatest": 0.0, "z_identical": False, "z_error_greatest": 1e-6}
    limits = {"means": 1.0, "elbo": 1.0}
    said = "int8: its z differ from those of the Keras model by up to 1e-06"
    assert parity.failures("int8", report, limits) == [said]
    assert parity.failures("full_int8", report, limits | {"z": export.TOLERANCES["full_int8"]["z"]}) == []


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
        ({"formats": ["savedmodel"], "variants": ["int4"]}, "Unknown variant 'int4'"),
        ({"tolerances": ["int8"]}, "Expected tolerances by variant"),
        ({"metrics": {"elbo": float("nan")}}, "as values that JSON has"),
        ({"metrics": {"elbo": np.float32(1)}}, "as values that JSON has"),
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
        export.bundle(tiny_built(), tmp_path / "bundle", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_not_built_is_refused(tmp_path):
    for formats in FORMATS:
        with pytest.raises(UserError, match="trained, or built"):
            export.bundle(kvae.VAE(2), tmp_path / "bundle", formats=[formats])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_existing_bundle_is_refused_and_replaced_on_request(lite_copy, tmp_path):
    before = tree(lite_copy)
    with pytest.raises(UserError, match=r"exists\. Replace it with --overwrite"):
        export.bundle(tiny_built(), lite_copy, formats=["tflite"], variants=["float32"])
    assert tree(lite_copy) == before
    export.bundle(tiny_built(seed=1), lite_copy, formats=["tflite"], variants=["float32"], overwrite=True)
    after = tree(lite_copy)
    assert set(after) == set(before)
    assert after["decoder.tflite"] != before["decoder.tflite"]
    assert list(tmp_path.iterdir()) == [lite_copy]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"so it is not replaced\. It has no model_card\.json"):
        export.bundle(tiny_built(), tmp_path / "mine", overwrite=True)
    assert tree(tmp_path) == {"mine/notes.txt": b"mine"}


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    make = Path.mkdir

    def refuse(path, *arguments, **options):  # a folder's mode would not stop root, who may run this
        if path.parent == tmp_path / "locked":
            raise PermissionError(13, "Permission denied")
        return make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"Could not write .*locked/bundle"):
        export.bundle(tiny_built(), tmp_path / "locked" / "bundle", formats=["tflite"], variants=["float32"])


def test_a_file_in_place_of_the_parent_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"Could not write .*file/bundle"):
        export.bundle(tiny_built(), tmp_path / "file" / "bundle", formats=["tflite"], variants=["float32"])


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
def test_a_write_that_breaks_off_leaves_no_bundle(tmp_path, monkeypatch, error):
    def write_json(*_):
        raise error

    monkeypatch.setattr(files, "write_json", write_json)
    with pytest.raises((KeyboardInterrupt, UserError)):
        export.bundle(tiny_built(), tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.slow
def test_a_folder_that_appears_while_an_export_runs_is_not_replaced(tmp_path, monkeypatch):
    convert = litert.convert

    def slow(*arguments, **options):
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "thesis.txt").write_text("all of it")
        return convert(*arguments, **options)

    monkeypatch.setattr(litert, "convert", slow)
    with pytest.raises(UserError, match="Could not write"):
        export.bundle(tiny_built(), tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    assert (tmp_path / "bundle" / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize("place", [".", "link"])
def test_neither_the_current_folder_nor_a_link_is_replaced(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(UserError, match="Expected a folder to create"):
        export.bundle(tiny_built(), place, formats=["tflite"], variants=["float32"])
