"""Makes pictures of simple shapes, to try kvae on: `python tools/make_shapes.py DIR`.

Each picture shows a disc, a square or a triangle. Its place, size and colour are random, and so is the colour of its
background: what a model of these pictures should learn is known. The same seed gives the same shapes. It needs only
NumPy and Pillow.
"""

import argparse
import colorsys
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("disc", "square", "triangle")
FINE = 4  # A picture is drawn this many times as large, and then reduced, which makes the edges smooth.
# The corners of a shape of radius 1; the triangle stands on a side.
CORNERS = {
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)],
}


class Shape(NamedTuple):
    """What a picture shows. Lengths are in parts of the shorter side, from the upper left corner of the picture."""

    kind: str
    x: float
    y: float
    radius: float
    hue: float  # 0..1 around the circle of colours
    background_hue: float
    background: float  # brightness, 0 black, 1 white


def random_shape(rng: np.random.Generator, kind: str, width: int, height: int) -> Shape:
    """A shape of a kind, all of which is inside the picture."""
    shorter = min(width, height)
    radius = rng.uniform(0.2, 0.4)
    x, y = (rng.uniform(radius, side / shorter - radius) for side in (width, height))
    return Shape(kind, x, y, radius, rng.uniform(), rng.uniform(), rng.uniform(0.1, 0.5))


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def draw(shape: Shape, width: int, height: int, mode: str) -> Image.Image:
    """The picture of a shape.

    Args:
        shape: the shape.
        width: the width of the picture in pixels.
        height: its height.
        mode: `RGB` for colour, `L` for grey, `1` for a white shape on black.
    """
    scale = FINE * min(width, height)
    fill, background = {
        "RGB": (_rgb(shape.hue, 0.8, 0.95), _rgb(shape.background_hue, 0.6, shape.background)),
        "L": (round(255 * (0.6 + 0.4 * shape.hue)), round(255 * shape.background)),
        "1": (255, 0),
    }[mode]
    picture = Image.new("RGB" if mode == "RGB" else "L", (FINE * width, FINE * height), background)
    x, y, radius = scale * shape.x, scale * shape.y, scale * shape.radius
    if shape.kind == "disc":
        ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    else:
        corners = [(x + radius * right, y + radius * down) for right, down in CORNERS[shape.kind]]
        ImageDraw.Draw(picture).polygon(corners, fill)
    picture = picture.resize((width, height), Image.Resampling.BOX)
    return picture.point(lambda grey: 255 * (grey > 127)) if mode == "1" else picture


def make(
    folder: Path,
    number: int = 1200,
    width: int = 64,
    height: int = 48,
    mode: str = "RGB",
    classes: bool = False,
    seed: int = 0,
) -> None:
    """Writes pictures `00000.png`, `00001.png`, ... into a folder.

    Args:
        folder: the folder, which is made if it does not exist.
        number: the number of pictures.
        width: their width in pixels.
        height: their height.
        mode: `RGB`, `L` or `1`, as in `draw`.
        classes: whether each kind of shape has a sub-folder of its own, which kvae reads as a class.
        seed: the seed of all random numbers.
    """
    rng = np.random.default_rng(seed)
    for index in range(number):
        kind = KINDS[rng.integers(len(KINDS))]
        picture = draw(random_shape(rng, kind, width, height), width, height, mode)
        place = folder / kind if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{index:05}.png")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.lower())
    width, height = map(int, found.groups()) if found else (0, 0)
    if min(width, height) < 8:
        raise argparse.ArgumentTypeError(f"expected WxH, e.g. 32x24, with at least 8 pixels each. Received {text!r}.")
    return width, height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder of the pictures, new or empty")
    parser.add_argument("--number", type=int, default=1200, help="the number of pictures; 1200 by default")
    parser.add_argument(
        "--size", type=_size, default=(64, 48), metavar="WxH", help="the size in pixels, at least 8x8; 64x48 by default"
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--grey", dest="mode", action="store_const", const="L", help="make grey pictures instead of colour"
    )
    kinds.add_argument("--binary", dest="mode", action="store_const", const="1", help="make black and white pictures")
    parser.add_argument(
        "--classes", action="store_true", help="put each kind of shape into a sub-folder, which is then a class"
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed of all random numbers; 0 by default")
    given = parser.parse_args()
    if given.folder.is_dir() and any(given.folder.iterdir()):
        parser.error(f"expected a new or an empty folder. Received {str(given.folder)!r}, which has files.")
    make(given.folder, given.number, *given.size, given.mode or "RGB", given.classes, given.seed)
    print(f"{given.folder}: {given.number} pictures of {given.size[0]} x {given.size[1]}")


if __name__ == "__main__":
    main()
