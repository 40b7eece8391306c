"""A machine without TensorFlow: a fresh environment with the wheel of kvae, which draws the same pictures."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

import kvae
from kvae import export
from kvae.internal.missing_packages import RUNTIME, TENSORFLOW
from kvae.runtime import pretrained

ROOT = Path(__file__).parents[2]
SAVED_MODELS = ROOT / "saved_models"
UNREACHABLE = ("No matching distribution", "Connection", "connection", "timed out", "Temporary failure", "resolve")
LARGEST = 12e6  # bytes of the wheel
TESTED = ("--constraint", ROOT / "constraints.txt")
pytestmark = pytest.mark.slow


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=300
    )


def checked(*command: object, cwd: Path) -> str:
    """What a command that succeeds prints."""
    result = call(*command, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def pip(python: Path, *what: object, cwd: Path) -> None:
    """Runs pip for an environment that has none; skips the test where the registry is out of reach."""
    result = call(
        sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check", *what, cwd=cwd
    )
    if result.returncode != 0 and any(words in result.stderr for words in UNREACHABLE):
        pytest.skip(f"pip cannot reach its registry: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment with the four packages that kvae needs without TensorFlow, and with setuptools."""
    folder = tmp_path_factory.mktemp("environment")
    checked(sys.executable, "-m", "venv", "--without-pip", "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    pip(python, "install", *TESTED, *RUNTIME.values(), "setuptools>=77", cwd=folder)
    return python


@pytest.fixture(scope="module")
def wheel(python, tmp_path_factory) -> Path:
    """The wheel that is built from the source distribution of this clone."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"  # a copy, so that setuptools leaves nothing in the repository
    for name in ("kvae", "saved_models"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.keras", "plots"))
    for name in ("setup.py", "README.md", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    checked(python, "-c", "from setuptools import build_meta; build_meta.build_sdist('..')", cwd=source)
    (archive,) = folder.glob("kvae-*.tar.gz")
    with tarfile.open(archive) as file:
        names = file.getnames()
        file.extractall(folder / "unpacked", filter="data")
    assert not [name for name in names if name.endswith((".keras", "plots", "decoder_float16.tflite"))]
    unpacked = folder / "unpacked" / archive.name.removesuffix(".tar.gz")
    checked(python, "-c", "from setuptools import build_meta; build_meta.build_wheel('../..')", cwd=unpacked)
    (wheel,) = folder.glob("kvae-*.whl")
    return wheel


@pytest.fixture(scope="module")
def command(python, wheel) -> Path:
    """The command `kvae` of the environment, with the wheel installed."""
    pip(python, "install", "--no-deps", wheel, cwd=wheel.parent)
    return python.with_name("kvae")


def test_the_wheel_is_small_and_has_the_pretrained_models(wheel):
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as file:
        for name in pretrained.NAMES:
            for each in ("decoder.tflite", "decoder_int8.tflite", "model_card.json"):
                content = file.read(f"kvae/pretrained/{name}/{each}")
                assert content == (SAVED_MODELS / name / "bundle" / each).read_bytes()
        assert b"CC BY-SA 3.0" in file.read("kvae/pretrained/README.md")  # the licence of the data


def test_the_wheel_asks_for_tensorflow_only_where_there_is_one(wheel):
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        lines = file.read(metadata).decode().splitlines()
    requirements = [Requirement(line.removeprefix("Requires-Dist: ")) for line in lines if "Requires-Dist: " in line]

    def asked(version: str) -> set[str]:
        at = {"python_version": version, "python_full_version": f"{version}.0", "extra": ""}
        return {each.name for each in requirements if each.marker is None or each.marker.evaluate(at)}

    assert {*RUNTIME.values(), *TENSORFLOW.values()} <= asked("3.13")
    assert asked("3.14") == asked("3.13") - set(TENSORFLOW.values())
    assert set(RUNTIME.values()) <= asked("3.14")


def test_two_commands_draw_digits(command, tmp_path):
    # The first is that of the fixture: pip install.
    assert checked(command, "sample", "mnist_2d", cwd=tmp_path) == "samples.png\n"
    checked(sys.executable, "-m", "kvae", "sample", SAVED_MODELS / "mnist_2d", "-o", "here.png", cwd=tmp_path)
    np.testing.assert_array_equal(picture(tmp_path / "samples.png"), picture(tmp_path / "here.png"))


def test_the_pretrained_models_are_listed_and_open_by_name(command, python, tmp_path):
    listed = json.loads(checked(command, "pretrained", "--json", cwd=tmp_path))["pretrained"]
    assert [(each["name"], list(each["variants"])) for each in listed] == [
        (name, ["float32", "int8", "web_int8"]) for name in pretrained.NAMES
    ]
    code = (
        "import importlib.util as u, kvae; "
        "assert u.find_spec('tensorflow') is None and u.find_spec('keras') is None and u.find_spec('psutil') is None; "
        f"print(*(kvae.load(name, 'int8').path.parent for name in {pretrained.NAMES}))"
    )
    folders = checked(python, "-c", code, cwd=tmp_path).split()
    assert [Path(folder).name for folder in folders] == list(pretrained.NAMES)
    assert all("site-packages" in folder for folder in folders)


@pytest.mark.every_case
@pytest.mark.parametrize("words", [["demo"], ["train"], ["evaluate", "mnist_2d"], ["verify", "mnist_2d"], ["keys"]])
def test_commands_that_need_more_say_so_in_one_line(words, command, tmp_path):
    result = call(command, *words, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"kvae: kvae {words[0]} needs the full installation of kvae: the package ")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("quick_exports")
def test_a_bundle_draws_the_same_pictures(command, python, tmp_path):
    vae = kvae.VAE(2, hidden_units=(8,), seed=0)
    vae.build((None, 6, 5, 1))
    export.bundle(vae, tmp_path / "bundle", formats=["tflite"])
    options = ("-n", 8, "--seed", 1, "-o")
    for ways in (((sys.executable, "-m", "kvae"), (command,)), ((sys.executable,), (python,))):
        drawn = []
        for number, way in enumerate(ways):
            what = ("bundle/sample.py",) if way[-1] in (sys.executable, python) else ("sample", "bundle")
            checked(*way, *what, *options, f"{number}.png", cwd=tmp_path)
            drawn.append(picture(tmp_path / f"{number}.png"))
        np.testing.assert_array_equal(*drawn)
