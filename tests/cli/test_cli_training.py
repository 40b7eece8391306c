"""`kvae train`, `kvae evaluate` and `kvae demo`: exit status, words, and files that appear."""

import json

import numpy as np
import pytest
from command_line import SMALL, kvae
from figure_cases import FILES

from kvae.internal import sealed
from kvae.training.runs import Run

pytestmark = pytest.mark.usefixtures("without_xla")  # of the runs that are trained in this process
ALL_PICTURES = [name for names in FILES.values() for name in names]


def test_train_leaves_a_run_and_prints_its_elbo_with_protocol(run):
    assert (run / "model.keras").is_file()
    assert (run / "evaluation.json").is_file()


@pytest.mark.slow
def test_short_options_and_set_reach_the_configuration(call, tmp_path):
    status, _, err = call(
        "train", *SMALL, "--out", "r", "--batch-size", 50, "--latent-dim", 3, "--beta", 2, "--seed", 4,
        "--learning-rate", "0.01", "--set", "model.activation=relu",
    )  # fmt: skip
    assert status == 0, err
    config = json.loads((tmp_path / "r" / "config.json").read_text())["config"]
    assert config["data"]["batch_size"] == 50
    assert config["model"]["latent_dim"] == 3
    assert config["model"]["objective"]["beta"] == 2
    assert config["model"]["network"]["activation"] == "relu"
    assert config["seed"] == 4
    assert config["training"]["learning_rate"] == 0.01


@pytest.mark.slow
def test_evaluate_prints_one_json_object_and_writes_the_same(call, run):
    status, out, _ = call("evaluate", run, "--samples", 5, "--json")
    assert status == 0
    result = json.loads(out)
    assert result == sealed.read(run / "evaluation.json")
    assert result["protocol"]["importance_samples"] == 5
    assert result["log_likelihood"] > result["elbo"]


@pytest.mark.slow
def test_evaluate_prints_a_table_with_the_protocol(call, run):
    status, out, _ = call("evaluate", run)
    assert status == 0
    assert "standard error" in out
    assert "dataset: mnist5k" in out


def test_evaluate_on_other_data_binarizes_them_the_same_way(call, run, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "other.npz", x=rng.integers(0, 256, (40, 28, 28), np.uint8))
    status, out, _ = call("evaluate", run, "--dataset", f"npz:{tmp_path / 'other.npz'}", "--json")
    assert status == 0
    assert json.loads(out)["protocol"]["dataset"].startswith("npz:")


@pytest.mark.slow
def test_train_on_other_data_is_named_after_them_and_takes_no_recipe(call, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.integers(0, 256, (60, 6, 6), np.uint8))
    status, _, err = call("train", "--dataset", "npz:mine.npz", "--epochs", 1, "--batch-size", 20)
    assert status == 0, err
    config = json.loads((tmp_path / "saved_models" / "npz_mine_npz" / "config.json").read_text())["config"]
    assert config["model"]["objective"]["beta"] == 1
    assert config["description"] == ""


@pytest.mark.slow
def test_early_stopping_and_the_best_epoch_are_said(call, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x_train=rng.integers(0, 256, (30, 6, 5), np.uint8), x_test=np.zeros((4, 6, 5)))
    settings = ["data.train=train[:20]", "data.validation=train[20:]", "model.hidden_units=[4]"]
    settings += ["training.jit_compile=false", "training.early_stopping=2"]
    status, out, err = call(
        "train", "--dataset", "npz:mine.npz", "--out", "r", "--epochs", 40, "--batch-size", 10, "--learning-rate", 0.3,
        *(f"--set={setting}" for setting in settings),
    )  # fmt: skip
    assert status == 0, err
    values = Run.open(tmp_path / "r").history()["val_elbo"]
    assert len(values) < 40  # noise cannot be learned, so that the ELBO of other images soon falls
    sentence = f"stopped after {len(values)} of 40 epochs; weights of epoch {values.argmax() + 1} kept"
    assert sentence in out.splitlines()
    assert values.argmax() + 1 == len(values) - 2


@pytest.mark.slow
def test_grey_pixels_under_a_bernoulli_are_one_line_of_warning(tmp_path):
    result = kvae("train", *SMALL, "--set=data.binarize=none", "--out", tmp_path / "grey")
    assert result.returncode == 0
    assert result.stderr.startswith("kvae: warning: Grey pixels")
    assert result.stderr.count("\n") == 1
    evaluation = json.loads((tmp_path / "grey" / "evaluation.json").read_text())
    assert "cross entropy" in evaluation["protocol"]["warning"]


@pytest.mark.exhaustive
def test_demo_does_the_main_job(tmp_path):
    result = kvae("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    demo = tmp_path / "saved_models" / "demo"
    assert json.loads((demo / "evaluation.json").read_text())["elbo"] > -160  # it ended at -153 where it was made
    assert {path.stem for path in (demo / "plots").iterdir()} == set(ALL_PICTURES)
    assert (demo / "exported_samples.png").is_file()
