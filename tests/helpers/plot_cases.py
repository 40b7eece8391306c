"""Shapes of images, histories of a training and what makes a figure well saved, for the tests of plots."""

from pathlib import Path

from PIL import Image

from kvae.plotting import drawing

SHEET_SHAPES = [(28, 28, 1), (13, 17, 1), (16, 16, 3)]
LOSSES = {"epoch": [1, 2, 3], "loss": [9.0, 8.0, 7.0], "reconstruction": [8.0, 6.0, 5.0], "kl": [1.0, 2.0, 2.0]}
VALIDATION_LOSSES = {f"val_{name}": [value + 1 for value in LOSSES[name]] for name in ("loss", "reconstruction", "kl")}


def assert_is_saved(figure, folder: Path, suffix: str) -> None:
    """The figure is saved as one file of this format, which is not empty."""
    drawing.save(figure, folder / f"a.{suffix}")
    assert [path.name for path in folder.iterdir()] == [f"a.{suffix}"]
    if suffix == "png":
        with Image.open(folder / "a.png") as image:
            low, high = image.convert("L").getextrema()
            assert low < high
    else:
        assert "<svg" in (folder / "a.svg").read_text(encoding="utf-8")
