"""The examples in the help of every command can be typed as they are printed."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import click
import pytest

from kvae.cli import shared
from kvae.cli.commands import main
from kvae.training import config

COMMANDS: dict[str, Any] = {"kvae": main, **{f"kvae {name}": command for name, command in main.commands.items()}}
EXAMPLES = [(name, line) for name, command in COMMANDS.items() for line in command.examples]
# Examples that take a second or less in a process that has TensorFlow; `make test-slow` runs all of them.
QUICK = re.compile(r"kvae (recipes|keys|list|compare|pretrained|train --help|sample (?!.*bundle)|plot .* lattice -n)")
SLOWEST = re.compile(r"kvae (demo|train|sweep)")  # CI runs others of the rest


def _marks(line: str) -> Any:
    if QUICK.match(line):
        return []
    return pytest.mark.exhaustive if SLOWEST.match(line) else pytest.mark.slow


MARKED = [pytest.param(line, marks=_marks(line), id=line) for _, line in EXAMPLES]


def parent() -> click.Context:
    """The context in which a command is called. Click remembers the names of the option --help that it has."""
    return click.Context(main, info_name="kvae", **main.context_settings)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_ends_with_examples_of_it(name):
    command = COMMANDS[name]
    with click.Context(command, info_name=name, parent=parent()) as context:
        text = command.get_help(context)
    assert command.examples
    for line in command.examples:
        assert line.startswith(f"{name} ") or line == name
        assert f"  {line}\n" in f"{text}\n"
        assert len(line) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_for(name):
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts


def words_of(line: str) -> list[str]:
    """The words that `kvae` receives, without a redirection."""
    words = shlex.split(line)
    return words[1 : words.index(">")] if ">" in words else words[1:]


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_every_example_has_arguments_that_its_command_takes(name, line, monkeypatch):
    monkeypatch.setattr(shared.user_files, "import_file", lambda path: None)
    words = words_of(line)
    if not words or words[-1] == "--help":
        return
    command = main.commands[words[0]]
    with command.make_context(words[0], words[1:], parent=parent()) as context:
        assert not context.args


@pytest.fixture
def small_recipes(monkeypatch):
    """Every recipe trains a small model on a few images."""
    load = config.load_values

    def small(recipe: str) -> dict[str, Any]:
        values = load(recipe)
        training = {**values["training"], "epochs": 2, "monitor_test": False}
        data = {**values["data"], "train": "train[:100]", "test": "test[:50]"}
        return {**values, "training": training, "data": data, "model": {"latent_dim": 2, "hidden_units": [8]}}

    monkeypatch.setattr(config, "load_values", small)


@pytest.mark.parametrize("line", MARKED)
@pytest.mark.usefixtures("small_recipes", "quick_exports")
def test_every_example_runs(line, call, run, tmp_path):
    demo, _ = (Path(shutil.copytree(run, tmp_path / "saved_models" / name)) for name in ("demo", "again"))
    if "demo/bundle" in line:
        assert call("export", demo, "--no-evaluation")[0] == 0
    words = words_of(line)
    if "--dataset" in words:
        words += ["--set=data.train=train[:100]", "--set=data.test=test[:50]"]
    if words[0] == "sweep" and "--resume" in words:
        assert call("sweep", "--set=model.beta=1,2", *words[2:])[0] == 0
    elif "--resume" in words:
        assert call("train", "--epochs=1", "--out", words[words.index("--out") + 1])[0] == 0
    status, out, err = call(*words)
    assert status == 0, err
    assert out
    if "-o" in words or "--out" in words:
        option = "-o" if "-o" in words else "--out"
        assert (tmp_path / words[words.index(option) + 1]).exists()
