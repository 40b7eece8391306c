"""Conversion of uint8 pixels to the float32 input of a model, the same for training and evaluation."""

from typing import Any

from kvae.internal.tensorflow import tf
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

KINDS = ("threshold", "stochastic", "fixed", "none")


def binarize(
    kind: str, images: tf.Tensor, index: Any, *, seed: int, epoch: Any = 0, threshold: float = 0.5
) -> tf.Tensor:
    """Converts bytes to model input; a byte b has the grey value b / 255.

    - `threshold`: a pixel is 1 if its grey value is above the threshold, else 0.
    - `stochastic`: a pixel is 1 with its grey value as the probability, and is drawn again in every epoch;
      Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks" (2008).
    - `fixed`: as `stochastic`, but every epoch has the draws of epoch 0.
    - `none`: a pixel is its grey value.

    Args:
        kind: the kind of binarization, one of `KINDS`.
        images: images, `[B, H, W, C]` uint8.
        index: the index of every image in its split, `[B]`. The draw of a pixel depends only on (seed, epoch, index,
            pixel), so it is the same for every order and batch size.
        seed: the seed of the draws.
        epoch: the number of the epoch, a scalar.
        threshold: the threshold for `threshold`, in [0, 1).

    Returns:
        `[B, H, W, C]` float32 in [0, 1].
    """
    if kind == "threshold":
        return tf.cast(tf.cast(images, tf.float32) > threshold * 255, tf.float32)
    grey = tf.cast(images, tf.float32) / 255
    if kind == "none":
        return grey
    noise = Keyed(seed, Stream.BINARIZATION, 0 if kind == "fixed" else epoch, index)
    return tf.cast(noise.uniform(tuple(images.shape[1:]), Stream.PIXELS) < grey, tf.float32)
