"""Masks of the observed pixels: booleans that broadcast to images `[B, H, W, C]`, True for every observed pixel."""

import math
import os

import numpy as np
from numpy.typing import ArrayLike

from kvae.internal import picture_files
from kvae.internal.errors import UserError, check_seed, unknown
from kvae.model import given_images

REGIONS = ("top", "bottom", "left", "right", "random")
# By Pillow's mode of a picture, the mode that it is converted to: grey, or numbers of 16 or 32 bits as they are.
MODES = dict.fromkeys(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"), "L")
MODES |= {mode: mode for mode in ("I", "F", "I;16", "I;16B", "I;16L")}


def named(name: str, image_shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Makes the mask that a name stands for.

    Args:
        name: `top`, `bottom`, `left` or `right` for the half of the image that is observed, rounded down; `random` or
            `random:FRACTION` for pixels that are each observed with this probability, 0.5 by default; or the path of a
            picture whose white pixels are observed.
        image_shape: the shape of one image, `(H, W, C)` or `(H, W)`.
        seed: the seed of a random mask, a whole number in 0..2^31 - 1.

    Returns:
        `[H, W, 1]` bool, or `[H, W]` for images `(H, W)`.

    Raises:
        UserError: if the name is none of these, if the fraction is not in (0, 1), if the picture cannot be read or has
            another size, or if the images are not `[H, W, C]`.
    """
    if len(image_shape) not in (2, 3):
        raise UserError(f"Expected images [H, W, C] for the mask {name!r}. Received images of shape {image_shape}.")
    mask = _of_pixels(name, image_shape[0], image_shape[1], seed)
    return mask if len(image_shape) == 3 else mask[..., 0]


def _of_pixels(name: str, height: int, width: int, seed: int) -> np.ndarray:
    """The mask of a name, `[H, W, 1]`."""
    mask = np.zeros((height, width, 1), bool)
    kind, colon, fraction = name.partition(":")
    if kind != "random" and kind in REGIONS and colon:
        raise UserError(f"Expected {kind!r} without a fraction: only random takes one. Received {name!r}.")
    if kind == "random":
        return _random(mask.shape, fraction if colon else "0.5", seed)
    if name == "top":
        mask[: height // 2] = True
    elif name == "bottom":
        mask[height - height // 2 :] = True
    elif name == "left":
        mask[:, : width // 2] = True
    elif name == "right":
        mask[:, width - width // 2 :] = True
    elif os.path.splitext(name)[1]:
        return _from_picture(name, height, width)
    else:
        raise unknown("mask", name, (*REGIONS, "a picture such as FILE.png"))
    return mask


def _random(shape: tuple[int, ...], fraction: str, seed: int) -> np.ndarray:
    try:
        probability = float(fraction)
    except ValueError:
        probability = math.nan
    if not 0 < probability < 1:
        raise UserError(f"Expected random:FRACTION with a fraction between 0 and 1. Received {fraction!r}.")
    return np.random.default_rng(check_seed("seed", seed)).random(shape) < probability


def _from_picture(path: str, height: int, width: int) -> np.ndarray:
    try:
        pixels = np.asarray(picture_files.read(path, MODES))
    except UserError as error:
        raise UserError(f"Expected a mask whose white pixels are observed. {error}") from error
    if pixels.shape != (height, width):
        raise UserError(
            f"Expected a mask of {height} x {width} pixels. {path} has {pixels.shape[0]} x {pixels.shape[1]}."
        )
    threshold = 2**15 if pixels.dtype != np.uint8 and pixels.max() > 255 else 128
    return pixels[..., None] >= threshold


def check(observed: ArrayLike, images_shape: tuple[int, ...]) -> np.ndarray:
    """Validates a mask and gives every image its own.

    Args:
        observed: a mask of booleans, or of the numbers 0 and 1, `[H, W]`, `[B, H, W]`, `[H, W, C]`, `[B, H, W, C]` or
            another shape that broadcasts to the images.
        images_shape: the shape of the images, `(B, *image)`.

    Returns:
        `[B, *image]` bool.

    Raises:
        UserError: if there is no image, if the mask has another shape or other values, or if nothing or everything of
            an image is observed.
    """
    if images_shape[0] == 0:
        raise UserError("Expected at least one image to mask. Received none.")
    mask = given_images.as_mask(np.asarray(observed), images_shape[1:])
    try:
        mask = np.broadcast_to(mask, images_shape)
    except ValueError:
        raise given_images.wrong_mask(observed, images_shape) from None
    fraction = mask.reshape(len(mask), -1).mean(axis=1)
    for wrong, amount in ((fraction == 0, "nothing"), (fraction == 1, "everything")):
        if wrong.any():
            raise UserError(
                "Expected both observed and missing pixels in every image. "
                f"In image {int(wrong.argmax())}, {amount} is observed."
            )
    return mask
