"""`kvae pretrained`, and the names of pretrained models in other commands."""

import json
from pathlib import Path

import pytest

from kvae.runtime import pretrained

SAVED_MODELS = Path(__file__).parents[2] / "saved_models"


def test_the_models_are_listed_with_a_number_and_its_protocol(call):
    status, out, err = call("pretrained")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "][:-1] == list(pretrained.NAMES)
    assert max(len(line) for line in lines if "folder: " not in line) <= 130
    folders = [Path(line.split("folder: ")[1]) for line in lines if "folder: " in line]
    assert folders == [SAVED_MODELS / name / "bundle" for name in pretrained.NAMES]
    for name in pretrained.NAMES:
        evaluation = json.loads((SAVED_MODELS / name / "evaluation.json").read_text())
        assert f"test ELBO {evaluation['elbo']:.2f} ± {evaluation['elbo_standard_error']:.2f} nats per image" in out
    assert out.count("10,000 test images, stochastic binarization (drawn once, seed 0), 8 draws of z (seed 0)") == 3


def test_the_models_as_json(call):
    status, out, _ = call("pretrained", "--json")
    listed = json.loads(out)["pretrained"]
    assert status == 0
    assert [each["name"] for each in listed] == list(pretrained.NAMES)
    for each in listed:
        card = json.loads((SAVED_MODELS / each["name"] / "bundle" / "model_card.json").read_text())
        assert each["protocol"] == card["metrics"]["protocol"]
        assert each["variants"]["int8"]["bytes"] == card["variants"]["int8"]["bytes"]
        assert Path(each["variants"]["int8"]["file"]).stat().st_size == card["variants"]["int8"]["bytes"]


def test_an_installation_without_models_says_so(call, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "PACKAGE", tmp_path)
    monkeypatch.setattr(pretrained, "CLONE", tmp_path)
    status, out, err = call("pretrained")
    assert (status, out) == (2, "")
    assert "There are none. Install kvae again." in err


def test_a_name_draws_the_picture_of_its_run(call, tmp_path):
    for place, file in (("mnist_2d", "name.png"), (SAVED_MODELS / "mnist_2d", "path.png")):
        assert call("sample", place, "-n", 3, "--seed", 1, "-o", file)[0] == 0
    assert (tmp_path / "name.png").read_bytes() == (tmp_path / "path.png").read_bytes()


def test_an_unknown_name_is_one_line(call):
    status, out, err = call("sample", "mnist2d")
    assert (status, out) == (2, "")
    assert "Did you mean the pretrained model 'mnist_2d'?" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["evaluate"], ["plot"], ["complete"], ["export"], ["compare"], ["encode", "-o", "z.npz"]]
)
def test_commands_that_need_a_run_say_so_of_a_name(words, call):
    status, out, err = call(words[0], "mnist_2d", *words[1:])
    assert (status, out) == (2, "")
    assert "Expected the folder of a run" in err
    assert "The pretrained model mnist_2d is a decoder" in err
