"""The files and commands of docs/EXTENDING.md: every part is used from Python and on the command line."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kvae.internal import sealed

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "EXTENDING.md").read_text(encoding="utf-8")
KINDS = ("likelihood", "prior", "posterior", "objective", "network", "data format", "export format")
# What makes the commands quick: few images, one epoch, and one small decoder.
QUICK = ("--epochs", "1", "--set", "training.jit_compile=false")
FEW = ("--set", "data.train=train[:400]", "--set", "data.test=test[:100]")
# The commands of these kinds run in a process each, as those of users. For the others one process runs all commands
# of a kind, because most of the time of a command is the import of TensorFlow.
APART = ("prior", "export format")
END = "end of a command\n"
ONE_PROCESS = f"""
import json, sys
import kvae.cli
for number, arguments in enumerate(json.loads(sys.argv[1])):
    print({END!r} if number else "", end="")
    sys.argv = ["kvae", *arguments]
    try:
        kvae.cli.run()
    except SystemExit as stop:
        if stop.code:
            raise
"""


def section(kind: str) -> str:
    """The section of the page about a kind of part."""
    found = re.search(rf"^## An? {kind}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    assert found, kind
    return found[1]


def blocks(kind: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(kind), re.M | re.S)


@pytest.fixture
def folder(request, tmp_path) -> Path:
    """A folder with the file of a kind, and with images for the data format."""
    kind = request.node.callspec.params["kind"]
    name = re.search(r"^`(\w+\.py)`$", section(kind), re.M)[1]
    (tmp_path / name).write_text(blocks(kind, "python")[0], encoding="utf-8")
    images = np.random.default_rng(0).integers(0, 256, (200, 12, 10), np.uint8)
    np.save(tmp_path / "images.npy", images)
    return tmp_path


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def quick(command: list[str], kind: str) -> list[str]:
    """A command of the page, with what makes it quick."""
    if command[1] == "train":
        return [*command, *QUICK, *(() if kind == "data format" else FEW)]
    if command[1] == "export" and "--formats" not in command:
        return [*command, "--formats", "tflite", "--variants", "float32"]
    return command


def test_the_page_has_a_section_for_every_kind():
    assert re.findall(r"^## An? (.*)$", TEXT, re.M) == [*KINDS, "evaluation"]


@pytest.mark.slow  # a process of its own for each
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_used_from_python(kind, folder):
    run(folder, sys.executable, "-c", blocks(kind, "python")[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_used_on_the_command_line(kind, folder):
    (commands,) = blocks(kind, "bash")
    shown = [shlex.split(line) for line in commands.splitlines()]
    names = [command[1] for command in shown]
    assert [name for name in names if name != "sample"] == ["train", "evaluate", "export", "verify"]
    assert {command[0] for command in shown} == {"kvae"}
    arguments = [quick(command, kind)[1:] for command in shown]
    if kind in APART:
        outputs = [run(folder, sys.executable, "-m", "kvae", *given) for given in arguments]
    else:
        outputs = run(folder, sys.executable, "-c", ONE_PROCESS, json.dumps(arguments)).split(END)
    assert "all claims hold" in outputs[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prior"])
def test_a_run_with_a_part_of_ones_own_imports_nothing_by_itself(kind, folder):
    (commands,) = blocks(kind, "bash")
    train = quick(shlex.split(commands.splitlines()[0]), kind)
    run(folder, sys.executable, "-m", "kvae", *train[1:])
    result = subprocess.run(
        [sys.executable, "-m", "kvae", "train", "--resume", "--out", "mixture"],
        capture_output=True, text=True, cwd=folder, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "Add --import my_prior.py" in result.stderr


EVALUATION = '''
import numpy as np
import kvae
from kvae.evaluation.estimate import batches

def pixels(vae, data, *, seed=0):
    """The number of pixels that are on, which is no nats, but shows how an evaluation comes about."""
    return kvae.evaluation.Estimate(np.concatenate([np.sum(x, axis=(1, 2, 3)) for x, _, _ in batches(vae, data)]))
'''


@pytest.mark.slow
def test_an_evaluation_of_ones_own_is_kept_and_derived_again(tmp_path):
    (tmp_path / "mine.py").write_text(EVALUATION)
    kvae = (sys.executable, "-m", "kvae")
    run(tmp_path, *kvae, "train", *QUICK, *FEW, "--set", "model.hidden_units=[8]", "--out", "r")
    shown = run(tmp_path, *kvae, "evaluate", "r", "--import", "mine.py", "--only", "elbo,mine:pixels")
    assert "pixels" in shown
    stated = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert stated["protocol"]["evaluations"] == ["elbo", "mine:pixels"]
    assert 50 < stated["pixels"] < 200
    assert "ok   evaluation.json: pixels" in run(tmp_path, *kvae, "verify", "r", "--import", "mine.py")
    stated["pixels"] += 1
    sealed.write(tmp_path / "r" / "evaluation.json", stated)
    result = subprocess.run(
        [*kvae, "verify", "r", "--import", "mine.py"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 1
    assert "FAIL evaluation.json: pixels" in result.stdout
