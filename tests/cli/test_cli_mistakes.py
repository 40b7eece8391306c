"""A user's mistake ends in exit status 2 and one clear line, and any other failure in status 1."""

from pathlib import Path

import numpy as np
import pytest
from command_line import kvae
from PIL import Image

from kvae import cli


def full(path: Path) -> Path:
    path.mkdir()
    (path / "file").touch()
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--recipe", "digit_2d"], "Did you mean 'digits_2d'"),
        (["train", "--recipe", "nowhere.toml"], "nowhere.toml"),
        (["train", "--dataset", "idx:nowhere"], "not a folder"),
        (["train", "--dataset", "csv:nowhere.csv"], "nowhere.csv"),
        (["train", "--dataset", "npz:nowhere.npz"], "nowhere.npz"),
        (["train", "--dataset", "images:nowhere"], "not a folder"),
        (["train", "--set", "model.latent=3"], "Did you mean 'model.latent_dim'"),
        (["train", "--set", "model.latent_dim"], "key=value"),
        (["train", "--latent-dim", "0"], "latent_dim"),
        (["train", "--beta", "-1"], "beta"),
        (["train", "--epochs", "two"], "two"),
        (["train", "--batch-size", "9999"], "batch_size"),
        (["train", "--resume"], "--out"),
        (["train", "--resume", "--out", "nowhere"], "nowhere"),
        (["train", "--resume", "--overwrite", "--out", "x"], "Received both"),
        (["train", "--out", "full"], "--overwrite"),
        (["train", "--out", "full", "--overwrite"], "not a run"),
        (["evaluate", "nowhere"], "'nowhere' is not a run folder: it does not exist"),
        (["evaluate", "{run}", "--samples", "0"], "--samples"),
        (["evaluate", "{run}", "--dataset", "npz:nowhere.npz"], "nowhere.npz"),
        (["plot", "{run}", "latice"], "Did you mean 'lattice'"),
        (
            ["plot", "{run}", "samples", "--pair", "0,5"],
            "Expected an option of samples. Received an option of interpolation",
        ),
        (["plot", "{run}", "lattice", "--observed", "top"], "Received an option of completion, posterior_contours"),
        (["plot", "{run}", "interpolation", "--pair", "0"], "Expected two classes, e.g. 0,5. Received '0'"),
        (["plot", "{run}", "interpolation", "--between", "3,x"], "Expected two indices, e.g. 3,17. Received '3,x'"),
        (
            ["plot", "{run}", "interpolation", "--between", "0,60"],
            "Expected indices of test images from 0 to 59. Received 60",
        ),
        (["plot", "{run}", "interpolation", "--pair", "0,11"], "Unknown class of the test images '11'"),
        (["plot", "{run}", "interpolation", "--steps", "1"], "at least 2 steps"),
        (["plot", "{run}", "completion", "--index", "60"], "test images from 0 to 59"),
        (["plot", "{run}", "completion", "--observed", "topp"], "Did you mean 'top'"),
        (["plot", "{run}", "lattice", "-n", "0"], "n to be a whole number of at least 1"),
        (["plot", "{run}", "lattice", "--extent", "-1"], "a positive, finite extent"),
        (["plot", "{run}", "samples", "--seed", "-1"], "seed"),
        (["plot", "{run}", "lattice", "--format", "gif"], "gif"),
        (["plot", "{odd}", "lattice"], "Expected a model with 2 latent dimensions, a plane. This model has 3"),
        (["plot", "{odd}", "posterior_contours"], "This model has 3"),
        (["complete", "full"], "'full' is not a run folder: it has no config.json"),
        (["complete", "{run}", "--observed", "mask.png"], "Expected a mask of 28 x 28 pixels. mask.png has 5 x 4"),
        (["complete", "{run}", "--observed", "nowhere.png"], "Could not read nowhere.png"),
        (["complete", "{run}", "--observed", "topp"], "Unknown mask 'topp'. Did you mean 'top'"),
        (["complete", "{run}", "--observed", "random:2"], "a fraction between 0 and 1. Received '2'"),
        (["complete", "{run}", "--digit", "11"], "Unknown class of the test images '11'"),
        (["complete", "{odd}", "--digit", "1"], "The test images have none. Choose images by their index"),
        (["complete", "{run}", "--index", "60"], "Expected indices of test images from 0 to 59. Received 60"),
        (["complete", "{run}", "--index", "-1"], "Received -1"),
        (["complete", "{run}", "--index", "1", "--digit", "3"], "Expected either --index,"),
        (["complete", "{run}", "--index", "1", "-n", "3"], "Expected either --index,"),
        (["complete", "{run}", "-n", "0"], "Expected -n to be a whole number of at least 1"),
        (["complete", "{run}", "--samples", "1"], "Expected --samples to be a whole number of at least 3"),
        (["complete", "{run}", "--seed", "-1"], "--seed"),
        (["complete", "{odd}", "--plain"], "This model has 3"),
        (["complete", "{odd}", "-n", "1", "--plain", "--exact"], "This model has 3"),
        (["complete", "{odd}", "-n", "1", "--samples", "3", "--out", "full/file"], "Could not write full/file"),
        (["train", "--set", "model.beta=1\nmodel.samples=2"], "several lines"),
        (["demo", "--out", "full"], "full"),
        (["evaluate", "{run}", "--seed", "-5"], "--seed"),
        (["sample", "{run}", "-n", "0"], "-n"),
        (["sample", "{run}", "--seed", "-1"], "--seed"),
        (["sample", "{run}", "-o", "samples.xyz"], "samples.xyz"),
        (["sample", "{run}", "-o", "full/file/samples.png"], "full"),
        (["trian"], "trian"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_ends_in_status_2_and_words(arguments, expected, call, run, odd, tmp_path):
    full(tmp_path / "full")
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(tmp_path / "mask.png")
    places = {"{run}": str(run), "{odd}": str(odd)}
    status, out, err = call(*[places.get(argument, argument) for argument in arguments])
    assert status == 2
    assert expected in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "saved_models").exists()


@pytest.mark.slow
def test_a_mistake_is_one_line_on_stderr_also_where_tensorflow_was_loaded(tmp_path):
    result = kvae("train", "--batch-size", "9999", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("kvae: ")
    assert result.stderr.count("\n") == 1


def test_an_unfinished_run_says_how_to_finish_it(call, run, tmp_path):
    folder = tmp_path / "unfinished"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "config.json").write_text((run / "config.json").read_text())
    status, _, err = call("sample", folder)
    assert status == 2
    assert "kvae train --resume --out" in err


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    result = kvae("evaluate", "nowhere", "--debug", cwd=tmp_path)
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_another_failure_ends_in_status_1(monkeypatch, call, run):
    monkeypatch.setattr(cli.exports, "write_samples", lambda *_: 1 / 0)
    status, _, err = call("sample", run)
    assert status == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


def test_an_interruption_ends_in_status_130_and_one_line(call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kvae.runtime.load", interrupted)
    status, out, err = call("sample", "anything")
    assert (status, out, err.strip()) == (130, "", "Interrupted.")
