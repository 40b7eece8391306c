"""What a model card states of the inputs and outputs of each signature, for programs and for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvae.export.endpoints import DECODER

INT32 = (-(2**31), 2**31 - 1)
CHANNELS = {1: "grey", 3: "RGB"}
SIGMOID = "the means before the sigmoid: mean = 1 / (1 + exp(-logit))"
LOGITS = {  # for each likelihood, what its logits are
    "bernoulli": SIGMOID,
    "gaussian": SIGMOID,
    "squared_error": SIGMOID,
    "laplace": SIGMOID,
    "student_t": SIGMOID,
    "continuous_bernoulli": "the parameters of p(x|z): mean = 1 / (1 - exp(-logit)) - 1 / logit",
}


def interface(
    names: Iterable[str],
    *,
    latent_dim: int,
    image_shape: Sequence[int],
    condition_shape: Sequence[int] | None,
    decoded: str,
    decoded_shape: Sequence[int],
    likelihood: Any,
) -> dict[str, Any]:
    """The inputs and outputs of signatures.

    Each has a `name`, a `dtype`, a `shape` in which "n" is any number of images, the names of its `axes`, the `range`
    of its values, None for any number, and a `meaning`. Images also have `channels`: grey, RGB, or None for others.

    Args:
        names: the names of the signatures, e.g. `decode` and `sample_64`.
        latent_dim: the size of the latent space.
        image_shape: the shape of one image.
        condition_shape: the shape of the condition of one image, or None if the model takes no condition.
        decoded: the name of the second output of `decode`.
        decoded_shape: its shape for one image.
        likelihood: the name of the likelihood.
    """
    likelihood = str(likelihood)
    axes = ["y", "x", "channel"][: len(image_shape)] if len(image_shape) in (2, 3) else _numbered(image_shape)
    channels = CHANNELS.get((*image_shape, 1)[2]) if axes[0] == "y" else None
    decoded_axes = [*axes, *_numbered(decoded_shape[len(image_shape) :])]
    parameters = f"the parameters of p(x|z), {likelihood}"
    parameters = LOGITS.get(likelihood, parameters) if decoded == "logits" else parameters
    draw = "a draw of p(x|z)" + (", in which each value is 0 or 255" if likelihood == "bernoulli" else "")
    z, drawn_z = (
        _tensor("z", "float32", [latent_dim], ["latent dimension"], None, words)
        for words in ("latent points; those of new images are drawn from p(z)", "the latent points of the images")
    )
    seed = _tensor("seed", "int32", [], [], INT32, "any whole numbers; one seed gives one image")
    means = _tensor("means", "float32", image_shape, axes, (0, 1), "the expected value of each pixel, E[x|z]")
    images = _tensor("images", "uint8", image_shape, axes, (0, 255), draw)
    outputs = _tensor(decoded, "float32", decoded_shape, decoded_axes, None, parameters)
    condition = []
    if condition_shape is not None:
        meaning = "what the images are conditioned on, in the form in which the model was trained with it"
        condition = [_tensor("condition", "float32", condition_shape, _numbered(condition_shape), None, meaning)]
    means, images = ({**each, "channels": channels} for each in (means, images))
    functions = {
        "decode": {"inputs": [z, *condition], "outputs": [means, outputs]},
        "sample": {"inputs": [seed, *condition], "outputs": [images, means, drawn_z]},
    }
    split = {name: name.partition("_") for name in names}
    return {name: _sized(functions[function], size) for name, (function, _, size) in split.items()}


def names_of(variants: Mapping[str, Any]) -> list[str]:
    """The signatures of the variants of a card that decode or draw images, each once."""
    several = [variant.get("signatures", DECODER) for variant in variants.values()]
    names = [name for each in several if isinstance(each, list | tuple) for name in each if isinstance(name, str)]
    parts = {name: name.partition("_") for name in names}
    return [
        name for name, (function, _, size) in parts.items() if function in DECODER and size.isdecimal() == bool(size)
    ]


def _sized(function: Mapping[str, Any], size: str) -> dict[str, Any]:
    """A function for a number of images, any if it is empty."""
    count = int(size) if size else "n"
    return {side: [{**each, "shape": [count, *each["shape"]]} for each in function[side]] for side in function}


def _tensor(
    name: str, dtype: str, shape: Sequence[int], axes: Sequence[str], values: Sequence[int] | None, meaning: str
) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": dtype,
        "shape": list(shape),
        "axes": ["n", *axes],
        "range": None if values is None else list(values),
        "meaning": meaning,
    }


def _numbered(shape: Sequence[int]) -> list[str]:
    return [f"number {place}" for place in range(1, len(shape) + 1)]
