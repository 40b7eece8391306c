"""The preview of a bundle: one picture of the means of images that its first decoder draws, as `kvae sample` does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvae.export.endpoints import cycled
from kvae.internal import picture_files, pictures
from kvae.noise import portable
from kvae.runtime import Decoder, formats

FILE = "preview.png"
SEED = 0
WIDTH = 800  # pixels of the picture, at most, if the images are not larger
MOST = 8  # images in a row
MODES = {"L": "L", "RGB": "RGB"}


def entry(variants: Mapping[str, Any], image_shape: Sequence[int]) -> dict[str, Any] | None:
    """What the card of a bundle states of the preview, or None if the images cannot be shown as a picture.

    Args:
        variants: the variants of the card, of which the first, in the order of `kvae.load`, makes the preview.
        image_shape: the shape of one image.
    """
    if not (len(image_shape) == 2 or (len(image_shape) == 3 and image_shape[2] in (1, 3))):
        return None
    row = max(1, min(MOST, WIDTH // (image_shape[1] + 1)))
    chosen = next(name for name in [*formats.variants(), *variants] if name in variants)
    # `pictures.sheet` has rows of 5 for up to 10 images, and about a square for more.
    return {"file": FILE, "variant": chosen, "images": row if row < 4 else row**2, "seed": SEED, "means": True}


def picture(stated: Mapping[str, Any], decoder: Decoder, conditions: np.ndarray | None) -> np.ndarray:
    """The picture, `[H, W, C]` uint8, as the result of `entry` states it."""
    count = stated["images"]
    sample = decoder.sample(portable.seeds(count, stated["seed"]), cycled(conditions, 0, count))
    return pictures.sheet(sample.means)


def write(folder: Path, stated: Mapping[str, Any], decoder: Decoder, conditions: np.ndarray | None) -> None:
    """Writes the picture into a bundle."""
    pictures.save_picture(folder / FILE, picture(stated, decoder, conditions))


def difference(folder: Path, stated: Mapping[str, Any], decoder: Decoder, conditions: np.ndarray | None) -> int:
    """The largest difference of a pixel of the file from the picture that is drawn now; 255 for another size.

    Raises:
        UserError: if the file is not a picture.
    """
    drawn = picture(stated, decoder, conditions).astype(int)
    found = np.asarray(picture_files.read(folder / FILE, MODES)).astype(int)
    found = found[..., None] if found.ndim == 2 else found
    return int(np.abs(found - drawn).max()) if found.shape == drawn.shape else 255
