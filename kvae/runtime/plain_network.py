"""The layers of kvae's web page, computed with NumPy: what `kvae/web/runtime.js` computes in the browser.

A network is a list of layers. A layer is a dictionary with its `kind`, the sides of its `input` and `output`, and, as
arrays, its `kernel`, `bias`, `factor` and `offset`. `kvae.export.web_network` makes them from Keras layers. In the
network of a conditional model, a layer of the kind `JOIN` appends the condition to its input.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Layer = Mapping[str, Any]
JOIN = "join"


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # the exponential is then infinite, and the result 0
        return np.float32(1) / (np.float32(1) + np.exp(-x))


def _leaky_relu(x: np.ndarray, slope: float = 0.2) -> np.ndarray:
    return np.where(x < 0, np.float32(slope) * x, x)


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, np.expm1(np.minimum(x, 0)), x)


def _selu(x: np.ndarray) -> np.ndarray:
    scale, alpha = np.float32(1.0507009873554805), np.float32(1.6732632423543772)
    return scale * np.where(x < 0, alpha * _elu(x), x)


ACTIVATIONS: dict[str, Callable[..., np.ndarray]] = {  # the names are those of Keras
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "softplus": lambda x: np.logaddexp(x, np.float32(0)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
}


def run(layers: Iterable[Layer], x: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
    """The output of a network.

    Args:
        layers: its layers.
        x: its inputs, `[n, ...]` float32.
        condition: condition per input, `[n, C]` float32, for a network with a layer that appends it.

    Returns:
        `[n, *sides]` float32, with the output sides of the last layer.
    """
    for layer in layers:
        x = x.reshape(len(x), *layer["input"])
        x = np.concatenate([x, condition], axis=1) if layer["kind"] == JOIN else KINDS[layer["kind"]](x, layer)
        further = {"slope": layer["slope"]} if "slope" in layer else {}
        x = ACTIVATIONS[layer.get("activation", "linear")](x, **further).reshape(len(x), *layer["output"])
    return x


def _dense(x: np.ndarray, layer: Layer) -> np.ndarray:
    return x @ layer["kernel"].T + layer.get("bias", np.float32(0))


def _convolution(x: np.ndarray, layer: Layer) -> np.ndarray:
    """A sum over the places of the kernel: what the pixels at this place of all windows add to their outputs."""
    kernel, (height, width, channels) = layer["kernel"], layer["output"]
    (down, across), (top, left) = layer["strides"], layer["before"]
    rows, columns = kernel.shape[:2]
    needed = ((height - 1) * down + rows, (width - 1) * across + columns)
    padded = np.zeros((len(x), *needed, x.shape[-1]), np.float32)
    used = x[:, : needed[0] - top, : needed[1] - left]
    padded[:, top : top + used.shape[1], left : left + used.shape[2]] = used
    y = np.zeros((len(x), height, width, channels), np.float32)
    for r in range(rows):
        for c in range(columns):
            seen = padded[:, r : r + (height - 1) * down + 1 : down, c : c + (width - 1) * across + 1 : across]
            y += seen @ kernel[r, c]
    return y + layer.get("bias", np.float32(0))


def _transposed_convolution(x: np.ndarray, layer: Layer) -> np.ndarray:
    """Every input pixel adds its products with the kernel to the output pixels around it."""
    kernel, (height, width, channels) = layer["kernel"], layer["output"]
    (down, across), (top, left) = layer["strides"], layer["before"]
    rows, columns = kernel.shape[:2]
    last = ((x.shape[1] - 1) * down, (x.shape[2] - 1) * across)
    sides = np.maximum([last[0] + rows, last[1] + columns], [top + height, left + width])
    canvas = np.zeros((len(x), *sides, channels), np.float32)
    for r in range(rows):
        for c in range(columns):
            canvas[:, r : r + last[0] + 1 : down, c : c + last[1] + 1 : across] += x @ kernel[r, c]
    return canvas[:, top : top + height, left : left + width] + layer.get("bias", np.float32(0))


def _crop(x: np.ndarray, layer: Layer) -> np.ndarray:
    height, width, _ = layer["output"]
    return x[:, layer["top"] : layer["top"] + height, layer["left"] : layer["left"] + width]


def _upsample(x: np.ndarray, layer: Layer) -> np.ndarray:
    down, across = (layer["output"][axis] // layer["input"][axis] for axis in (0, 1))
    return x.repeat(down, axis=1).repeat(across, axis=2)


KINDS: dict[str, Callable[[np.ndarray, Layer], np.ndarray]] = {
    "dense": _dense,
    "convolution": _convolution,
    "transposed_convolution": _transposed_convolution,
    "reshape": lambda x, layer: x,
    "crop": _crop,
    "upsample": _upsample,
    "scale": lambda x, layer: x * layer["factor"] + layer["offset"],  # batch normalization after the training
    "activation": lambda x, layer: x,
}
