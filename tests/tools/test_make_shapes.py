"""tools/make_shapes.py: pictures of shapes, the same from the same seed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "make_shapes.py"


def make(folder, *arguments):
    words = [sys.executable, TOOL, folder, "--number", "30", *arguments]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)


def pictures(folder):
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize(
    ("options", "shape", "values"),
    [((), (48, 64, 3), 100), (("--grey", "--size", "20x31"), (31, 20), 100), (("--binary",), (48, 64), 2)],
)
def test_the_options_decide_size_and_colour(options, shape, values, tmp_path):
    assert make(tmp_path / "shapes", *options).returncode == 0
    found = pictures(tmp_path / "shapes")
    assert list(found) == [f"{number:05}.png" for number in range(30)]
    assert {picture.shape for picture in found.values()} == {shape}
    brightness = np.unique(np.concatenate([picture.ravel() for picture in found.values()]))
    assert (len(brightness) == 2) if values == 2 else (len(brightness) >= values)
    # No two pictures are alike: place, size and colour differ.
    assert len({picture.tobytes() for picture in found.values()}) == 30


@pytest.mark.parametrize("size", ["32", "32x", "7x32"])
def test_another_size_is_one_line_that_says_what_is_expected(size, tmp_path):
    done = make(tmp_path / "shapes", "--size", size)
    assert done.returncode == 2
    assert f"expected WxH, e.g. 32x24, with at least 8 pixels each. Received {size!r}." in done.stderr


def test_each_kind_of_shape_is_a_class_and_a_seed_gives_the_same_pictures(tmp_path):
    for name, options in (("a", ()), ("b", ("--classes",)), ("c", ("--seed", 1))):
        assert make(tmp_path / name, *options).returncode == 0
    first, second, other = (pictures(tmp_path / name) for name in "abc")
    assert {Path(name).parent.name for name in second} == {"disc", "square", "triangle"}
    for name, picture in second.items():
        np.testing.assert_array_equal(picture, first[Path(name).name])
    assert any((other[name] != picture).any() for name, picture in first.items())


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = make(tmp_path)
    assert done.returncode == 2
    assert "expected a new or an empty folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
