"""A command that a message names begins as the command that runs now."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from kvae.internal.next_command import kvae_command


@pytest.fixture
def started(monkeypatch, tmp_path):
    """A process that was started by these words, in a folder with a virtual environment that is not activated."""
    for name in (".venv/bin/kvae", "my tools/kvae", "kvae"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.defpath)

    def started(*words: str, script: str) -> None:
        monkeypatch.setattr(sys, "orig_argv", list(words))
        monkeypatch.setattr(sys, "argv", [script, *words[words.index("train") :]])

    return started


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (".venv/bin/kvae", ".venv/bin/kvae"),
        ("{here}/.venv/bin/kvae", ".venv/bin/kvae"),
        ("my tools/kvae", "'my tools/kvae'"),
        ("./kvae", "./kvae"),
        ("../{name}/.venv/bin/kvae", "../{name}/.venv/bin/kvae"),
    ],
)
def test_a_script_that_is_not_on_the_path_is_called_by_its_place(started, tmp_path, script, expected):
    names = {"here": tmp_path, "name": tmp_path.name}
    script = script.format(**names)
    started("python", script, "train", "--seed", "1", script=script)
    line = kvae_command("plot", Path("my run"), "-n", 3)
    assert line == f"{expected.format(**names)} plot 'my run' -n 3"
    assert os.access(shlex.split(line)[0], os.X_OK)


def test_a_script_on_the_path_is_called_by_its_name(started, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / ".venv" / "bin"))
    script = str(tmp_path / ".venv" / "bin" / "kvae")
    started("python", script, "train", script=script)
    assert kvae_command("plot", "run") == "kvae plot run"
    started("python", "./kvae", "train", script="./kvae")
    assert kvae_command("plot", "run") == "./kvae plot run"


def test_a_module_is_called_with_the_python_that_runs_it(started):
    started("../p/python", "-P", "-m", "kvae", "train", "--debug", script="/site-packages/kvae/__main__.py")
    assert kvae_command("list") == "../p/python -P -m kvae list"


@pytest.mark.parametrize("script", ["notebook.py", "-c", "", "pytest/__main__.py"])
def test_another_program_names_kvae(started, script):
    started("python", script, "train", script=script)
    assert kvae_command("list") == "kvae list"
