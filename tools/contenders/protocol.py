"""The settings of a contender, and its communication with the benchmark: one line of JSON per command and answer.

A contender is a script with its own interpreter. The first line of its standard input is its `Settings`. It builds the
model, trains one epoch to warm up, and answers. Each further line is a command: `epoch`, `elbo`, `weights` or `stop`.
Between commands it waits for input and uses no processor time, so that only one process works at a time. This module
needs only NumPy.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

SIDE = 28
PIXELS = SIDE * SIDE
FILTERS = (32, 64)  # of the convolutional network, from the image inwards
STEM = (7, 7, 64)  # height, width and channels between its dense layers and its convolutions
LEARNING_RATE = 1e-3
EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Settings:
    """The settings of the training, which are the same for all contenders.

    Attributes:
        network: `mlp`, 784-width-latent-width-784 with tanh, and `layers` hidden layers on each side; or
            `conv`, two convolutions and a dense layer of `width` units with ReLU, and their mirror.
        batch: the number of images per step. The last step of an epoch has the remaining images.
        latent: the size of the latent space, D.
        width: the number of units of the dense hidden layers.
        data: the path of an archive with `x_train` and `x_test`, uint8 `[N, 28, 28]`.
        weights: the path of an archive with the initial weights, as `initial_weights` makes them.
        seed: the seed of the order and of the noise.
        learning_rate: that of Adam, in the first epoch.
        decay: the factor by which the learning rate changes after each epoch. Only PyTorch knows another than 1.
        layers: the number of hidden layers on each side of the `mlp`.
        binarize: `threshold`, at 0.5; or `stochastic`, each batch of training images is drawn anew, with the grey value
            as the probability of 1. JAX and the limit do not know the latter.
    """

    network: str
    batch: int
    latent: int
    width: int
    data: str
    weights: str
    seed: int = 0
    learning_rate: float = LEARNING_RATE
    decay: float = 1.0
    layers: int = 1
    binarize: str = "threshold"

    def images(self, part: str) -> np.ndarray:
        """The images `train` or `test`, `[N, 28, 28, 1]` float32: 0 and 1, or from 0 to 1 if they are drawn anew."""
        with np.load(self.data) as archive:
            images = archive[f"x_{part}"][..., None]
        if self.binarize == "stochastic":
            return images.astype(np.float32) / 255
        return (images > 127).astype(np.float32)

    def initial(self, part: str = "") -> dict[str, np.ndarray]:
        """The initial weights by name, of the `encoder`, the `decoder`, or both by default."""
        with np.load(self.weights) as archive:
            return {name: archive[name] for name in archive.files if name.startswith(part)}


def kernel_shapes(network: str, latent: int, width: int, layers: int = 1) -> dict[str, tuple[int, ...]]:
    """The shapes of the kernels in the order of the layers, as in Keras; `[3, 3, out, in]` if transposed."""
    first, second = FILTERS
    if network == "mlp":
        inputs = [width] * (layers - 1)
        body = {f"encoder/hidden{i}": (size, width) for i, size in enumerate([PIXELS, *inputs], 1)}
        mirror = {f"decoder/hidden{i}": (size, width) for i, size in enumerate([latent, *inputs], 1)}
        mirror["decoder/logits"] = (width, PIXELS)
    else:
        places = math.prod(STEM)
        body = {
            "encoder/conv1": (3, 3, 1, first),
            "encoder/conv2": (3, 3, first, second),
            "encoder/dense": (places, width),
        }
        mirror = {
            "decoder/dense": (latent, width),
            "decoder/stem": (width, places),
            "decoder/transposed1": (3, 3, second, second),
            "decoder/transposed2": (3, 3, first, second),
            "decoder/logits": (3, 3, first, 1),
        }
    return {**body, "encoder/mean": (width, latent), "encoder/log_var": (width, latent), **mirror}


def initial_weights(network: str, latent: int, width: int, seed: int, layers: int = 1) -> dict[str, np.ndarray]:
    """Glorot uniform kernels `<part>/<layer>/kernel` and zero biases `.../bias`, float32, by layer."""
    rng, weights = np.random.default_rng(seed), {}
    for name, shape in kernel_shapes(network, latent, width, layers).items():
        limit = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
        out = shape[-2] if "transposed" in name else shape[-1]
        weights[f"{name}/kernel"] = rng.uniform(-limit, limit, shape).astype(np.float32)
        weights[f"{name}/bias"] = np.zeros(out, np.float32)
    return weights


class Contender(Protocol):
    """The interface of a contender, which `serve` calls."""

    def epoch(self) -> int:
        """Trains on every image once in a new order, waits until this is done, and returns the number of images."""

    def elbo(self) -> float | None:
        """The mean ELBO of the test images, in nats, with one draw of z per image; None if there is no ELBO."""

    def weights(self) -> dict[str, np.ndarray]:
        """The weights of the `mlp`, with the names and the layout of `initial_weights`. JAX and kvae do not have it."""

    def objective(self) -> float | None:
        """The loss of the first batch of training images at the initial weights with z = mean, in nats."""


def peak_bytes() -> int:
    """The largest memory of this process, in bytes."""
    try:  # on Linux, ru_maxrss would include the memory of the parent at the start of this process
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def serve(make: Callable[[Settings], Contender]) -> None:
    """Answers the commands of the benchmark until it sends `stop` or ends.

    Args:
        make: a function from the settings to the contender. Call `serve` when all libraries are imported.
    """
    imported = time.time()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the output of libraries goes to standard error

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")

    def epoch() -> dict[str, float]:
        start = time.perf_counter()
        images = contender.epoch()
        return {"seconds": time.perf_counter() - start, "images": images}

    contender = make(Settings(**json.loads(sys.stdin.readline())))
    answer(imported=imported, **epoch())
    for line in iter(sys.stdin.readline, ""):
        match json.loads(line):
            case "epoch":
                answer(**epoch())
            case "elbo":
                answer(elbo=contender.elbo())
            case "weights":
                path = Path("trained.npz").resolve()
                np.savez(path, **contender.weights())
                answer(path=str(path))
            case "stop":
                answer(peak_bytes=peak_bytes(), objective=contender.objective())
                return
