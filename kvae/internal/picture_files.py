"""Reading of picture files: of a few formats, of a limited size, and with one error for everything that can be wrong.

Pillow knows many more formats than those that people have pictures in. It decides by the content of a file, whatever
its name is, and starts other programs for some of them. So every picture that kvae reads is opened here.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from kvae.internal import reading
from kvae.internal.errors import UserError, first_line
from kvae.internal.quiet_output import silenced

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
PIXELS = 2**24  # the largest picture, 4096 x 4096: a small file can hold a picture that takes minutes to decode
ORIENTATION = 0x0112  # the number of the EXIF tag
# By orientation, what turns the stored pixels into the picture as it is shown; 1 is the stored one. EXIF 2.3, 4.6.4.
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}

# Pillow logs what is wrong in some files, which the error of kvae says. Python would print it, also because TensorFlow
# gives the root logger a handler when it saves a model. A level that the user has set for Pillow stays.
if logging.getLogger("PIL").level == logging.NOTSET:
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


class Header(NamedTuple):
    """What is known of a picture before its pixels are decoded."""

    format: str  # a member of FORMATS
    mode: str  # Pillow's name for the type of its pixels
    size: tuple[int, int]  # width and height of the picture as it is shown, which is that of its first frame
    turned: bool  # whether its EXIF data say that it is shown in another orientation than it is stored
    alpha: bool  # whether it has an alpha channel, or a colour that is transparent


def header(path: str | os.PathLike[str]) -> Header:
    """Reads the header of a picture.

    Raises:
        UserError: if the file is not a picture in one of the formats, or if it has more pixels than `PIXELS`.
    """
    with _opened(path) as image:
        turn = _turn(image)
        size = image.size[::-1] if turn in (5, 6, 7, 8) else image.size
        return Header("JPEG" if image.format == "MPO" else image.format, image.mode, size, turn != 1, _has_alpha(image))


def _has_alpha(image: Any) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def read(path: str | os.PathLike[str], modes: Mapping[str, str]) -> Any:
    """The picture of `read_noting_alpha`."""
    return read_noting_alpha(path, modes)[0]


def read_noting_alpha(path: str | os.PathLike[str], modes: Mapping[str, str]) -> tuple[Any, bool]:
    """Reads a picture: its first frame, in the orientation of its EXIF data, without its alpha channel.

    Args:
        path: the path of the file.
        modes: by Pillow's mode of a file, the mode that its pixels are converted to.

    Returns:
        A picture of Pillow, in one of the values of `modes`, and whether an alpha channel was left out.

    Raises:
        UserError: if the file is not a picture in one of the formats, is damaged, has more pixels than `PIXELS`, or has
            a mode that is not in `modes`.
    """
    from PIL import Image

    with _opened(path) as image:
        if image.mode not in modes:
            raise UserError(
                f"{os.fspath(path)}: expected 8 bits per channel. Received Pillow's mode {image.mode}. Convert it."
            )
        turn, alpha = _turn(image), _has_alpha(image)
        # libtiff writes to file descriptor 2. What it wrote is dropped if the block ends with a `UserError`.
        chatty = any(tile[0] == "libtiff" for tile in getattr(image, "tile", ()))
        with silenced() if chatty else nullcontext(), _one_error(path):
            image.load()
        image.info.pop("transparency", None)  # it is left out, and Pillow would warn
        converted = image.convert(modes[image.mode])
        return converted if turn == 1 else converted.transpose(getattr(Image.Transpose, TURNS[turn])), alpha


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Yields a picture of Pillow whose pixels are not decoded yet; every error in the block becomes a `UserError`."""
    from PIL import Image

    with reading.open_regular(path) as file, _one_error(path), Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > PIXELS:
            raise UserError(
                f"Expected a picture of at most {PIXELS:,} pixels. {os.fspath(path)} has {image.width} x "
                f"{image.height}."
            )
        yield image


@contextmanager
def _one_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns every error of Pillow in the block into a `UserError` that names the file."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(_unidentified(path)) from error
    except Exception as error:  # a damaged file can cause almost every exception in Pillow
        raise UserError(f"Could not read {os.fspath(path)} as a picture: {first_line(error)}.") from error


def _unidentified(path: str | os.PathLike[str]) -> str:
    with reading.open_regular(path) as file:
        start = file.read(12)
    found = f"begins with {start!r}" if start else "is empty"
    return (
        f"Could not read {os.fspath(path)} as a picture. Expected one of the formats {', '.join(FORMATS)}. It {found}, "
        "so it has another format or is damaged."
    )


def _turn(image: Any) -> int:
    """The orientation that is to be applied, 1 to 8.

    It is that of the EXIF data before the pixels, because those after them are not known when a picture is streamed.
    For TIFF it is 1, because Pillow applies it when it decodes the pixels.
    """
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data, without which the picture is whole
        return 1
    return turn if turn in TURNS else 1
