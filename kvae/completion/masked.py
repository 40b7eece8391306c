"""Images with a mask, checked; and how many of them are worked on at a time."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kvae.completion import masks
from kvae.internal.errors import UserError, check_seed
from kvae.model.vae import VAE

BATCH = 100  # images at a time, fewer where they are large


class Masked(NamedTuple):
    """Images and what is observed of them."""

    x: np.ndarray  # [B, *image]  0 where a missing pixel is not known
    observed: np.ndarray  # [B, *image]  bool
    known: np.ndarray  # [B]  bool, whether the missing pixels are known
    condition: np.ndarray | None  # [B, ...]  of a model that has one

    @property
    def seen(self) -> np.ndarray:
        """The images with 0 in place of every missing pixel."""
        return np.where(self.observed, self.x, 0).astype(np.float32)


def checked(vae: VAE, x: Any, observed: Any, seed: int = 0, condition: Any = None) -> Masked:
    """Images with their mask.

    Args:
        vae: a built model.
        x: `[B, *image]`; NaN in missing pixels that are not known.
        observed: a mask as in `kvae.completion.complete`.
        seed: of a random mask.
        condition: `[B, ...]`, of a model that has one.

    Raises:
        UserError: whatever does not fit.
    """
    check_seed("seed", seed)
    if vae.image_shape is None:
        raise UserError("Expected a model that was trained, or built with build((None, 28, 28, 1)). Received neither.")
    x = np.asarray(x, np.float32)
    if x.ndim != 1 + len(vae.image_shape) or x.shape[1:] != vae.image_shape or len(x) == 0:
        shape = ", ".join(map(str, vae.image_shape))
        raise UserError(f"Expected at least one image, x of shape [B, {shape}]. Received {list(x.shape)}.")
    if isinstance(observed, str):
        observed = masks.named(observed, vae.image_shape, seed)
    mask = masks.check(observed, x.shape)
    unknown = np.isnan(x) & ~mask
    try:
        vae.check_pixels(x[~unknown])
    except UserError as error:
        raise UserError(
            f"{error} NaN may stand for missing pixels that are not known, not for observed ones."
        ) from None
    condition = vae.check_condition(condition, len(x))
    known = ~unknown.reshape(len(x), -1).any(axis=1)
    own = None if condition is None else condition.numpy()
    return Masked(np.where(unknown, 0, x).astype(np.float32), mask, known, own)


def of_batch(condition: np.ndarray | None, batch: slice) -> np.ndarray | None:
    """The conditions of a batch, where there are some."""
    return None if condition is None else condition[batch]


def batches(vae: VAE, count: int, samples: int = 1) -> Iterator[slice]:
    """Images 0..count - 1, some at a time: so many that `samples` decodes of each stay within memory."""
    size = min(BATCH, max(1, vae.images_at_once // samples))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def places(batch: slice) -> np.ndarray:
    """The places of a batch's images within the call: what their noise depends on, `[B]` int32."""
    return np.arange(batch.start, batch.stop, dtype=np.int32)
