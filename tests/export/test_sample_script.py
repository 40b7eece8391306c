"""sample.py of a bundle, which draws images where neither kvae nor TensorFlow is installed."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exports import without
from PIL import Image
from small_models import built
from web_pages import lively

from kvae import export, runtime
from kvae.export import sample_script
from kvae.internal import pictures
from kvae.noise import portable
from kvae.runtime import pretrained

pytestmark = pytest.mark.usefixtures("quick_exports")


ALONE = f"""
{without("kvae", "tensorflow", "keras", "PIL")}
import os
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    """sample.py of a bundle, where neither kvae nor TensorFlow nor Pillow can be imported."""
    return subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(folder / "sample.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        check=False,
    )


@pytest.fixture(scope="module")
def colour(tmp_path_factory) -> Path:
    """A bundle of a model of colour pictures."""
    vae = lively(built((7, 8, 3), latent_dim=5, hidden_units=(8,), likelihood="continuous_bernoulli"))
    folder = tmp_path_factory.mktemp("colour") / "bundle"
    export.bundle(vae, folder, formats=["tflite"], variants=["float32", "float16"])
    return folder


def pixels(path: Path) -> tuple[str, np.ndarray]:
    """The mode of a PNG file, and its pixels."""
    with Image.open(path) as picture:
        return picture.mode, np.asarray(picture)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count", "kind"), [("lite", 1, "draws"), ("colour", 23, "means")])
def test_sample_py_draws_without_kvae_what_the_runtime_draws(request, tmp_path, name, count, kind):
    folder = request.getfixturevalue(name)
    result = alone(folder, "-n", count, "--seed", 4, "-o", tmp_path / "drawn.png", f"--{kind}")
    assert (result.returncode, result.stdout.strip()) == (0, str(tmp_path / "drawn.png")), result.stderr
    drawn = runtime.load(folder).sample(runtime.seeds(count, 4))
    expected = runtime.sheet(drawn.means if kind == "means" else drawn.images)
    mode, found = pixels(tmp_path / "drawn.png")
    assert mode == ("L" if expected.shape[-1] == 1 else "RGB")
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("options", [(), ("--draws",), ("--draws", "--means")], ids=" ".join)
@pytest.mark.parametrize("count", [1, 5, 64])
@pytest.mark.parametrize("name", ["lite", "colour"])
def test_one_seed_is_one_picture_of_kvae_sample_sample_py_and_python(
    call, request, monkeypatch, tmp_path, name, count, options
):
    folder = request.getfixturevalue(name)
    arguments = ("-n", str(count), "--seed", "1", *options, "-o")
    assert call("sample", folder, *arguments, "command.png")[0] == 0
    monkeypatch.setattr(sys, "argv", ["sample.py", *arguments, "script.png"])
    runpy.run_path(str(folder / "sample.py"), run_name="__main__")
    drawn = runtime.load(folder).sample(runtime.seeds(count, seed=1))
    images = drawn.images if options == ("--draws",) else drawn.means
    runtime.save_picture("python.png", runtime.sheet(images))
    mode, expected = pixels(tmp_path / "python.png")
    assert np.ptp(expected) > 20
    for path in (tmp_path / "command.png", tmp_path / "script.png"):
        assert pixels(path)[0] == mode
        np.testing.assert_array_equal(pixels(path)[1], expected)


@pytest.mark.parametrize("size", [(1, 1), (6, 5), (28, 28), (24, 32), (64, 48), (200, 3), (400, 400)])
def test_the_layout_of_sample_py_is_that_of_kvae(size):
    for count in (*range(1, 130), 400, 2500, 10_000):
        assert sample_script.layout(count, *size) == pictures.layout(count, *size)


@pytest.mark.parametrize("model", pretrained.NAMES)
def test_the_pretrained_bundles_have_this_script(model):
    script = Path(sample_script.__file__).read_bytes()
    assert (pretrained.CLONE / model / "bundle" / "sample.py").read_bytes() == script


def test_sample_py_uses_the_decoder_that_was_asked_for(colour, lite, tmp_path):
    assert alone(colour, "-n", 4, "-o", tmp_path / "a.png", "--model", lite / "decoder.tflite").returncode == 0
    assert alone(lite, "-n", 4, "-o", tmp_path / "b.png").returncode == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_sample_py_uses_another_variant_where_float32_was_left_out(colour, tmp_path):
    folder = Path(shutil.copytree(colour, tmp_path / "bundle"))
    (folder / "decoder.tflite").unlink()
    result = alone(folder, "-n", 2)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "samples.png").is_file()


