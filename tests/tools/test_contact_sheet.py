"""tools/contact_sheet.py at work: the pictures of two folders side by side."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "contact_sheet.py"


def contact_sheet(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """`a/both.png` in two colours, and one picture that only the second folder has."""
    for folder, colour in (("before", (255, 0, 0)), ("after", (0, 0, 255))):
        (tmp_path / folder / "a").mkdir(parents=True)
        Image.new("RGB", (200, 100), colour).save(tmp_path / folder / "a" / "both.png")
    Image.new("L", (100, 300)).save(tmp_path / "after" / "new.png")
    return tmp_path / "before", tmp_path / "after"


def test_the_pictures_lie_side_by_side_in_the_order_of_their_names(folders, tmp_path):
    done = contact_sheet(*folders, tmp_path / "sheet.png", "--width", 100, "--height", 60)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape == (2 * (18 + 12) + 50 + 60, 2 * 100 + 3 * 12, 3)
    first, second = pixels[18 + 25], pixels[80 + 18 + 30]  # the middle of each row
    assert (first[12:112] == [255, 0, 0]).all()
    assert (first[124:224] == [0, 0, 255]).all()
    assert (second[124:144] == 0).all()
    assert (second[12:112] == 255).all()


def test_folders_without_pictures_are_refused(tmp_path):
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    done = contact_sheet(tmp_path / "before", tmp_path / "after", tmp_path / "sheet.png")
    assert done.returncode == 2
    assert "Expected folders with PNG files" in " ".join(done.stderr.split())
