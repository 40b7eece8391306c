"""The README as its readers meet it: they type its commands one after the other, or see it on a package page."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import setuptools
from markdown_it import MarkdownIt
from pages import ROOT, blocks, commands
from PIL import Image

README = ROOT / "README.md"
# The programs that the README calls, where they are not as a reader has them.
PROGRAMS = {
    "python": '"$PYTHON" "$@"',
    "kvae": '"$PYTHON" -P -m kvae "$@"',
    # What `make demo` does after the installation. CI has run all of it, and this file has what it printed.
    "make": f"""[ "$*" = demo ]
if [ -n "${{KVAE_MADE_DEMO:-}}" ]; then
  cp -r {shlex.quote(str(ROOT / "saved_models" / "demo"))} saved_models/demo
  cat "$KVAE_MADE_DEMO"
else
  kvae demo
fi""",
    "pip": '"$PYTHON" -m pip show --quiet "${@:2}"',  # what would be installed is there
    "tensorboard": '"$PYTHON" -m tensorboard.main --inspect "$@"',  # which reads the same logs and ends
}
PICTURES = [
    "saved_models/demo/plots/map.png",
    "saved_models/shapes/plots/reconstructions.png",
    "samples.png",
    "comparison/elbo_curves.png",
    "saved_models/betas/rate_distortion.png",
    "means.png",
    "same.png",
]


class Reader:
    """Types commands in a folder that looks like a clone."""

    def __init__(self, folder: Path):
        self.folder, self.seen = folder, {}
        (folder / "tools").symlink_to(ROOT / "tools")
        shutil.copytree(ROOT / "saved_models" / "mnist_2d", folder / "saved_models" / "mnist_2d")
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "activate").touch()
        for name, body in PROGRAMS.items():
            (programs / name).write_text(f"#!/usr/bin/env bash\nset -e\n{body}\n", encoding="utf-8")
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
        }

    def types(self, line: str) -> str:
        """What a command prints, which must end well."""
        result = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, cwd=self.folder, env=self.environment, check=False
        )
        assert result.returncode == 0, f"$ {line}\n{result.stdout}\n{result.stderr}"
        self.seen[" ".join(shlex.split(line, comments=True))] = result.stdout
        return result.stdout

    def saw(self, command: str) -> str:
        """What the command that begins so has printed."""
        (found,) = (output for line, output in self.seen.items() if line.startswith(command))
        return found


def next_commands(output: str) -> list[str]:
    """The commands that kvae names at the end: one per line, after a line that begins with "Next"."""
    after = re.split(r"^Next.*$", output, flags=re.M)[-1] if re.search(r"^Next", output, re.M) else ""
    return re.findall(r"^  (\S.*)$", after, re.M)


@pytest.mark.slow  # four to five minutes of one core, half of them for the demo and what it names at its end
def test_the_commands_of_the_readme_work_one_after_the_other(tmp_path):
    reader = Reader(tmp_path)
    for code in blocks(README, "sh"):
        for line in commands(code):
            output = reader.types(line)
            if line.startswith("make demo"):
                following = next_commands(output)
                assert following, output
                for command in following:
                    reader.types(command)

    for picture in PICTURES:
        assert (tmp_path / picture).stat().st_size > 1000, picture
    with Image.open(tmp_path / "means.png") as means, Image.open(tmp_path / "same.png") as same:
        np.testing.assert_array_equal(np.asarray(same), np.asarray(means))
    rows = (tmp_path / "z.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 120  # a tenth of 1,200 pictures
    training = reader.saw("kvae train --recipe digits_2d --beta 1")
    assert re.search(r"[Ss]topped after \d+ of 60 epochs", training), training
    assert "num_steps" in reader.saw("tensorboard")
    compared = reader.saw("kvae compare saved_models/demo saved_models/beta_1")
    assert "demo" in compared
    assert "beta_1" in compared


def test_next_commands_are_found_in_what_is_printed():
    printed = "3. Plotting\n  a.png\nDone in 5 s.\nNext, draw digits:\n  kvae sample r\n  .venv/bin/kvae compare r s\n"
    assert next_commands(printed) == ["kvae sample r", ".venv/bin/kvae compare r s"]
    assert next_commands("Done.\n  a.png\n") == []


def package_page(monkeypatch, address: str) -> str:
    """The long description that setup.py gives to a package, if it is built with an address."""
    given: dict = {}
    monkeypatch.setattr(setuptools, "setup", lambda **metadata: given.update(metadata))
    monkeypatch.setenv("KVAE_ADDRESS", address)
    runpy.run_path(str(ROOT / "setup.py"))
    assert given["long_description_content_type"] == "text/markdown"
    return given["long_description"]


def targets(page: str) -> tuple[set[str], set[str]]:
    """Where the links and the pictures of a page lead, as a parser of Markdown and HTML sees it."""
    html = MarkdownIt("commonmark").enable("table").render(page)
    return set(re.findall(r'href="([^"]*)"', html)), set(re.findall(r'src="([^"]*)"', html))


def test_links_of_the_package_page_are_absolute(monkeypatch):
    links, pictures = targets(package_page(monkeypatch, "https://example.org/kvae/blob/v1/"))
    assert "https://example.org/kvae/blob/v1/docs/DATA.md" in links
    assert "https://example.org/kvae/blob/v1/README.md#the-first-minute" in links
    pages = ("docs/pictures/web_page_completion.png", "docs/pictures/web_page_phone.png")
    files = ("saved_models/mnist_2d/plots/map.png", *pages)
    assert pictures == {f"https://example.org/kvae/raw/v1/{path}" for path in files}
    assert all((ROOT / path).is_file() for path in files)
    shown = {re.sub(r"#.*", "", link) for link in links}
    assert all((ROOT / link.removeprefix("https://example.org/kvae/blob/v1/")).is_file() for link in shown)


def test_without_an_address_the_package_page_has_no_dead_links(monkeypatch):
    page = package_page(monkeypatch, "")
    links, pictures = targets(page)
    assert not {link for link in links if not link.startswith("https://")}
    assert not pictures
    assert "What you will see" not in page  # the caption of a picture that is not there
    assert "docs/NUMBERS.md has our numbers" in page
    assert [
        code
        for code in re.findall(r"^```.*?^```$", README.read_text(encoding="utf-8"), re.M | re.S)
        if code not in page
    ] == []
