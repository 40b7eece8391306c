"""The initial bias of a decoder's output layer: computed from the data, brought to the layer's shape, and saved."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kvae.internal.tensorflow import keras, tf
from kvae.model.hints import Array


def logit_of_mean(mean: Array) -> np.ndarray:
    """The output bias with which an untrained decoder predicts the training mean, if the mean is sigmoid(logits).

    This holds for Bernoulli and Gaussian likelihoods. For a continuous Bernoulli it is only close.

    Args:
        mean: mean of each pixel over the training images, in [0, 1], any shape.

    Returns:
        log(p / (1 - p)) with p = `mean` clipped to [0.001, 0.999], float32, the shape of `mean`. Without the clip, a
        constant pixel would have an infinite logit; at logits of +-7 there is almost no gradient.
    """
    p = np.clip(np.asarray(mean, np.float64), 1e-3, 1 - 1e-3)
    return (np.log(p) - np.log1p(-p)).astype(np.float32)


def per_pixel(bias: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Broadcasts one number, one number per channel or one number per pixel to `image_shape`."""
    shape = image_shape if bias.size == math.prod(image_shape) else (bias.size,)
    return np.broadcast_to(bias.reshape(shape), image_shape)


@keras.saving.register_keras_serializable("kvae")
class ConstantValues(keras.initializers.Initializer):
    """An initializer that returns given values. Keras's own `Constant` takes a single number only.

    Args:
        values: nested lists or an array, with as many numbers as the weight.
    """

    def __init__(self, values: Array) -> None:
        self.values = np.asarray(values, np.float32)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
        return tf.cast(tf.reshape(self.values, shape), dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values.tolist()}
