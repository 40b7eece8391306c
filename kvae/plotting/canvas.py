"""What all pictures share: files of figures and arrays, and figures in which every pixel is a whole number of dots.

Figures are made without pyplot, so that no global state changes and no display is needed.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvae.internal.errors import UserError
from kvae.internal.files import atomic_file
from kvae.internal.pictures import save_picture
from kvae.plotting.words import Figure

DPI = 200
MOST_DOTS = 2**16 - 1  # the largest side of a bitmap that Matplotlib draws
BITMAPS = ("png", "jpg", "jpeg", "webp", "tif", "tiff")
IMAGE = 0.62  # inches: about the width of one image in a sheet
FRAME = 6.0  # inches: about the side of the square that shows the latent plane

Drawing = Figure | np.ndarray  # a figure, or a picture [H, W, C] that is saved without scaling


def save(drawing: Drawing, path: str | os.PathLike[str]) -> None:
    """Writes a figure at 200 dpi, or a picture without scaling.

    Args:
        drawing: a figure, or a picture `[H, W, C]` with values in [0, 1].
        path: the file to write. Its suffix names the format, for example PNG, SVG or PDF.

    Raises:
        UserError: if the suffix is not that of a supported format, or if the file cannot be written.
    """
    suffix = check_suffix(path)
    if isinstance(drawing, np.ndarray):
        if suffix in BITMAPS:
            save_picture(path, drawing)
            return
        drawing, _ = figure_of(drawing, 1)
    with atomic_file(path) as partial:
        drawing.savefig(partial, dpi=DPI, bbox_inches="tight", pad_inches=0.05, facecolor="white")


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file name, without the dot; raises `UserError` if it is not that of a supported format."""
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    supported = Figure().canvas.get_supported_filetypes()
    if suffix not in supported:
        raise UserError(f"Expected the suffix of a picture: {', '.join(sorted(supported))}. Received {str(path)!r}.")
    return suffix


def figure_of(picture: np.ndarray, scale: int) -> tuple[Figure, Any]:
    """A figure without margins in which every pixel of a picture is `scale` dots wide, and its axes, which are hidden.

    Raises:
        UserError: if the figure would have too many dots.
    """
    check_dots(max(picture.shape[:2]) * scale)
    figure = Figure(figsize=(picture.shape[1] * scale / DPI, picture.shape[0] * scale / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    show(axes, picture)
    axes.axis("off")
    return figure, axes


def show(axes: Any, picture: np.ndarray, **options: Any) -> None:
    """Shows a picture `[H, W, C]` with values in [0, 1]. `options` are those of Matplotlib's `imshow`."""
    picture = np.clip(picture, 0, 1)
    grey = picture.shape[-1] == 1
    axes.imshow(picture[..., 0] if grey else picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", **options)


def magnification(width: int, inches: float = IMAGE) -> int:
    """The whole number that enlarges `width` pixels to about this many inches."""
    return max(1, round(inches * DPI / width))


def check_size(rows: int, columns: int, image_shape: Sequence[int]) -> None:
    """Raises `UserError` if a figure of this many rows and columns of images would be too large to be drawn."""
    scale = magnification(image_shape[1])
    check_dots(max(rows * (image_shape[0] + 2), columns * (image_shape[1] + 2)) * scale)


def check_dots(side: int) -> None:
    """Raises `UserError` if a figure with a side of this many dots would be too large to be drawn."""
    if side > MOST_DOTS:
        raise UserError(
            f"Expected a figure of at most {MOST_DOTS:,} dots in each direction. Received one of {side:,}. Draw fewer "
            "images."
        )
