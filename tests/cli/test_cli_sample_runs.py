"""`kvae sample` of a run without a bundle."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SAVED_MODELS = Path(__file__).parents[2] / "saved_models"


def test_sample_draws_means_above_binary_draws(call, run, tmp_path):
    status, out, _ = call("sample", run, "-n", 10, "-o", "new/samples.png")
    assert status == 0
    assert out.strip() == "new/samples.png"
    picture = np.asarray(Image.open(tmp_path / "new" / "samples.png"))
    lower = picture[picture.shape[0] // 2 + 8 :]
    assert set(np.unique(lower)) <= {0, 255}
    assert len(np.unique(picture[: picture.shape[0] // 2 - 8])) > 10


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
