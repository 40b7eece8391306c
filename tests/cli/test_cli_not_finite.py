"""Commands refuse a run whose weights are not finite, or whose training or evaluation is not, in one line."""

import shutil

import keras
import numpy as np
import pytest
from exports import tree

pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture
def bad(odd, tmp_path):
    """A run whose model has one NaN."""
    folder = shutil.copytree(odd, tmp_path / "bad")
    change_last_bias(folder / "model.keras", np.nan)
    return folder


def change_last_bias(path, value):
    vae = keras.saving.load_model(path)
    bias = vae.decoder.weights[-1]
    bias.assign(np.full(bias.shape, value))
    vae.save(path)


COMMANDS = {
    "evaluate": ["evaluate", "RUN"],
    "plot": ["plot", "RUN", "samples"],
    "complete": ["complete", "RUN"],
    "encode": ["encode", "RUN", "-o", "z.npz"],
    "export": ["export", "RUN"],
    "sample": ["sample", "RUN", "-o", "images.png"],
    "sample from a file": ["sample", "RUN/model.keras", "-o", "images.png"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_that_are_not_finite_are_refused_and_nothing_is_written(call, bad, command, tmp_path):
    before = tree(tmp_path)
    status, _, err = call(*[part.replace("RUN", str(bad)) for part in COMMANDS[command]])
    assert (status, err.count("\n")) == (2, 1), err
    assert "model.keras has NaN or infinity in" in err
    assert tree(tmp_path) == before


def test_an_evaluation_that_is_not_finite_is_refused_and_the_old_one_stays(call, odd, tmp_path):
    folder = shutil.copytree(odd, tmp_path / "run")
    change_last_bias(folder / "model.keras", 1e38)
    before = tree(folder)
    status, _, err = call("evaluate", folder)
    assert (status, err.count("\n")) == (2, 1), err
    assert "NaN or infinity as elbo of 9 of 9 images" in err
    assert tree(folder) == before


def test_a_training_that_diverges_ends_in_one_line(call, rng, tmp_path):
    np.savez(tmp_path / "odd.npz", x_train=rng.integers(0, 256, (20, 6, 5), np.uint8), x_test=np.zeros((10, 6, 5)))
    source = ["--dataset", f"npz:{tmp_path / 'odd.npz'}", "--batch-size", 4, "--set", "model.hidden_units=[4]"]
    source += ["--set", "training.schedule=constant"]
    status, _, err = call("train", *source, "--learning-rate", 1e30, "--out", tmp_path / "run")
    assert (status, err.count("\n")) == (2, 1), err
    assert "The training diverged in epoch 1 at step 2." in err
    status, _, err = call("evaluate", tmp_path / "run")
    assert (status, err.count("\n")) == (2, 1), err
    assert "its training has not finished" in err