@pytest.mark.parametrize("seed", [0, 1, 2, 12345, 2**30, 2**31 - 1])
def test_the_seeds_of_sample_py_are_those_of_kvae(seed):
    np.testing.assert_array_equal(sample_script.image_seeds(1000, seed), portable.seeds(1000, seed))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-n", "0"], "expected -n from 1 to 10000, received 0"),
        (["-n", "-1"], "received -1"),
        (["-n", "1000000"], "received 1000000"),
        (["-n", "two"], "two"),
        (["--seed", "-1"], "expected --seed from 0 to 2147483647, received -1"),
        (["--seed", "2147483648"], "received 2147483648"),
        (["--model", "nowhere.tflite"], "could not load nowhere.tflite"),
        (["--model", "bundle/sample.py"], "could not load bundle/sample.py"),
        (["-o", "nowhere/samples.png"], "could not write nowhere/samples.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_calling_sample_py_ends_in_status_2_and_one_line(lite, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(lite.parent)
    monkeypatch.setattr(sys, "argv", ["sample.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(lite / "sample.py"), run_name="__main__")
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    last = err.strip()
    assert out == ""
    assert last.startswith("sample.py: ")
    assert expected in last


def drawn_in_process(monkeypatch, capsys, script: Path, *arguments: object) -> str:
    """The one line with which sample.py refuses, run in this process."""
    monkeypatch.setattr(sys, "argv", ["sample.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def pipe(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(path)


SPECIAL = {"pipe": pipe, "folder": Path.mkdir, "device": lambda path: path.symlink_to(os.devnull)}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(("option", "words"), [("--model", "could not load"), ("-o", "could not write")])
def test_sample_py_reads_and_writes_files_only(lite, tmp_path, monkeypatch, capsys, option, words, kind):
    SPECIAL[kind](tmp_path / "special")
    err = drawn_in_process(monkeypatch, capsys, lite / "sample.py", option, tmp_path / "special")
    assert f"{words} {tmp_path / 'special'}: it is not a file" in err
    assert [path.name for path in tmp_path.iterdir()] == ["special"]


def test_sample_py_leaves_the_old_picture_where_it_cannot_write(lite, tmp_path, monkeypatch, capsys):
    (tmp_path / "old.png").write_text("old")

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    err = drawn_in_process(monkeypatch, capsys, lite / "sample.py", "-o", tmp_path / "old.png")
    assert "could not write" in err
    assert "No space left" in err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.png", "old")]


def test_sample_py_refuses_a_file_that_is_not_that_of_the_card(lite_copy, monkeypatch, capsys):
    content = bytearray((lite_copy / "decoder.tflite").read_bytes())
    content[-1] ^= 1
    (lite_copy / "decoder.tflite").write_bytes(content)
    err = drawn_in_process(monkeypatch, capsys, lite_copy / "sample.py")
    assert "decoder.tflite: it is damaged, or not a .tflite file" in err


def test_sample_py_says_where_no_card_states_the_file(lite_copy, monkeypatch, capsys):
    (lite_copy / "model_card.json").unlink()
    monkeypatch.chdir(lite_copy)
    monkeypatch.setattr(sys, "argv", ["sample.py"])
    runpy.run_path(str(lite_copy / "sample.py"), run_name="__main__")
    assert "no model_card.json states the SHA-256 of decoder.tflite" in capsys.readouterr().err


def test_sample_py_refuses_a_file_of_another_size_without_reading_it(lite, tmp_path, monkeypatch, capsys):
    with open(tmp_path / "large.tflite", "wb") as file:
        file.truncate(2**31)
    err = drawn_in_process(monkeypatch, capsys, lite / "sample.py", "--model", tmp_path / "large.tflite")
    assert "it has more than 2147483647 bytes" in err


def test_sample_py_refuses_means_that_are_not_finite(lite, tmp_path, monkeypatch, capsys):
    from ai_edge_litert import interpreter

    class Diverged:
        def __init__(self, **_):
            pass

        def get_signature_runner(self, _):
            return self

        def get_input_details(self):
            return {}

        def get_output_details(self):
            return {"images": {"shape": (1, 6, 5, 1)}}

        def __call__(self, seed):
            return {"means": np.full((len(seed), 6, 5, 1), np.nan), "images": np.zeros((len(seed), 6, 5, 1), np.uint8)}

    monkeypatch.setattr(interpreter, "Interpreter", Diverged)
    err = drawn_in_process(monkeypatch, capsys, lite / "sample.py", "-o", tmp_path / "a.png")
    assert "means are not finite numbers" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_sample_py_refuses_to_draw_vectors_with_a_clear_message(tmp_path):
    export.bundle(
        built((12,), latent_dim=2, hidden_units=(8,)), tmp_path / "bundle", formats=["tflite"], variants=["float32"]
    )
    result = alone(tmp_path / "bundle")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
