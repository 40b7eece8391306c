"""`kvae sample` of a run without a bundle."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SAVED_MODELS = Path(__file__).parents[2] / "saved_models"


def test_sample_shows_means_and_with_an_option_binary_draws(call, run, tmp_path):
    for name, options in (("new/means.png", ()), ("new/draws.png", ("--draws",))):
        status, out, _ = call("sample", run, "-n", 10, *options, "-o", name)
        assert (status, out.strip()) == (0, name)
    means, draws = (np.asarray(Image.open(tmp_path / "new" / f"{name}.png")) for name in ("means", "draws"))
    assert means.shape == draws.shape
    assert len(np.unique(means)) > 10
    assert set(np.unique(draws)) == {0, 255}


@pytest.mark.slow
def test_sample_is_the_same_for_the_same_seed(call, run, tmp_path):
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        call("sample", run, "--seed", seed, "-o", name, "--means")
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c


@pytest.mark.slow  # a TensorFlow process for each
@pytest.mark.parametrize("path", ["mnist_2d/model.keras", "mnist_2d"])
def test_sampling_prints_nothing_of_tensorflow(path, tmp_path):
    command = [sys.executable, "-m", "kvae", "sample", str(SAVED_MODELS / path), "-n", "4"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "samples.png\n", "")
