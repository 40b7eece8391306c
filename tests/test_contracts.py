"""What DESIGN promises of the whole: folders import downwards only, and imports are cheap."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "kvae"

# Folders from the ground up: a folder imports those before it only.
FOLDERS = (
    "internal",
    "noise",
    "runtime",
    "data",
    "model",
    "evaluation",
    "completion",
    "plotting",
    "training",
    "export",
    "cli",
)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
# Modules that a process without TensorFlow may import: the folders that run on a device, and what the command line
# needs before it knows that a command is right.
FREE_OF_TENSORFLOW = [
    path
    for path in MODULES
    if path.relative_to(PACKAGE).parts[0] in ("internal", "runtime", "cli")
    or path.relative_to(PACKAGE).as_posix()
    in (
        "noise/__init__.py",
        "noise/portable.py",
        "noise/streams.py",
        "plotting/comparison.py",
        "plotting/rate_distortion.py",
        *(f"plotting/{name}.py" for name in ("drawing", "canvas", "colours", "words")),
        *(f"plotting/{name}.py" for name in ("sheets", "latent_plane", "contours", "curves")),
        "training/__init__.py",
        "training/comparison.py",
        "training/distribution.py",
        "training/config.py",
        "training/history.py",
        "training/run_list.py",
        "training/runs.py",
    )
]


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_folders(path: Path) -> set[str]:
    """Folders of kvae that a module imports, also inside functions, but for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "kvae":
            found |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kvae."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("kvae.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_folder_imports_only_those_before_it(path):
    folder = path.relative_to(PACKAGE).parts[0]
    wrong = {other for other in imported_folders(path) if FOLDERS.index(other) > FOLDERS.index(folder)}
    assert not wrong, f"{folder} imports {', '.join(wrong)}"


def test_the_folders_are_those_of_the_package():
    assert set(FOLDERS) == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")], ids=str)
def test_no_file_has_more_than_500_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_some_modules_import_neither_tensorflow_nor_keras():
    """All of them in one process: the first that imports either is named."""
    names = [name_of(path) for path in FREE_OF_TENSORFLOW if name_of(path) != "kvae.internal.tensorflow"]
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
    found = [heavy for heavy in ("tensorflow", "keras") if heavy in sys.modules]
    assert not found, f"{{name}} imports {{found}}"
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.exhaustive
def test_every_module_may_be_the_first_that_is_imported():
    """Each in a process of its own, which begins with TensorFlow and Keras, but without kvae."""
    code = f"""
import importlib, os, sys, traceback
import keras, tensorflow
for name in {[name_of(path) for path in MODULES]!r}:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            print(name)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(child, 0)
"""
    result = python(code)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


def test_importing_kvae_loads_nothing_heavy():
    result = python("import kvae, sys; print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])")
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.slow
def test_another_backend_fails_with_one_clear_line():
    # A stand-in for Keras on another backend, which need not be installed.
    code = """
import sys, types
keras = types.ModuleType("keras")
keras.backend = types.SimpleNamespace(backend=lambda: "jax")
keras.saving = types.SimpleNamespace(get_custom_objects=dict)
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


def test_every_public_name_is_an_attribute():
    import kvae

    for name in kvae.__all__:
        assert getattr(kvae, name) is not None
    with pytest.raises(AttributeError):
        _ = kvae.no_such_name


def test_no_module_imports_tools():
    assert not [path for path in MODULES if re.search(r"^\s*(from|import) tools", path.read_text(), re.M)]


def test_the_version_is_stated_once_and_for_all():
    import kvae

    assert f'version="{kvae.__version__}"' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f"version: {kvae.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {kvae.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


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
