"""A warning for a decoder whose last activation keeps the pixels from black or white.

The likelihoods of kvae apply a sigmoid to what a decoder returns. If its last layer has one as well, the means of the
pixels stay between sigmoid(0) = 0.5 and sigmoid(1) = 0.73, and the model trains to grey without an error.
"""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from kvae.internal.errors import KvaeWarning
from kvae.internal.tensorflow import keras, tf
from kvae.model import networks

FAR = 50.0  # of which every activation is at the end of its range in float32, or far from 0
PROBES = 64  # number of z with which a decoder is tried that does not show its layers
MISSED = 0.1  # share of the support at an end, in which no mean may lie
# Layers and operations that return the numbers that they receive; known by name because Keras has most of them twice.
MOVING = {"Reshape", "Flatten", "Permute", "Transpose", "Identity", "Dropout", "Squeeze", "ExpandDims"}
MOVING |= {"Cropping1D", "Cropping2D", "Cropping3D", "GetItem"}


class _Range(NamedTuple):
    cause: str  # in words, for the message
    low: float
    high: float


def warn_of_range(
    decoder: Any, likelihood: Any, latent_dim: int, image_shape: tuple[int, ...], condition_shape: Any = None
) -> None:
    """Warns if the range of a decoder's output excludes means of a pixel that its likelihood could have.

    Args:
        decoder: a decoder that takes z `[B, D]`.
        likelihood: the likelihood of the model, built.
        latent_dim: latent size, D.
        image_shape: shape of one image.
        condition_shape: shape of the condition of one image, or None.

    Warns:
        KvaeWarning: if no pixel can have a mean in the lowest or the highest tenth of the likelihood's support.
    """
    low, high = likelihood.support[:2]
    ours = type(decoder) in (networks.MLPDecoder, networks.ConvDecoder, networks.ResidualDecoder)  # they end linearly
    if ours or not (math.isfinite(low) and math.isfinite(high)):
        return
    activation = getattr(_last_operation(decoder), "activation", None)
    if callable(activation):
        output = _range_of_activation(activation)
    else:
        output = _range_of_probes(decoder, latent_dim, condition_shape)
    if output is None:
        return
    ends = [min(max(end, -FAR), FAR) for end in output[1:]]
    shape = (1, *likelihood.parameters_shape(image_shape))
    means = [np.asarray(likelihood.mean(tf.fill(shape, tf.constant(end, tf.float32)))) for end in ends]
    darkest, brightest = float(np.min(means)), float(np.max(means))
    margin = MISSED * (high - low)
    if darkest > low + margin or brightest < high - margin:
        text = (
            f"The decoder {output.cause}. The likelihood {type(likelihood).__name__} takes numbers from -inf to inf, "
            f"but with this decoder the mean of every pixel stays between {darkest:.3g} and {brightest:.3g}. Remove "
            "the last activation from the decoder."
        )
        warnings.warn(text, KvaeWarning, stacklevel=2)


def _last_operation(network: Any) -> Any:
    """The layer or operation that computes the output of a Sequential or functional model; None for other networks."""
    if not isinstance(network, keras.Sequential) and not hasattr(network, "operations"):
        return None
    steps = network.layers if isinstance(network, keras.Sequential) else network.operations
    last = next((step for step in reversed(steps) if type(step).__name__ not in MOVING), None)
    return _last_operation(last) or last


def _range_of_activation(activation: Any) -> _Range | None:
    """The range of an activation; None if it has no ends. A number beyond 20 counts as infinite."""
    values = np.asarray(activation(tf.linspace(-FAR, FAR, 401)[tf.newaxis]))
    low, high = float(values.min()), float(values.max())
    low, high = -math.inf if low < -20 else low, math.inf if high > 20 else high
    name = getattr(activation, "__name__", type(activation).__name__)
    return None if math.isinf(low) and math.isinf(high) else _Range(f"ends in the activation {name}", low, high)


def _range_of_probes(decoder: Any, latent_dim: int, condition_shape: Any) -> _Range | None:
    """The range of what a decoder returns for random z, if it has one sign only."""
    z = np.random.default_rng(0).normal(0.0, 3.0, (PROBES, latent_dim)).astype(np.float32)
    condition = None if condition_shape is None else tf.zeros((PROBES, *condition_shape))
    values = np.asarray(tf.cast(networks.call(decoder, tf.constant(z), condition), tf.float32))
    if values.min() == values.max() or values.min() < 0 < values.max():
        return None
    sign = "negative" if values.min() >= 0 else "positive"
    if values.min() >= 0 and values.max() <= 1:
        return _Range("returns numbers between 0 and 1 only, as after a sigmoid", 0.0, 1.0)
    low, high = (0.0, math.inf) if sign == "negative" else (-math.inf, 0.0)
    return _Range(f"returns no {sign} number for {PROBES} random z", low, high)
