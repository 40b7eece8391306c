"""`kvae train --dataset` on a user's own pictures, with no other setting."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from source_files import save_pictures

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.usefixtures("without_xla")
def test_colour_pictures_of_any_size_train_with_no_flags(call, tmp_path, rng):
    save_pictures(tmp_path / "pictures", rng.integers(0, 256, (20, 17, 19, 3), np.uint8))  # no multiple of 4
    status, out, err = call("train", "--dataset", "images:pictures", "--out", "run", "--epochs", 1)
    assert status == 0, err
    line, first, others = out.splitlines()[:3]
    assert line == "Chosen for 18 colour images of 19 x 17 (change any with --set KEY=VALUE):"
    assert first == "  model.network=conv model.likelihood=gaussian model.latent_dim=16"  # the epochs are the user's
    assert others.startswith("  data.binarize=none ")
    assert " model.filters=[16] " in others
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["data"]["binarize"] == "none"
    assert config["model"]["network"]["kind"] == "conv"
    status, out, _ = call("train", "--resume", "--out", "run")
    assert status == 0
    assert "Chosen for" not in out


@pytest.mark.slow
@pytest.mark.usefixtures("without_xla")
def test_a_single_test_image_is_warned_of_and_gives_an_evaluation_that_every_command_reads(call, tmp_path, rng):
    save_pictures(tmp_path / "few", rng.integers(0, 256, (5, 8, 8, 3), np.uint8))
    small = ("--dataset", "images:few", "--epochs", 1, "--set", "model.hidden_units=[4]")
    status, out, err = call("train", *small, "--out", "runs/few")
    assert status == 0, err
    assert "The test split has 1 image, " in err
    assert "ELBO may be positive" in out  # because the likelihood is a density
    row = next(line for line in out.splitlines() if "ELBO" in line and "│" in line)
    assert row.split("│")[3].strip() == "-"
    assert json.loads((tmp_path / "runs/few/evaluation.json").read_text())["elbo_standard_error"] is None
    assert call("evaluate", "runs/few")[0] == 0
    status, out, _ = call("list", "runs")
    assert (status, "finished" in out, "damaged" in out) == (0, True, False)
    shutil.copytree(tmp_path / "runs/few", tmp_path / "runs/same")
    status, out, err = call("compare", "runs")
    assert (status, err, "ELBO may be positive" in out) == (0, "", True)


def test_a_path_alone_is_answered_with_the_source_that_it_stands_for(call, tmp_path):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "a.png").touch()
    (tmp_path / "my shapes").mkdir()
    (tmp_path / "my shapes" / "a.png").touch()
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images-idx3-ubyte").touch()
    for name in ("a.csv", "b.csv.gz", "c.NPZ", "notes.txt"):
        (tmp_path / name).touch()
    for path, source in (
        ("shapes", "images:shapes"),
        ("./shapes", "images:./shapes"),
        ("shapes/a.png", "images:shapes"),
        ("idx", "idx:idx"),
        ("a.csv", "csv:a.csv"),
        ("a.csv,b.csv.gz", "csv:a.csv,b.csv.gz"),
        ("c.NPZ", "npz:c.NPZ"),
        ("my shapes", "'images:my shapes'"),
    ):
        status, _, err = call("train", "--dataset", path, "--out", "run")
        assert (status, err.count("\n")) == (2, 1)
        assert err.endswith(f"to read it, write {source}\n")
    for wrong, meant in (("csv:shapes", "images:"), ("images:a.csv", "csv:")):
        err = call("train", "--dataset", wrong, "--out", "run")[2]
        assert err.endswith(f"to read it, write {meant}{tmp_path / wrong.partition(':')[2]}\n")
    for path in ("notes.txt", "missing"):
        assert "to read it" not in call("train", "--dataset", path, "--out", "run")[2]


@pytest.mark.slow
@pytest.mark.usefixtures("without_xla")
def test_a_recipe_is_used_as_it_is(call, tmp_path, rng):
    save_pictures(tmp_path / "pictures", rng.integers(0, 256, (30, 12, 12), np.uint8))
    options = ("--recipe", "own_grey", "--dataset", "images:pictures", "--epochs", 1, "--out", "run")
    status, out, err = call("train", *options)
    assert status == 0, err
    assert "Chosen for" not in out
    model = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["model"]
    assert (model["latent_dim"], model["network"]["kind"]) == (10, "conv")


@pytest.mark.exhaustive
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
