"""Where a package of kvae is not installed, one line says so and names what to install."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import kvae
from kvae.cli.commands import main
from kvae.internal import missing_packages
from kvae.internal.errors import UserError
from kvae.internal.missing_packages import RUNTIME, TENSORFLOW, TRAINING, MissingPackageError, explained

ROOT = Path(__file__).parents[2]
WITHOUT_TENSORFLOW = {"sample", "pretrained"}  # the commands that the runtime alone can run
LINE = re.compile(
    r"kvae: kvae (\w+) needs the full installation of kvae: the package [\w-]+ is missing\. Run pip install \. in a "
    r"clone of kvae, or pip install with the path of its wheel, without --no-deps\. kvae sample, kvae pretrained and "
    r"kvae\.load work without it\.\n"
)
# Runs commands, and uses public names, in one process in which packages cannot be found.
PROCESS = """
import contextlib, importlib.abc, io, json, sys

missing, commands, names = json.loads(sys.argv[1])

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import kvae
from kvae import cli

results = []
for words in commands:
    sys.argv = ["kvae", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.run()
        except SystemExit as stop:
            status = stop.code or 0
    results.append([status, out.getvalue(), err.getvalue()])
for name in names:
    try:
        getattr(kvae, name)
        results.append("")
    except ImportError as error:
        assert error.__suppress_context__  # one line of the traceback is enough
        results.append(f"{type(error).__name__}: {error}")
print(json.dumps(results))
"""


def without(missing, folder, commands=(), names=()):
    """What commands and names of kvae give in a process without some packages."""
    arguments = json.dumps([sorted(missing), list(commands), list(names)])
    result = subprocess.run(
        [sys.executable, "-c", PROCESS, arguments], capture_output=True, text=True, cwd=folder, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def least_words(name: str) -> list[str]:
    """A command with values for what it requires."""
    words = [name]
    for parameter in main.commands[name].params:
        if parameter.required:
            words += ["x"] if isinstance(parameter, click.Argument) else [parameter.opts[0], "x.npz"]
    return words


def test_each_command_says_what_it_needs_and_shows_its_help_without_it(tmp_path):
    needing = sorted(main.commands.keys() - WITHOUT_TENSORFLOW)
    commands = [*map(least_words, needing), *([name, "--help"] for name in main.commands)]
    results = without(TRAINING | TENSORFLOW, tmp_path, commands)
    for name, (status, out, err) in zip(needing, results, strict=False):
        assert (status, out) == (2, ""), name
        assert LINE.fullmatch(err), err
        assert LINE.fullmatch(err)[1] == name
    for status, out, err in results[len(needing) :]:
        assert (status, err) == (0, "")
        assert "Examples" in out
    assert not list(tmp_path.iterdir())


def test_images_are_drawn_without_tensorflow(tmp_path):
    commands = [["sample", "mnist_2d", "-n", "2"], ["pretrained"], ["--version"]]
    sampled, listed, version = without(TRAINING | TENSORFLOW, tmp_path, commands)
    assert sampled == [0, "samples.png\n", ""]
    assert (tmp_path / "samples.png").is_file()
    assert (listed[0], version[0]) == (0, 0)
    assert "mnist_2d" in listed[1]


def test_a_run_without_a_bundle_says_that_one_made_elsewhere_would_do(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "model.keras"):
        (tmp_path / "run" / name).touch()
    ((status, _, err),) = without(TRAINING | TENSORFLOW, tmp_path, [["sample", "run"]])
    assert (status, err.count("\n")) == (2, 1)
    assert "run kvae export run; a bundle is opened without it" in err


def test_public_names_say_what_they_need(tmp_path):
    results = without(TRAINING | TENSORFLOW, tmp_path, names=kvae.__all__)
    said = dict(zip(kvae.__all__, results, strict=True))
    assert {name for name, text in said.items() if text == ""} >= {"load", "runtime", "noise", "UserError"}
    for name in ("VAE", "priors", "data", "evaluation", "completion", "export"):
        assert said[name].startswith("MissingPackageError: This needs the full installation of kvae: the package keras")


@pytest.mark.parametrize("package", ["click", "ai_edge_litert", "PIL", "numpy"])
def test_a_package_of_the_runtime_is_named(package, tmp_path):
    ((status, _, err),) = without({package}, tmp_path, [["sample", "mnist_2d"]])
    assert status == 2
    assert err.count("\n") == 1
    assert f"pip install {RUNTIME[package]}" in err


def test_the_newest_python_is_told_which_pythons_have_tensorflow(monkeypatch):
    version = type("version", (tuple,), {"major": 3, "minor": 14})((3, 14, 0))
    monkeypatch.setattr(missing_packages.sys, "version_info", version)
    said = str(explained(ModuleNotFoundError("No module named 'keras'", name="keras")))
    assert said.startswith("This needs TensorFlow and Keras, which have no release for Python 3.14. Install kvae under")
    assert "pip install . in a clone" in str(explained(ModuleNotFoundError("No module named 'rich'", name="rich")))


@pytest.mark.parametrize("name", ["tensorflow.python.nothing", "my_parts", None])
def test_other_missing_modules_stay_as_they_are(name):
    error = ModuleNotFoundError("No module", name=name)
    assert explained(error) is error


def test_a_missing_package_is_a_mistake_of_the_user_and_an_import_error():
    assert issubclass(MissingPackageError, UserError)
    assert issubclass(MissingPackageError, ImportError)


def test_every_requirement_is_known_and_those_of_tensorflow_are_those_with_a_marker():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    listed = text[text.index("install_requires") : text.index("extras_require")]
    required = set(re.findall(r'^\s+f?"([\w-]+)[><=]', listed, re.M))
    marked = set(re.findall(r'^\s+f"([\w-]+)[><=].*\{WITH_TENSORFLOW\}', listed, re.M))
    assert required == {*RUNTIME.values(), *TRAINING.values(), *TENSORFLOW.values()}
    assert marked == set(TENSORFLOW.values())
