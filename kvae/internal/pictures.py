"""Arrays of images as one picture, and as a file. This module needs only NumPy and Pillow."""

import math
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError
from kvae.internal.files import atomic_file, check_file

ROW, FEW = 5, 10  # a sheet of at most 10 images has rows of 5; one of more is about a square
GAP = 1  # white pixels between the images of a sheet, before it is enlarged
IMAGE = 128  # pixels that the longer side of an image has at most after it is enlarged
SHEET = 1200  # pixels that the longer side of a sheet has at most after it is enlarged


def as_images(x: ArrayLike) -> np.ndarray:
    """Adds the channel axis to images that have none.

    Args:
        x: images, `[N, H, W]` or `[N, H, W, C]` with C = 1 or 3, of any numeric type.

    Returns:
        `[N, H, W, C]`.

    Raises:
        UserError: if the array has another shape.
    """
    x = np.asarray(x)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise UserError(f"Expected images of shape [N, H, W], [N, H, W, 1] or [N, H, W, 3]. Received {list(x.shape)}.")
    return x


def tile(x: ArrayLike, columns: int | None = None, *, gap: int = 0, background: float = 1.0) -> np.ndarray:
    """Arranges images in rows, from left to right and from top to bottom.

    Args:
        x: images, `[N, H, W]` or `[N, H, W, C]`, with values in [0, 1], or uint8.
        columns: the number of images per row. By default it is that of the smallest square that holds all images.
        gap: the distance between neighbouring images, in pixels.
        background: the value of the gaps and of the unused cells, in [0, 1].

    Returns:
        `[rows * H + (rows - 1) * gap, columns * W + (columns - 1) * gap, C]`, uint8 if x is, else float32.

    Raises:
        UserError: if there is no image, if there is less than one column, or if x has another shape.
    """
    x = as_images(x)
    count, height, width, channels = x.shape
    if count == 0:
        raise UserError("Expected at least one image to arrange. Received none.")
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if columns < 1:
        raise UserError(f"Expected at least 1 column. Received {columns}.")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    filled, dtype = (round(255 * background), np.uint8) if x.dtype == np.uint8 else (background, np.float32)
    cells = np.full((rows * columns, height + gap, width + gap, channels), filled, dtype)
    cells[:count, :height, :width] = x
    sheet = cells.reshape(rows, columns, height + gap, width + gap, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap), channels)
    return sheet[: rows * (height + gap) - gap, : columns * (width + gap) - gap]


def as_bytes(picture: ArrayLike) -> np.ndarray:
    """Values in [0, 1], clipped to them, as uint8; uint8 as it is."""
    picture = np.asarray(picture)
    if picture.dtype == np.uint8:
        return picture
    return np.rint(np.clip(picture.astype(np.float32), 0, 1) * 255).astype(np.uint8)


class Layout(NamedTuple):
    """How a sheet arranges images of one size."""

    columns: int  # images per row
    enlargement: int  # the number of times that every pixel is repeated in each direction


def layout(count: int, height: int, width: int) -> Layout:
    """The layout of every picture of samples: up to 10 images in rows of 5, more in about a square.

    Small images are enlarged to at most 128 pixels, as long as the sheet has at most 1200 pixels; large ones are not.
    `sample.py` of a bundle (kvae/export/sample_script.py) and the web page (kvae/web/page.js) repeat this function.

    Args:
        count: the number of images, at least 1.
        height: the height of an image, in pixels.
        width: the width of an image, in pixels.
    """
    columns = min(count, ROW) if count <= FEW else math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    longest = max(rows * (height + GAP), columns * (width + GAP)) - GAP
    return Layout(columns, max(1, min(IMAGE // max(height, width), SHEET // longest)))


def sheet(images: ArrayLike) -> np.ndarray:
    """Images as one picture, arranged and enlarged as `kvae sample` does it.

    With the same images, the pixels are those of `kvae sample`, of `sample.py` in a bundle and of the web page. `tile`
    arranges images in another number of columns, without enlarging them.

    Args:
        images: images, `[N, H, W]` or `[N, H, W, C]`: values that are clipped to [0, 1], or uint8.

    Returns:
        The picture for `save_picture`, `[H, W, C]` uint8.

    Raises:
        UserError: if there is no image, or if the array has another shape.
    """
    images = as_images(images)
    columns, enlargement = layout(max(1, len(images)), *images.shape[1:3])
    picture = tile(as_bytes(images), columns, gap=GAP)
    return picture.repeat(enlargement, axis=0).repeat(enlargement, axis=1)


def check_picture_file(path: str | os.PathLike[str]) -> None:
    """Checks that `save_picture` can write a picture to a path, before the picture is made.

    Raises:
        UserError: if the suffix is not that of a format that can be written, or if the file cannot be written.
    """
    from PIL import Image

    if Image.registered_extensions().get(os.path.splitext(path)[1].lower()) not in Image.SAVE:
        raise _no_picture(path)
    check_file(path)


def save_picture(path: str | os.PathLike[str], picture: ArrayLike) -> None:
    """Writes a picture without scaling, in the format that the suffix of the path names.

    Args:
        path: the file to write, for example `samples.png`.
        picture: a picture, `[H, W]` or `[H, W, C]` with C = 1 or 3: values that are clipped to [0, 1], or uint8.

    Raises:
        UserError: if the picture has another shape, if the suffix is not that of a known format, or if the file cannot
            be written.
    """
    from PIL import Image

    picture = np.asarray(picture)
    if (
        not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[-1] in (1, 3)))
        or picture.dtype.kind not in "buif"
    ):
        raise UserError(
            f"Expected a picture of numbers [H, W] or [H, W, C] with C = 1 or 3. Received {picture.dtype} of shape "
            f"{list(picture.shape)}. To arrange several images in one picture: kvae.runtime.sheet(images)."
        )
    pixels = as_bytes(picture[..., None] if picture.ndim == 2 else picture)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    try:
        with atomic_file(path) as partial:
            image.save(partial)
    except UserError:
        raise
    except (ValueError, KeyError) as error:
        raise _no_picture(path) from error


def _no_picture(path: str | os.PathLike[str]) -> UserError:
    return UserError(
        f"Could not write {path}. Expected the name of a picture that ends with .png, .jpg, .gif, .bmp, .tiff or .pdf."
    )
