"""What a shell completes: click is asked as a shell asks it, and TensorFlow is not imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from kvae import cli
from kvae.cli.commands import main
from kvae.data.binarization import KINDS as BINARIZATIONS
from kvae.data.sources import READERS
from kvae.model.likelihoods import LIKELIHOODS
from kvae.model.networks import NETWORKS
from kvae.plotting import figures
from kvae.runtime import pretrained
from kvae.training import build, config, keys


def completed(*words: str) -> list[str]:
    """What click completes for these words, the last of which is unfinished."""
    shell = ShellComplete(main, {}, "kvae", "_KVAE_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with two runs in `saved_models`, one in `mine`, and a folder that is no run."""
    for name in ("saved_models/first", "saved_models/second", "mine/third"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    (tmp_path / "saved_models" / "other").mkdir()
    monkeypatch.chdir(tmp_path)


def test_commands_are_completed():
    assert completed("") == sorted(main.commands)
    assert completed("eva") == ["evaluate"]


@pytest.mark.parametrize("words", [("recipes", "mnist"), ("train", "--recipe", "mnist")])
def test_recipes_are_completed(words):
    assert completed(*words) == ["mnist_10d", "mnist_2d", "mnist_conditional"]


@pytest.mark.parametrize("command", ["evaluate", "plot", "complete", "export", "sample", "verify"])
@pytest.mark.usefixtures("runs")
def test_runs_are_completed(command):
    names = list(pretrained.NAMES) if command in ("sample", "verify") else []
    assert completed(command, "") == ["saved_models/first", "saved_models/second", *names]
    assert completed(command, "saved_models/f") == ["saved_models/first"]
    assert completed(command, "mine/") == ["mine/third"]


@pytest.mark.parametrize("command", ["sample", "verify"])
def test_pretrained_models_are_completed(command):
    assert completed(command, "mn") == ["mnist_2d", "mnist_10d"]


@pytest.mark.usefixtures("runs")
def test_files_are_completed_where_there_is_no_run(tmp_path):
    shell = ShellComplete(main, {}, "kvae", "_KVAE_COMPLETE")
    assert [(item.type, item.value) for item in shell.get_completions(["sample"], "dec")] == [("file", "dec")]


def test_kinds_of_plots_are_completed_and_are_those_that_there_are():
    assert completed("plot", "run", "l") == ["latent_scatter", "lattice", "learning_curves"]
    assert completed("plot", "run", "lattice", "samp") == ["samples"]
    assert set(completed("plot", "run", "")) == set(figures.KINDS)


def test_keys_are_completed_with_their_defaults_and_values_with_their_choices():
    assert completed("train", "--set", "training.ep") == ["training.epochs=10"]
    assert completed("train", "--set", "model.hid") == ["model.hidden_units="]
    assert completed("train", "--set", "data.binarize=st") == ["data.binarize=stochastic"]
    assert {text.partition("=")[0] for text in completed("train", "--set", "")} == set(config.keys())


def test_options_of_parts_are_completed_and_are_those_that_there_are():
    for part in ("network", "likelihood", "prior", "posterior", "objective"):
        options = {key.name for key in keys.of_parts() if key.section == f"model.{part}"}
        expected = {f"model.{part}.kind", *options}
        assert {text.rstrip("=") for text in completed("train", "--set", f"model.{part}.")} == expected
        assert set(completed("keys", f"model.{part}.")) == expected - {f"model.{part}.kind"}
    assert completed("train", "--set", "model.likelihood.st") == ["model.likelihood.start="]


@pytest.mark.parametrize("part", build.TABLES)
def test_kinds_of_parts_are_completed_and_are_those_that_there_are(part):
    for key in (f"model.{part}", f"model.{part}.kind"):
        assert completed("train", "--set", f"{key}=") == [f"{key}={kind}" for kind in build.TABLES[part][0]]


def test_sections_and_keys_are_completed():
    assert completed("keys", "trai")[:2] == ["training", "training.epochs"]


@pytest.mark.parametrize(
    ("option", "names"),
    [("--network", NETWORKS), ("--likelihood", LIKELIHOODS), ("--binarize", BINARIZATIONS)],
)
def test_the_values_of_options_are_completed_and_are_those_that_there_are(option, names):
    assert completed("train", option, "") == list(names)


def test_datasets_are_completed():
    assert completed("train", "--dataset", "im") == ["images:"]
    assert {f"{name}:" for name in READERS} <= set(completed("evaluate", "run", "--dataset", ""))


def asked(request: str, words: str = "", index: int = 1) -> subprocess.CompletedProcess:
    """What `kvae` answers to a shell."""
    environment = {**os.environ, "_KVAE_COMPLETE": request, "COMP_WORDS": words, "COMP_CWORD": str(index)}
    return subprocess.run([sys.executable, "-m", "kvae"], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_lines_that_the_documentation_names_are_printed(shell):
    page = (Path(cli.__file__).parents[2] / "docs" / "COMMANDS.md").read_text(encoding="utf-8")
    assert f"_KVAE_COMPLETE={shell}_source kvae" in page
    result = asked(f"{shell}_source")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"_KVAE_COMPLETE={shell}_complete" in result.stdout


def test_a_shell_is_answered_without_tensorflow(tmp_path, monkeypatch):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    for words, expected in (("kvae plot run latt", "lattice"), ("kvae train --set training.ep", "training.epochs=10")):
        result = asked("bash_complete", words, index=3)
        assert (result.stdout, result.stderr) == (f"plain,{expected}\n", "")
