"""What DESIGN promises of the whole: rooms import downwards only, imports are cheap, the README's code runs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "kvae"

# Rooms from the ground up: a room imports rooms of lower levels only (and, within `data/`, its own modules).
LEVELS = {
    0: {"errors", "hooks", "streams"},
    1: {"files", "tensorflow", "portable", "quiet"},
    2: {"cluster", "pictures", "history", "config", "distributions", "noise", "latent", "masks", "compiled"},
    3: {"plots", "runtime", "parts", "networks", "objectives", "data"},
    4: {"likelihoods", "priors", "loop", "footprint"},
    5: {"posteriors", "fast_fit"},
    6: {"assembly"},
    7: {"vae"},
    8: {"evaluation", "quadrature"},
    9: {"inference"},
    10: {"figures"},
    11: {"callbacks", "runs"},
    12: {"training"},
    13: {"export"},
    14: {"cli"},
    15: {"__main__"},
}
LEVEL = {room: level for level, rooms in LEVELS.items() for room in rooms}
FREE_OF_TENSORFLOW = {
    "cluster",
    "errors",
    "hooks",
    "streams",
    "files",
    "pictures",
    "history",
    "config",
    "plots",
    "latent",
    "masks",
    "portable",
    "quiet",
    "runtime",
    "footprint",
    "runs",
    "cli",
}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imported_rooms(path: Path, top_level_only: bool = False) -> set[str]:
    """Rooms of kvae that a module imports, also inside functions, but for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "kvae":
            found |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kvae."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("kvae.")}
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    for other in imported_rooms(path) - {room}:
        assert LEVEL[other] < LEVEL[room], f"{room} (level {LEVEL[room]}) imports {other} (level {LEVEL[other]})"


@pytest.mark.parametrize("room", sorted(LEVEL))
def test_every_room_exists(room):
    assert (PACKAGE / f"{room}.py").is_file() or (PACKAGE / room / "__init__.py").is_file()


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("room", sorted(FREE_OF_TENSORFLOW))
def test_these_rooms_import_neither_tensorflow_nor_keras(room):
    result = python(f"import kvae.{room}, sys; print([m for m in ('tensorflow', 'keras') if m in sys.modules])")
    assert result.stdout.strip() == "[]", result.stderr


def test_importing_kvae_loads_nothing_heavy():
    result = python("import kvae, sys; print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])")
    assert result.stdout.strip() == "[]", result.stderr


def test_another_backend_fails_with_one_clear_line():
    # A stand-in for Keras on another backend, which need not be installed.
    code = """
import sys, types
keras = types.ModuleType("keras")
keras.backend = types.SimpleNamespace(backend=lambda: "jax")
sys.modules["keras"] = keras
import kvae
try:
    kvae.VAE
except ImportError as error:
    print(error)
"""
    result = python(code)
    assert "KERAS_BACKEND=tensorflow" in result.stdout, result.stderr
    assert result.stdout.count("\n") == 1


def test_every_public_room_is_an_attribute():
    import kvae

    for name in kvae.__all__:
        assert getattr(kvae, name) is not None
    with pytest.raises(AttributeError):
        _ = kvae.no_such_room


def test_no_module_imports_tools():
    assert not [path for path in MODULES if re.search(r"^\s*(from|import) tools", path.read_text(), re.M)]


def readme_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.mark.slow  # a process of its own for each
@pytest.mark.parametrize("code", readme_blocks("python"), ids=lambda code: code.strip().splitlines()[0])
def test_the_python_of_the_readme_runs_as_printed(code, tmp_path):
    (tmp_path / "saved_models").symlink_to(ROOT / "saved_models")
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ}, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_readme_names_commands_and_options_that_exist():
    from kvae.cli import main

    for line in re.findall(r"^kvae .*$|(?<=`)kvae [^`]*", (ROOT / "README.md").read_text(), re.M):
        words = line.split("#")[0].split()
        command = main.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words[2:] if word.startswith("-")} <= known, line


def test_files_that_the_readme_shows_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
        assert (ROOT / target).exists(), target


def test_pinned_versions_satisfy_the_ranges_of_setup():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    )
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    requirements = re.findall(r'^\s+"([a-z][\w-]*[><=][^"]*)"', (ROOT / "setup.py").read_text(), re.M)
    assert len(requirements) > 10
    for text in requirements:
        requirement = Requirement(text)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text
