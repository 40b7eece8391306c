"""Keras layers as the layers of kvae's web page, and their weights as arrays of the page."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kvae.export import quantization
from kvae.internal.tensorflow import keras
from kvae.model.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from kvae.runtime import plain_network

JOIN = object()  # stands among the layers of a network where the condition is appended to what it has computed
SKIPPED = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.GaussianNoise)  # they do nothing after training


class Arrays:
    """All arrays of a page, one after another, each at a multiple of 4 bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: Any, kind: str = "float32") -> dict[str, Any]:
        """Adds an array; returns what the page needs to find it."""
        array = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
        content = array.tobytes()
        content += bytes(-len(content) % 4)
        self._parts.append(content)
        self._size += len(content)
        return {"type": kind, "shape": list(array.shape), "at": self._size - len(content)}

    def content(self) -> bytes:
        return b"".join(self._parts)


def unknown_layers(network: Any) -> list[str]:
    """What the page cannot compute of a decoder: names of layers, each once, with an option if that is not known."""
    layers = layers_of(network)
    if layers is None:
        return [type(network).__name__]
    return list(dict.fromkeys(name for layer in layers if (name := _unknown(layer)) is not None))


def layers_of(network: Any) -> list[Any] | None:
    """The layers of a network that calls them one after another, or None if it is of another kind."""
    if type(network) is MLPDecoder:
        return [*_join(network), *network.hidden, network.head, network.reshape]
    if type(network) is ConvDecoder:
        split = [network.split] if network.numbers_per_pixel > 1 else []
        dense = [*_join(network), network.dense, network.stem, network.reshape]
        return [*dense, *network.convolutions, network.head, network.crop, *split]
    if type(network) is keras.Sequential:
        return list(_flat(network))
    return None


def encoder_layers(network: Any) -> list[Any] | None:
    """The layers of one of kvae's encoders up to its two heads, or None if it is another or has other heads."""
    if type(network) not in (MLPEncoder, ConvEncoder) or network.sizes is not None:
        return None
    if type(network) is MLPEncoder:
        layers = [network.flatten, *_join(network), *network.hidden]
    else:
        layers = [*network.convolutions, network.flatten, *_join(network), network.dense]
    return None if any(map(_unknown, [*layers, network.mean_head, network.scale_head])) else layers


def _join(network: Any) -> list[Any]:
    return [] if network.condition_shape is None else [JOIN]


def encoder(
    network_: Any, image_shape: tuple[int, ...], arrays: Arrays, int8: bool, condition: np.ndarray | None = None
) -> dict[str, Any] | None:
    """An encoder for the page, or None if the page does not know it.

    Its int8 weights are rounded to the nearest, because it only proposes places, and the page weights them.

    Args:
        network_: the encoder.
        image_shape: the shape of an image.
        arrays: as in `network`.
        int8: as in `network`.
        condition: one condition `[1, C]`, or None.
    """
    layers = encoder_layers(network_)
    if layers is None:
        return None
    body = network(layers, np.zeros((1, *image_shape), np.float32), arrays, int8, condition)
    hidden = np.zeros((1, *body[-1]["output"]), np.float32)
    mean, scale = (network([head], hidden, arrays, int8) for head in (network_.mean_head, network_.scale_head))
    return {"body": body, "mean": mean, "scale": scale, "log_sigma": network_.scale == "log_sigma"}


