"""`kvae train --dataset` on a user's own pictures, with no other setting."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from source_files import save_pictures

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("without_xla")
def test_colour_pictures_of_any_size_train_with_no_flags(call, tmp_path, rng):
    save_pictures(tmp_path / "pictures", rng.integers(0, 256, (20, 17, 19, 3), np.uint8))  # no multiple of 4
    status, out, err = call("train", "--dataset", "images:pictures", "--out", "run", "--epochs", 1)
    assert status == 0, err
    line = out.splitlines()[0]
    assert line.startswith("Chosen for 18 colour images of 19 x 17: data.binarize=none ")
    assert " model.network=conv model.filters=[16] " in line
    assert " model.likelihood=gaussian model.variance=learned " in line
    assert line.endswith("(change any with --set KEY=VALUE)")
    assert "training.epochs=" not in line  # the user's
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["data"]["binarize"] == "none"
    assert config["model"]["network"]["kind"] == "conv"
    status, out, _ = call("train", "--resume", "--out", "run")
    assert status == 0
    assert "Chosen for" not in out


@pytest.mark.usefixtures("without_xla")
def test_a_recipe_is_used_as_it_is(call, tmp_path, rng):
    save_pictures(tmp_path / "pictures", rng.integers(0, 256, (30, 12, 12), np.uint8))
    options = ("--recipe", "own_grey", "--dataset", "images:pictures", "--epochs", 1, "--out", "run")
    status, out, err = call("train", *options)
    assert status == 0, err
    assert "Chosen for" not in out
    model = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["model"]
    assert (model["latent_dim"], model["network"]["kind"]) == (10, "conv")


@pytest.mark.slow
def test_a_folder_of_colour_pictures_becomes_a_model_that_has_learned_them(tmp_path):
    def run(*words):
        done = subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        return done

    run(ROOT / "tools" / "make_shapes.py", "pictures", "--classes")
    done = run("-m", "kvae", "train", "--dataset", "images:pictures", "--out", "run")
    assert "collapsed" not in done.stderr
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["active_units"] >= 8
    # It was 9,202 nats where it was made. The mean picture, with the best variance for all pixels, has 1,318.
    assert found["elbo"] > 8000
    run("-m", "kvae", "sample", "run", "-n", "16", "-o", "samples.png")
