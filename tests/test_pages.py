"""The pages of the documentation: their links lead somewhere, and their code and commands are those of kvae."""

import os
import re
import shlex
import subprocess
import sys

import click
import pytest
from pages import PAGES, ROOT, anchors, blocks, commands, links, name_of, prose

from kvae.cli import shared
from kvae.cli.commands import main

HISTORY = ROOT / "CHANGELOG.md"  # which names commands of earlier versions too
COMMANDS = [(page, line) for page in PAGES for code in blocks(page, "sh", "bash") for line in commands(code)]
# The pages whose Python runs here, block by block; test_extending.py and test_keras_page.py run that of two more.
RUN_HERE = ["README.md", *(f"docs/{name}.md" for name in ("COMPLETION", "DEVICES", "INSTALL", "MODELS", "PICTURES"))]
RUN_ELSEWHERE = ["docs/EXTENDING.md", "docs/KERAS.md"]
PYTHON = [(page, code) for page in PAGES for code in blocks(page, "python")]
# Runs each block as printed, as if it were alone.
EACH = """
import runpy, sys
for path in sys.argv[1:]:
    print(path, file=sys.stderr)
    runpy.run_path(path, run_name="__main__")
"""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_place_in_it(page):
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        if anchor:
            assert anchor in anchors(target), f"{file}#{anchor}"


def test_no_page_of_docs_is_out_of_reach():
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        targets = {(page.parent / file).resolve() for page in new for file, _ in links(page) if file.endswith(".md")}
        new = targets - reached
    assert not {name_of(page) for page in PAGES if page.parent == ROOT / "docs"} - {name_of(page) for page in reached}


def kvae_command(words: list[str]) -> click.Command | None:
    """The command of a line such as `kvae train ...`, or None if it stands for any: `kvae COMMAND --help`."""
    if len(words) < 2 or words[1].startswith("-") or words[1].isupper():
        return None
    assert words[1] in main.commands, words
    return main.commands[words[1]]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{name_of(page)}: {line}" for page, line in COMMANDS])
def test_every_command_of_a_block_can_be_typed(page, line, monkeypatch):
    monkeypatch.setattr(shared.user_files, "import_file", lambda path: None)
    words = shlex.split(line, comments=True)
    if words[0] == "kvae" and words[-1] != "--help":
        command = kvae_command(words)
        arguments = words[2 : words.index(">")] if ">" in words else words[2:]
        with command.make_context(words[1], arguments, parent=click.Context(main, **main.context_settings)) as context:
            assert not context.args
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    elif words[0] == "python" and words[1].startswith("tools/"):
        source = (ROOT / words[1]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in source for word in words[2:] if word.startswith("--"))


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY], ids=name_of)
def test_commands_and_options_within_a_sentence_exist(page):
    for line in re.findall(r"(?<=`)kvae [^`]*", prose(page)):
        words = line.split()
        command = kvae_command(words)
        if command is not None:
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert {word for word in words[2:] if word.startswith("-")} <= known, line


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{name_of(page)}: {code[:60]}" for page, code in PYTHON])
def test_python_is_complete(page, code):
    compile(code, name_of(page), "exec")


def test_the_python_of_every_page_is_run():
    assert sorted({name_of(page) for page, _ in PYTHON}) == sorted(RUN_HERE + RUN_ELSEWHERE)


@pytest.mark.every_case
@pytest.mark.slow  # a process of its own for each
@pytest.mark.parametrize("name", RUN_HERE)
def test_the_python_of_a_page_runs_as_printed(name, tmp_path):
    (tmp_path / "saved_models").symlink_to(ROOT / "saved_models")
    files = []
    for number, code in enumerate(code for page, code in PYTHON if name_of(page) == name):
        files.append(f"block_{number}.py")
        (tmp_path / files[-1]).write_text(code, encoding="utf-8")
    command = [sys.executable, "-c", EACH, *files]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}, check=False)
    assert result.returncode == 0, result.stderr
