"""Pretrained models by name: in a clone, and as setup.py installs them."""

import ast
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

import kvae
from kvae import export, runtime
from kvae.internal.errors import UserError
from kvae.runtime import pretrained
from kvae.training.runs import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A pretrained model as an installed kvae has it, without a clone beside it."""
    source, folder = ROOT / "saved_models" / "mnist_2d" / "bundle", tmp_path / "pretrained" / "mnist_2d"
    folder.mkdir(parents=True)
    for name in pretrained.INSTALLED:
        if (source / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(source / name, folder / name)
    monkeypatch.setattr(pretrained, "PACKAGE", tmp_path / "pretrained")
    monkeypatch.setattr(pretrained, "CLONE", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    return folder


def test_setup_installs_what_is_looked_for():
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("PRETRAINED", "REQUIRED", "OPTIONAL")
    }
    assert constants["PRETRAINED"] == pretrained.NAMES
    assert {*constants["REQUIRED"], *constants["OPTIONAL"]} == set(pretrained.INSTALLED)


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_a_name_is_the_model_of_the_clone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kvae.load(name).path == ROOT / "saved_models" / name / "bundle" / "decoder.tflite"


def test_a_name_is_the_installed_model_with_the_same_images(installed):
    for variant in (None, "int8"):
        decoder = kvae.load("mnist_2d", variant)
        assert decoder.path.parent == installed
        expected = runtime.load(ROOT / "saved_models" / "mnist_2d", variant).sample([3, 4])
        for values, others in zip(decoder.sample([3, 4]), expected, strict=True):
            assert np.array_equal(values, others)


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_a_path_wins_over_a_name(kind, installed, tmp_path):
    path = tmp_path / "mnist_2d"
    if kind == "folder":
        shutil.copytree(ROOT / "saved_models" / "fashion_2d" / "bundle", path / "bundle")
        assert kvae.load("mnist_2d").path == Path("mnist_2d/bundle/decoder.tflite")
    else:
        path.touch() if kind == "file" else path.symlink_to("nowhere")
        with pytest.raises(
            UserError, match=r"(^mnist_2d is not a|Received 'mnist_2d', which does).* It hides the pret"
        ):
            kvae.load("mnist_2d")


@pytest.mark.usefixtures("installed")
def test_a_variant_that_is_not_installed_is_refused_with_those_that_are():
    with pytest.raises(UserError, match=r"installed: float32, int8, web_int8\. Received float16, which is only in"):
        kvae.load("mnist_2d", "float16")
    for received, near in (("int9", "int8"), ("INT8", "int8"), ("fp16", "float16")):
        with pytest.raises(UserError, match=rf"Unknown variant '{received}'\. Did you mean '{near}'"):
            kvae.load("mnist_2d", received)


def test_an_installed_file_that_is_missing_or_changed_is_refused(installed):
    (installed / "decoder_int8.tflite").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"decoder_int8\.tflite is not the file .* Install kvae again\.$"):
        kvae.load("mnist_2d", "int8")
    (installed / "decoder.tflite").unlink()
    with pytest.raises(UserError, match=r"Could not read .*decoder\.tflite.* Install kvae again\.$"):
        kvae.load("mnist_2d")


@pytest.mark.parametrize(
    ("received", "near"), [("mnist2d", "mnist_2d"), ("fashion", "fashion_2d"), ("saved_models/mnist_2d", "mnist_2d")]
)
def test_an_unknown_name_is_refused_with_the_nearest(received, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"'{received}', which does not exist\. Did you mean the .* '{near}'\?"):
        kvae.load(received)


def test_an_unknown_name_lists_those_that_exist_and_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"models: mnist_2d, fashion_2d, mnist_10d\. To make .*kvae train.*kvae export"):
        kvae.load("cifar")


@pytest.mark.usefixtures("installed")
def test_a_run_is_not_made_of_a_name():
    with pytest.raises(UserError, match=r"is a decoder, for kvae sample .*: kvae train --recipe mnist_2d"):
        Run.open("mnist_2d")


def test_a_clone_has_the_run_of_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is a decoder, for kvae sample .* Its run is .*saved_models/mnist_2d$"):
        Run.open("mnist_2d")


def test_what_is_not_installed_is_verified_neither_as_right_nor_as_wrong(installed):
    (installed / "decoder_int8.tflite").unlink()
    checks = itertools.islice(export.verify("mnist_2d"), 4)  # those of the files come first
    passed = {check.name: check.passed for check in checks}
    assert passed["decoder.tflite"] is True
    assert passed["decoder_float16.tflite"] is None
    assert passed["decoder_int8.tflite"] is False


def test_what_an_installation_has_is_listed(installed, tmp_path):
    assert pretrained.folders() == {"mnist_2d": installed}
    facts = pretrained.describe("mnist_2d")
    assert list(facts["variants"]) == ["float32", "int8", "web_int8"]
    assert (facts["latent_dim"], facts["image_shape"]) == (2, [28, 28, 1])
    assert -150 < facts["elbo"] < -140