def network(
    layers: list[Any], x: np.ndarray, arrays: Arrays, int8: bool, condition: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """A network for the page.

    Args:
        layers: Keras layers that are called one after another, and `JOIN`.
        x: examples of their inputs, `[n, ...]`, from which the rounding of int8 weights is determined. With one
            example, these are rounded to the nearest.
        arrays: the arrays of the page, to which the weights are added.
        int8: whether large dense layers get int8 weights.
        condition: the condition of each example, `[n, C]` float32, for layers with `JOIN`.

    Returns:
        The layers, as `kvae.runtime.plain_network` and the page run them.
    """
    layers = [layer for layer in layers if not isinstance(layer, SKIPPED)]
    last = max((place for place, layer in enumerate(layers) if int8 and _is_large(layer)), default=-1)
    described = []
    for place, layer in enumerate(layers):
        if place > last:
            x = x[:1]  # only sides are needed
        facts = {"input": list(x.shape[1:]), **_facts(layer, x, arrays, int8)}
        if layer is JOIN:
            x = np.concatenate([x, condition[: len(x)]], axis=1)  # type: ignore[index]  # a model with it has a condition
        else:
            x = np.concatenate([np.asarray(layer(x[i : i + 256], training=False)) for i in range(0, len(x), 256)])
        described.append({**facts, "output": list(x.shape[1:])})
    return described


def _flat(network: Any) -> Iterator[Any]:
    for layer in network.layers:
        if type(layer) is keras.Sequential:
            yield from _flat(layer)
        else:
            yield layer


def _unknown(layer: Any) -> str | None:
    """The name of a layer that the page does not know, or None if it knows the layer."""
    if layer is JOIN or isinstance(layer, SKIPPED):
        return None
    name, checks = type(layer).__name__, KNOWN.get(type(layer))
    if checks is None or getattr(layer, "quantization_mode", None) is not None:
        return name if checks is None else f"{name} in {layer.quantization_mode}"
    for option, expected in checks.items():
        value = getattr(layer, option)
        if (tuple(value) if isinstance(value, list) else value) not in expected:
            return f"{name} with {option} {value!r}"
    if hasattr(layer, "activation") and _activation(layer.activation) is None:
        return f"{name} with activation {getattr(layer.activation, '__name__', type(layer.activation).__name__)}"
    return None


def _activation(function: Any) -> str | None:
    """The name of an activation that the page knows, or None."""
    return next((name for name in plain_network.ACTIVATIONS if getattr(keras.activations, name) is function), None)


# The layers that the page knows, with the values that some of their options must have.
CONVOLUTION = {
    "data_format": ("channels_last",),
    "dilation_rate": ((1, 1), 1),
    "padding": ("same", "valid"),
}
KNOWN: dict[type, dict[str, tuple]] = {
    keras.layers.Dense: {},
    keras.layers.Conv2D: {**CONVOLUTION, "groups": (1,)},
    keras.layers.Conv2DTranspose: {**CONVOLUTION, "output_padding": (None,)},
    keras.layers.Reshape: {},
    keras.layers.Flatten: {"data_format": ("channels_last",)},
    keras.layers.Cropping2D: {"data_format": ("channels_last",)},
    keras.layers.UpSampling2D: {"data_format": ("channels_last",), "interpolation": ("nearest",)},
    keras.layers.BatchNormalization: {"axis": (-1,)},
    keras.layers.Activation: {},
    keras.layers.ReLU: {"max_value": (None,), "negative_slope": (0.0,), "threshold": (0.0,)},
    keras.layers.LeakyReLU: {},
}


def _facts(layer: Any, x: np.ndarray, arrays: Arrays, int8: bool) -> dict[str, Any]:
    """The kind of a layer, with its options and weights."""
    if layer is JOIN:
        return {"kind": plain_network.JOIN}
    if isinstance(layer, keras.layers.Dense):
        return {"kind": "dense", **_dense(layer, x, arrays, int8), "activation": _activation(layer.activation)}
    if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
        return {**_convolution(layer, x, arrays), "activation": _activation(layer.activation)}
    if isinstance(layer, keras.layers.Cropping2D):
        (top, bottom), (left, right) = layer.cropping
        return {"kind": "crop", "top": top, "bottom": bottom, "left": left, "right": right}
    if isinstance(layer, keras.layers.UpSampling2D):
        return {"kind": "upsample"}
    if isinstance(layer, keras.layers.BatchNormalization):
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        factor = 1 / np.sqrt(variance + layer.epsilon) * (np.asarray(layer.gamma) if layer.scale else 1)
        offset = -mean * factor + (np.asarray(layer.beta) if layer.center else 0)
        return {"kind": "scale", "factor": arrays.add(factor), "offset": arrays.add(offset)}
    if isinstance(layer, keras.layers.LeakyReLU):
        return {"kind": "activation", "activation": "leaky_relu", "slope": float(layer.negative_slope)}
    if isinstance(layer, keras.layers.ReLU):
        return {"kind": "activation", "activation": "relu"}
    if isinstance(layer, keras.layers.Activation):
        return {"kind": "activation", "activation": _activation(layer.activation)}
    return {"kind": "reshape"}


def _is_large(layer: Any) -> bool:
    """Whether a layer gets int8 weights, if the page has any."""
    if not isinstance(layer, keras.layers.Dense):
        return False
    inputs, outputs = layer.kernel.shape
    return inputs * outputs >= quantization.LEAST_QUANTIZED and inputs >= quantization.LEAST_INPUTS


def _dense(layer: Any, x: np.ndarray, arrays: Arrays, int8: bool) -> dict[str, Any]:
    """The weights of a dense layer, `[outputs, inputs]`; as int8, they are rounded as those of the .tflite file."""
    kernel = np.asarray(layer.kernel, np.float32).T
    bias = np.asarray(layer.bias, np.float32) if layer.use_bias else None
    if int8 and _is_large(layer):
        scales = (np.abs(kernel).max(axis=1) / 127).astype(np.float32)
        if len(x) > 1:
            kernel, bias = quantization.rounded(kernel, bias, scales, x.reshape(-1, kernel.shape[1]))
        else:
            kernel = np.rint(kernel / np.where(scales > 0, scales, 1)[:, None])
        weights = {"kernel": {**arrays.add(kernel, "int8"), "scales": arrays.add(scales)}}
    else:
        weights = {"kernel": arrays.add(kernel)}
    return weights if bias is None else {**weights, "bias": arrays.add(bias)}


def _convolution(layer: Any, x: np.ndarray, arrays: Arrays) -> dict[str, Any]:
    """A convolution or a transposed one; its kernel as `[rows, columns, inputs, outputs]`.

    `before` is the number of rows and columns of padding before the image, of which TensorFlow puts the smaller half
    there; for a transposed convolution, those that are cut off before the output.
    """
    kernel = np.asarray(layer.kernel, np.float32)
    transposed = isinstance(layer, keras.layers.Conv2DTranspose)
    before = []
    for side, size, stride in zip(x.shape[1:3], layer.kernel_size, layer.strides, strict=True):
        missing = size - stride if transposed else (math.ceil(side / stride) - 1) * stride + size - side
        before.append(max(missing, 0) // 2 if layer.padding == "same" else 0)
    return {
        "kind": "transposed_convolution" if transposed else "convolution",
        "strides": list(layer.strides),
        "before": before,
        "kernel": arrays.add(kernel.swapaxes(2, 3) if transposed else kernel),
        **({"bias": arrays.add(np.asarray(layer.bias))} if layer.use_bias else {}),
    }
