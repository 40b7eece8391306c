"""Arrays of images to one picture and to a PNG file; NumPy and Pillow only."""

import math
import os

import numpy as np
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError
from kvae.internal.files import atomic_file


def as_images(x: ArrayLike) -> np.ndarray:
    """Gives images their channel axis.

    Args:
        x: `[N, H, W]` or `[N, H, W, C]` with C = 1 or 3, any numeric type.

    Returns:
        `[N, H, W, C]`.

    Raises:
        UserError: another shape.
    """
    x = np.asarray(x)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise UserError(f"Expected images of shape [N, H, W], [N, H, W, 1] or [N, H, W, 3]. Received {list(x.shape)}.")
    return x


def tile(x: ArrayLike, columns: int | None = None, *, gap: int = 0, background: float = 1.0) -> np.ndarray:
    """Lays images out in rows, left to right and top to bottom.

    Args:
        x: `[N, H, W]` or `[N, H, W, C]`, values in [0, 1].
        columns: images in a row; the smallest square that holds them by default.
        gap: pixels between neighbours.
        background: the value of gaps and of places left over.

    Returns:
        `[rows * H + (rows - 1) * gap, columns * W + (columns - 1) * gap, C]`.

    Raises:
        UserError: no image, fewer than one column, or a shape that is not one of images.
    """
    x = as_images(x)
    number, height, width, channels = x.shape
    if number == 0:
        raise UserError("Expected at least one image to lay out. Received none.")
    columns = math.ceil(math.sqrt(number)) if columns is None else columns
    if columns < 1:
        raise UserError(f"Expected at least 1 column. Received {columns}.")
    columns = min(columns, number)
    rows = math.ceil(number / columns)
    cells = np.full((rows * columns, height + gap, width + gap, channels), background, np.float32)
    cells[:number, :height, :width] = x
    sheet = cells.reshape(rows, columns, height + gap, width + gap, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap), channels)
    return sheet[: rows * (height + gap) - gap, : columns * (width + gap) - gap]


def enlarge(picture: ArrayLike, least_width: int = 800) -> np.ndarray:
    """Repeats the pixels of a picture `[H, W, C]` a whole number of times, up to a width that is easy to look at."""
    picture = np.asarray(picture)
    times = max(1, least_width // picture.shape[1])
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def save_picture(path: str | os.PathLike[str], picture: ArrayLike) -> None:
    """Writes one picture, pixel for pixel, in the format that the suffix names.

    Args:
        path: e.g. `samples.png`.
        picture: `[H, W, C]` with C = 1 or 3, values in [0, 1] (clipped).

    Raises:
        UserError: an unknown suffix, or the file cannot be written.
    """
    from PIL import Image

    pixels = np.rint(np.clip(np.asarray(picture, np.float32), 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    try:
        with atomic_file(path) as partial:
            image.save(partial)
    except UserError:
        raise
    except (ValueError, KeyError) as error:
        raise UserError(f"Could not write {path}: expected a picture's name such as samples.png.") from error
