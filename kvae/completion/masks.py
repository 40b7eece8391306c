"""Which pixels are observed: boolean masks that broadcast to images `[B, H, W, C]`, True where a pixel is seen."""

import math
import os

import numpy as np
from numpy.typing import ArrayLike

from kvae.internal.errors import UserError, check_seed, unknown

REGIONS = ("top", "bottom", "left", "right", "random")


def named(name: str, image_shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A mask by its name.

    Args:
        name: `top`, `bottom`, `left`, `right` (a half, rounded down), `random` or `random:FRACTION` (each pixel
            observed with that probability, 0.5 by default), or the path of a picture, white where observed.
        image_shape: `(H, W, C)`.
        seed: of a random mask.

    Returns:
        `[H, W, 1]` bool.

    Raises:
        UserError: none of these, a fraction outside (0, 1), or a picture that cannot be read or has another size.
    """
    if len(image_shape) != 3:
        raise UserError(f"Expected images [H, W, C] for the mask {name!r}. Received images of shape {image_shape}.")
    height, width, _ = image_shape
    mask = np.zeros((height, width, 1), bool)
    kind, colon, fraction = name.partition(":")
    if kind != "random" and kind in REGIONS and colon:
        raise UserError(f"Expected {kind!r} without a fraction: random alone takes one. Received {name!r}.")
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
    from PIL import Image

    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))  # 16 and 32 bits, which Pillow would clip
            pixels = np.asarray(image if deep else image.convert("L"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"Could not read the mask {path}: {error}. Expected a picture, white where observed."
        ) from error
    if pixels.shape != (height, width):
        raise UserError(
            f"Expected a mask of {height} x {width} pixels. {path} has {pixels.shape[0]} x {pixels.shape[1]}."
        )
    white = 2**15 if deep and pixels.max() > 255 else 128
    return pixels[..., None] >= white


def check(observed: ArrayLike, images_shape: tuple[int, ...]) -> np.ndarray:
    """A mask for every image.

    Args:
        observed: booleans, or numbers that are 0 or 1, of shape `[H, W]`, `[H, W, C]`, `[B, H, W, C]` or any that
            broadcasts to the images.
        images_shape: `(B, *image)`.

    Returns:
        `[B, *image]` bool.

    Raises:
        UserError: no image, another shape, other values, or an image of which nothing or everything is observed.
    """
    if images_shape[0] == 0:
        raise UserError("Expected at least one image to mask. Received none.")
    mask = np.asarray(observed)
    if mask.dtype != bool:
        if mask.dtype.kind not in "iuf" or not np.isin(mask, (0, 1)).all():
            raise UserError("Expected a mask of booleans, True where a pixel is observed. Received other values.")
        mask = mask.astype(bool)
    if len(images_shape) == 4 and mask.shape == images_shape[1:3]:
        mask = mask[..., None]
    try:
        mask = np.broadcast_to(mask, images_shape)
    except ValueError:
        raise UserError(
            f"Expected a mask of shape {images_shape[1:]} or {images_shape}. Received {np.shape(observed)}."
        ) from None
    share = mask.reshape(len(mask), -1).mean(axis=1)
    for wrong, what in ((share == 0, "nothing"), (share == 1, "everything")):
        if wrong.any():
            raise UserError(
                f"Expected some pixels observed and some missing. Of image {int(wrong.argmax())} {what} is observed."
            )
    return mask
