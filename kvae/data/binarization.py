"""uint8 pixels to the float32 that a model sees. One function, for training and evaluation alike."""

from typing import Any

from kvae.internal.tensorflow import tf
from kvae.noise.keyed import Keyed
from kvae.noise.streams import Stream

KINDS = ("threshold", "stochastic", "fixed", "none")


def binarize(
    kind: str, images: tf.Tensor, index: Any, *, seed: int, epoch: Any = 0, threshold: float = 0.5
) -> tf.Tensor:
    """Turns grey bytes into model input.

    - `threshold`: 1 where the grey value (0..1) is above the threshold.
    - `stochastic`: 1 with the grey value as probability, drawn anew every epoch; Salakhutdinov and Murray, "On the
      quantitative analysis of deep belief networks" (2008).
    - `fixed`: the same, drawn once: epoch 0 for ever.
    - `none`: the grey value itself.

    Args:
        kind: one of `KINDS`.
        images: `[B, H, W, C]` uint8.
        index: place of every image in its split, `[B]`: a pixel's draw is a function of (seed, epoch, index, pixel)
            and so the same in every order and batch size.
        seed: of the draws.
        epoch: scalar.
        threshold: in [0, 1).

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
