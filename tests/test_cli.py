"""The command line as a user meets it: exit status, one line on stderr, files that appear."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvae import cli

SMALL = [
    "--set=data.train=train[:200]",
    "--set=data.test=test[:60]",
    "--set=model.hidden_units=[16]",
    "--set=training.jit_compile=false",
    "--epochs=2",
]


def kvae(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "kvae", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ},
        check=False,
    )


def inside(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Runs the command within this process, which already has TensorFlow: exit status, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["kvae", *map(str, arguments)])
    monkeypatch.setattr(cli, "_quiet_tensorflow", lambda: None)
    try:
        cli.run()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: inside(monkeypatch, capsys, *arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small trained run, made by the command itself in a process of its own."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    result = kvae("train", *SMALL, "--out", folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return folder


def test_train_leaves_a_run_and_prints_its_elbo_with_protocol(run):
    assert (run / "model.keras").is_file()
    assert (run / "evaluation.json").is_file()


def test_short_options_and_set_reach_the_configuration(call, tmp_path):
    status, _, err = call(
        "train", *SMALL, "--out", "r", "--batch-size", 50, "--latent-dim", 3, "--beta", 2, "--seed", 4,
        "--learning-rate", "0.01", "--set", "model.activation=relu",
    )  # fmt: skip
    assert status == 0, err
    config = json.loads((tmp_path / "r" / "config.json").read_text())["config"]
    assert config["data"]["batch_size"] == 50
    assert config["model"]["latent_dim"] == 3
    assert config["model"]["beta"] == 2
    assert config["model"]["activation"] == "relu"
    assert config["seed"] == 4
    assert config["training"]["learning_rate"] == 0.01


def test_evaluate_prints_one_json_object_and_writes_the_same(call, run):
    status, out, _ = call("evaluate", run, "--samples", 5, "--json")
    assert status == 0
    result = json.loads(out)
    assert result == json.loads((run / "evaluation.json").read_text())
    assert result["protocol"]["importance_samples"] == 5
    assert result["log_likelihood"] > result["elbo"]


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


def test_train_on_other_data_is_named_after_them_and_takes_no_recipe(call, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.integers(0, 256, (60, 6, 6), np.uint8))
    status, _, err = call("train", "--dataset", "npz:mine.npz", "--epochs", 1, "--batch-size", 20)
    assert status == 0, err
    config = json.loads((tmp_path / "saved_models" / "npz_mine_npz" / "config.json").read_text())["config"]
    assert config["model"]["beta"] == 1
    assert config["description"] == ""


def test_grey_pixels_under_a_bernoulli_are_one_line_of_warning(tmp_path):
    result = kvae("train", *SMALL, "--set=data.binarize=none", "--out", tmp_path / "grey")
    assert result.returncode == 0
    assert result.stderr.startswith("kvae: warning: Grey pixels")
    assert result.stderr.count("\n") == 1
    evaluation = json.loads((tmp_path / "grey" / "evaluation.json").read_text())
    assert "cross entropy" in evaluation["protocol"]["warning"]


def test_plot_draws_every_kind(call, run):
    status, out, _ = call("plot", run)
    assert status == 0
    for kind in cli.PLOTS:
        assert f"{kind}.png" in out
        Image.open(run / "plots" / f"{kind}.png").verify()
    assert Image.open(run / "plots" / "lattice.png").size == (560, 560)


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


def test_recipes_lists_every_recipe(call):
    status, out, _ = call("recipes")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["article_2d", "digits_2d", "mnist_2d"]


@pytest.mark.slow
def test_demo_does_the_main_job(tmp_path):
    result = kvae("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    demo = tmp_path / "saved_models" / "demo"
    assert json.loads((demo / "evaluation.json").read_text())["elbo"] > -160  # it ended at -153 where it was made
    assert {path.stem for path in (demo / "plots").iterdir()} == set(cli.PLOTS)
    assert (demo / "samples.png").is_file()


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
        (["evaluate", "nowhere"], "config.json"),
        (["evaluate", "{run}", "--samples", "0"], "--samples"),
        (["evaluate", "{run}", "--dataset", "npz:nowhere.npz"], "nowhere.npz"),
        (["plot", "{run}", "latice"], "Did you mean 'lattice'"),
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
def test_a_users_mistake_ends_in_status_2_and_words(arguments, expected, call, run, tmp_path):
    full(tmp_path / "full")
    status, out, err = call(*[argument.replace("{run}", str(run)) for argument in arguments])
    assert status == 2
    assert expected in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "saved_models").exists()


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
    monkeypatch.setattr(cli, "_sample", lambda *_: 1 / 0)
    status, _, err = call("sample", run)
    assert status == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
