"""The web page of a bundle: its decoder, which NumPy runs with the weights that are in the page."""

import base64
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from kvae.internal import reading
from kvae.internal.errors import UserError
from kvae.internal.visible import shown
from kvae.noise.portable import Portable
from kvae.noise.streams import Stream
from kvae.runtime import plain_network, plain_prior
from kvae.runtime.decoder import Decoder

VARIANTS = {  # for each variant, its file in a bundle
    "web_int8": "web/index.html",
    "web_float32": "web/index_float32.html",
}
VERSION = 1  # of the data in a page
LARGEST = 2**29  # bytes of a page
MOST = 2**24  # numbers that one layer may return for one image
TYPES = ("float32", "int32", "uint16", "uint8", "int8")  # of arrays in a page
LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "squared_error")
DATA = re.compile(
    r'<script type="application/json" id="model">(.*?)</script>\s*<script type="text/plain" id="arrays">(.*?)</script>',
    re.DOTALL,
)


def holds(path: Path) -> bool:
    """Whether a path is taken for a web page."""
    return path.is_file() and path.suffix == ".html"


class WebDecoder(Decoder):
    """The decoder in the web page of a bundle, with the weights of the page, such as int8.

    The browser computes the same functions of the same weights. Its sums have another order, so that the means can
    differ by rounding.

    Args:
        path: the path of the page.
        threads: not used. NumPy determines the number of threads.

    Raises:
        UserError: if the page cannot be read, is damaged, or is not one that kvae exported.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        found = DATA.search(reading.read_text(path, LARGEST))
        if found is None:
            raise UserError(f"Expected a web page that kvae exported. Received {path}, which has no decoder.")
        try:
            description = json.loads(found[1])
            content = base64.b64decode(found[2], validate=True)
            if description["format"] != VERSION:
                raise ValueError(f"it has the format {shown(description['format'])}, and this version reads {VERSION}")
            self.latent_dim = int(description["latent_dim"])
            self.image_shape = tuple(map(int, description["image_shape"]))
            self._set_classes(description.get("classes"))
            self._likelihood = description["likelihood"]
            if self._likelihood["name"] not in LIKELIHOODS or not float(self._likelihood.get("variance", 1.0)) > 0:
                raise ValueError("its likelihood is not known")
            self._layers = [_opened(layer, content) for layer in description["decoder"]]
            self._prior = _opened_prior(description.get("prior"), content)
            self._check_sides()
            plain_prior.check(self._prior, self.latent_dim)
            self.sample([0], None if self.condition_shape is None else 0)
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} is damaged, or is not a web page that kvae exported: {error}.") from error

    def _set_classes(self, classes: Any) -> None:
        """Takes over the classes of a conditional model: their number and, if they are known, their names."""
        if classes is None:
            return
        self.condition_shape = (int(classes["count"]),)
        if not 0 < self.condition_shape[0] <= MOST:
            raise ValueError("its number of classes is not possible")
        self.with_class_names(classes["names"])

    def _check_sides(self) -> None:
        """Raises `ValueError` if a layer does not take what the one before it returns, or returns too much."""
        size = self.latent_dim
        for layer in self._layers:
            given, made = (math.prod(layer[name]) for name in ("input", "output"))
            if given != size or not 0 < made <= MOST:
                raise ValueError(f"its layer {shown(layer['kind'])} does not fit")
            if layer["kind"] == plain_network.JOIN:
                given += math.prod(self.condition_shape or (0,))
                if made != given:
                    raise ValueError("its condition does not fit")
            if "strides" in layer:
                _check_strides(layer)
            size = made
        if size != math.prod(self.image_shape):
            raise ValueError("its last layer returns no image")

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        condition = inputs.get("condition")
        if name == "decode":
            parameters = self._parameters(inputs["z"], condition)
            return {"means": self._means(parameters), "logits": parameters}
        noise = Portable(inputs["seed"])
        z = plain_prior.draw(self._prior, noise, self.latent_dim)
        parameters = self._parameters(z, condition)
        means = self._means(parameters)
        images = np.rint(np.clip(self._draws(parameters, means, noise), 0, 1) * np.float32(255)).astype(np.uint8)
        return {"images": images, "means": means, "z": z}

    def _parameters(self, z: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
        with np.errstate(all="ignore"):  # what is not finite is refused afterwards
            return plain_network.run(self._layers, z, condition).reshape(len(z), *self.image_shape)

    def _means(self, logits: np.ndarray) -> np.ndarray:
        """E[x|z], as `kvae.model.likelihoods` has it."""
        if self._likelihood["name"] != "continuous_bernoulli":
            return plain_network.ACTIVATIONS["sigmoid"](logits)
        small = np.abs(logits) < 0.2
        safe = np.where(small, np.float32(1), logits)
        with np.errstate(over="ignore"):
            return np.where(small, 0.5 + logits / 12 - logits**3 / 720, -1 / np.expm1(-safe) - 1 / safe)

    def _draws(self, logits: np.ndarray, means: np.ndarray, noise: Portable) -> np.ndarray:
        """x ~ p(x|z), as `kvae.model.likelihoods` draws it."""
        name = self._likelihood["name"]
        if name in ("gaussian", "squared_error"):
            deviation = np.float32(math.sqrt(self._likelihood["variance"]))
            return means + deviation * noise.normal(self.image_shape, Stream.PIXELS)
        numbers = noise.uniform(self.image_shape, Stream.PIXELS)
        if name == "bernoulli":
            return (numbers < means).astype(np.float32)
        size = np.maximum(np.abs(logits), np.float32(0.05))
        mirrored = np.where(logits > 0, 1 - numbers, numbers)
        x = -np.log1p(mirrored * np.expm1(-size)) / size
        scaled = numbers * (1 - numbers) * logits
        series = numbers + scaled * (0.5 + (1 - 2 * numbers) * logits / 6)
        return np.where(np.abs(logits) < 0.05, series, np.where(logits > 0, 1 - x, x))


def array_of(facts: dict[str, Any], content: bytes) -> np.ndarray:
    """An array of a page.

    Args:
        facts: its `type`, `shape`, its place `at` in bytes, and for int8 weights the array of the `scales` by which
            the weights of each output are multiplied.
        content: the arrays of the page.

    Raises:
        ValueError: if the array is not within the content.
    """
    if facts["type"] not in TYPES or not all(isinstance(side, int) and side > 0 for side in facts["shape"]):
        raise ValueError("it has an array of another type or shape")
    count, kind = math.prod(facts["shape"]), np.dtype(facts["type"]).newbyteorder("<")
    if not 0 <= facts["at"] <= len(content) - count * kind.itemsize:
        raise ValueError("one of its arrays is cut off")
    values = np.frombuffer(content, kind, count, facts["at"]).reshape(facts["shape"])
    if "scales" in facts:
        values = values * array_of(facts["scales"], content)[:, None]
    return values


def _check_strides(layer: dict[str, Any]) -> None:
    """Raises `ValueError` if a convolution would see far more pixels than its input or output has."""
    small, large = ("output", "input") if layer["kind"] == "convolution" else ("input", "output")
    places = zip(layer["strides"], layer["kernel"].shape[:2], layer["before"], strict=True)
    for axis, (stride, size, before) in enumerate(places):
        seen = (layer[small][axis] - 1) * stride + size
        if not (stride > 0 and 0 <= before <= size and seen <= layer[large][axis] + size + stride):
            raise ValueError("the strides of a convolution do not fit")


def _opened_prior(facts: dict[str, Any] | None, content: bytes) -> dict[str, Any]:
    """A prior with its arrays; a page without one has the standard normal."""
    if facts is None:
        return {"kind": "standard_normal"}
    arrays: dict[str, Any] = {
        name: array_of(facts[name], content) for name in ("ends", "means", "deviations") if name in facts
    }
    couplings = [
        {**coupling, "layers": [_opened(layer, content) for layer in coupling["layers"]]}
        for coupling in facts.get("couplings", [])
    ]
    return {**facts, **arrays, "couplings": couplings}


def _opened(layer: dict[str, Any], content: bytes) -> dict[str, Any]:
    """A layer with its arrays."""
    if (
        layer["kind"] not in (*plain_network.KINDS, plain_network.JOIN)
        or layer.get("activation", "linear") not in plain_network.ACTIVATIONS
    ):
        raise ValueError(f"its layer {shown(layer['kind'])} is not known")
    arrays: dict[str, Any] = {
        name: array_of(layer[name], content) for name in ("kernel", "bias", "factor", "offset") if name in layer
    }
    return {**layer, **arrays}
