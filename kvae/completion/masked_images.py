"""Images with a mask of the observed pixels: validation, and division into batches."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae.completion import masks
from kvae.internal import finite
from kvae.internal.errors import UserError, check_seed
from kvae.model import given_images, sampling
from kvae.model.conditions import check_condition
from kvae.model.pixel_check import check_pixels
from kvae.model.vae import VAE

BATCH = 100  # the largest number of images in a batch; large images come in smaller batches


class MaskedImages(NamedTuple):
    """Images, and which of their pixels are observed."""

    x: np.ndarray  # [B, *image]  0 where the value of a missing pixel is not known
    observed: np.ndarray  # [B, *image]  bool
    known: np.ndarray  # [B]  bool, whether the values of all missing pixels are known
    condition: np.ndarray | None  # [B, ...]  None for a model without a condition

    @property
    def zero_filled(self) -> np.ndarray:
        """The images with 0 in place of every missing pixel, `[B, *image]`."""
        return np.where(self.observed, self.x, 0).astype(np.float32)


def check_images(vae: VAE, x: Any, observed: Any, seed: int = 0, condition: Any = None) -> MaskedImages:
    """Validates images and their mask, and converts them to arrays.

    Args:
        vae: a built model.
        x: images, `[B, *image]`; NaN stands for a missing pixel whose value is not known.
        observed: a mask as in `kvae.completion.complete`.
        seed: the seed of a random mask.
        condition: conditions, `[B, ...]`, for a model that takes one.

    Raises:
        UserError: if the model is not built or has a weight that is NaN or infinite, if the images, the mask or the
            condition have another shape, if nothing or everything of an image is observed, if a pixel has a value that
            the likelihood does not accept, or if the seed is not a whole number in 0..2^31 - 1.
    """
    check_seed("seed", seed)
    finite.check_trained(vae)
    x = given_images.at_least_one(x, vae.image_shape)
    if isinstance(observed, str):
        observed = masks.named(observed, vae.image_shape, seed)
    mask = masks.check(observed, x.shape)
    unknown = np.isnan(x) & ~mask
    try:
        check_pixels(vae.likelihood, x[~unknown])
    except UserError as error:
        raise UserError(
            f"{error} NaN may stand for missing pixels that are not known, not for observed ones."
        ) from None
    condition = check_condition(condition, vae.condition_shape, len(x))
    known = ~unknown.reshape(len(x), -1).any(axis=1)
    conditions = None if condition is None else condition.numpy()
    return MaskedImages(np.where(unknown, 0, x).astype(np.float32), mask, known, conditions)


def select_condition(condition: np.ndarray | None, batch: slice) -> np.ndarray | None:
    """The conditions of a batch of images, or None for a model without a condition."""
    return None if condition is None else condition[batch]


def batches(vae: VAE, count: int, samples: int = 1) -> Iterator[slice]:
    """Slices that divide `count` images into batches, small enough that `samples` decodes per image fit in memory."""
    size = min(BATCH, max(1, sampling.images_at_once(vae) // samples))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def indices(batch: slice) -> np.ndarray:
    """The indices of a batch's images among all images of the call, `[B]` int32; their noise depends on these."""
    return np.arange(batch.start, batch.stop, dtype=np.int32)
