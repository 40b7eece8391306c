"""A machine without TensorFlow: fresh environments that draw the pictures of this one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kvae
from kvae import export

ROOT = Path(__file__).parents[2]
UNREACHABLE = ("No matching distribution", "Connection", "connection", "timed out", "Temporary failure", "resolve")


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=300
    )


def install(python: Path, *what: object, cwd: Path) -> None:
    """pip install, with the tested versions; skips the test where the registry is out of reach."""
    result = call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what, cwd=cwd)
    if result.returncode != 0 and any(words in result.stderr for words in UNREACHABLE):
        pytest.skip(f"pip cannot reach its registry: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.slow
def test_a_bundle_draws_the_same_pictures_where_there_is_no_tensorflow(tmp_path):
    vae = kvae.VAE(2, hidden_units=(8,), seed=0)
    vae.build((None, 6, 5, 1))
    export.bundle(vae, tmp_path / "bundle", formats=["tflite"])
    for arguments in (
        (sys.executable, "bundle/sample.py", "-n", 8, "--seed", 1, "-o", "here_alone.png"),
        (sys.executable, "-m", "kvae", "sample", "bundle", "-n", 8, "--seed", 1, "-o", "here.png"),
    ):
        result = call(*arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr

    assert call(sys.executable, "-m", "venv", "env", cwd=tmp_path).returncode == 0
    python = tmp_path / "env" / "bin" / "python"
    tested = ("--constraint", ROOT / "constraints.txt")
    install(python, *tested, "numpy", "pillow", "ai-edge-litert", cwd=tmp_path)
    result = call(python, "bundle/sample.py", "-n", 8, "--seed", 1, "-o", "there_alone.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(picture(tmp_path / "there_alone.png"), picture(tmp_path / "here_alone.png"))

    # From a copy, so that setuptools leaves nothing in the repository.
    source = tmp_path / "source"
    shutil.copytree(ROOT / "kvae", source / "kvae", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "README.md", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install(python, *tested, "click", "psutil", "wrapt", cwd=tmp_path)
    install(python, "--no-deps", source, cwd=tmp_path)
    result = call(python.with_name("kvae"), "sample", "bundle", "-n", 8, "--seed", 1, "-o", "there.png", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    np.testing.assert_array_equal(picture(tmp_path / "there.png"), picture(tmp_path / "here.png"))

    code = (
        "import importlib.util, kvae.runtime as r; "
        "assert importlib.util.find_spec('tensorflow') is None and importlib.util.find_spec('keras') is None; "
        "d = r.load('bundle', 'int8'); print(d.sample(r.seeds(8, seed=1)).images.shape, 'site-packages' in r.__file__)"
    )
    result = call(python, "-c", code, cwd=tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, "(8, 6, 5, 1) True"), result.stderr
    listed = call(python, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path).stdout.lower()
    assert "tensorflow" not in listed
    assert "keras" not in listed
