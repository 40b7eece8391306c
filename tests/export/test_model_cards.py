"""The model card of a bundle: what it states of the model, of every file and of every variant."""

import numpy as np
import pytest
import tensorflow as tf
from exports import REAL_COSTS, tree
from small_models import tiny_built

import kvae
from kvae import export, runtime
from kvae.export import parity
from kvae.internal import files, sealed
from kvae.noise import portable
from kvae.runtime import cards

pytestmark = pytest.mark.usefixtures("quick_exports")


VARIANTS = ("float32", "float16", "int8")
NAMES = ("saved_model", "saved_model_decoder", *VARIANTS)


def test_a_bundle_has_every_file_in_its_place(whole):
    _, folder, _ = whole
    assert {path.name for path in folder.iterdir()} == {
        "saved_model", "saved_model_decoder", "decoder.tflite", "decoder_float16.tflite", "decoder_int8.tflite",
        "model_card.json", "README.md", "preview.png", "sample.py",
    }  # fmt: skip


def test_the_card_is_what_bundle_returns(whole):
    _, folder, card = whole
    assert sealed.read(folder / "model_card.json") == card


def test_the_card_says_what_the_model_is(whole):
    vae, _, card = whole
    assert set(card) == {
        "format", "name", "description", "licence", "metrics", "run", "model", "signatures", "interface", "preview",
        "guarantee", "reference", "protocol", "versions", "variants", "tolerances", "files",
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
    np.testing.assert_array_equal(np.array(card["reference"]["z"], np.float32), kvae.sampling.draw_z(vae, 8, 0))


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
            "file", "format", "bytes", "load_seconds", "peak_memory_mb", "latency_us", "means_error_greatest",
            "means_error_mean", "pixels_differing", "pixels_difference_greatest", "pixels", "z_identical",
            "elbo_change", "purpose", "least_runtime", "least_runtime_is", "signatures",
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


@pytest.mark.slow
def test_a_bundle_without_tflite_has_no_sampler(tmp_path):
    card = export.bundle(tiny_built(), tmp_path / "bundle", formats=["savedmodel_decoder"])
    assert list(card["variants"]) == ["saved_model_decoder"]
    names = {"saved_model_decoder", "model_card.json", "README.md", "preview.png"}
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == names


@pytest.mark.slow
def test_real_costs_are_those_of_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "costs", REAL_COSTS)
    card = export.bundle(tiny_built(), tmp_path / "bundle", formats=["tflite"], variants=["float32"])
    report = card["variants"]["float32"]
    assert report["bytes"] == (tmp_path / "bundle" / "decoder.tflite").stat().st_size
    assert set(report["latency_us"]) == {"1 threads", "2 threads"}
    for latency in report["latency_us"].values():
        assert set(latency) == {"1", "64"}
        assert 0 < latency["1"] < 1e6
    assert 0 < report["load_seconds"] < 60
    assert report["peak_memory_mb"] is None or 5 < report["peak_memory_mb"] < 1000
