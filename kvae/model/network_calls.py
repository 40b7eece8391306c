"""What a network returns when a model is built, and clear errors for networks that do not fit the model.

A network is called with symbolic tensors (`keras.KerasTensor`), which have a shape and no numbers.
"""

import re
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.tensorflow import keras, tf
from kvae.model import networks

AROUND = ("Exception encountered when calling", "Could not automatically infer")  # what Keras writes before a reason


def parameters_of_q(encoder: Any, image_shape: tuple[int, ...], condition: Any, wanted: str) -> tuple[int, ...]:
    """The widths of the tensors that an encoder returns.

    Args:
        encoder: any Keras model for x `[B, *image]`.
        image_shape: shape of one image.
        condition: symbolic condition, `[B, ...]`, or None.
        wanted: what the posterior needs, in words.

    Raises:
        UserError: if the encoder does not take such images, or does not return tensors `[B, width]`.
    """
    emitted = _emitted("encoder", encoder, "x", image_shape, condition)
    several = emitted if isinstance(emitted, list | tuple) else (emitted,)
    if not all(isinstance(tensor, keras.KerasTensor) for tensor in several):
        raise UserError(
            f"Expected the encoder to return {wanted}, as a tensor or a tuple of tensors. Received "
            f"{_describe(emitted)}."
        )
    shapes = [tuple(tensor.shape) for tensor in several]
    if any(len(shape) != 2 for shape in shapes):
        raise UserError(f"Expected the encoder to return {wanted}. Received shapes {shapes}.")
    return tuple(shape[1] for shape in shapes)


def check_decoder(
    decoder: Any, latent_dim: int, condition: Any, image_shape: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    """Checks what a decoder takes and returns.

    Args:
        decoder: any Keras model for z `[B, D]`.
        latent_dim: latent size, D.
        condition: symbolic condition, `[B, ...]`, or None.
        image_shape: shape of one image.
        wanted: shape of what the likelihood needs for one image.

    Raises:
        UserError: if the decoder does not take such z, or does not return one tensor `[B, *wanted]`.
    """
    emitted = _emitted("decoder", decoder, "z", (latent_dim,), condition)
    fits = isinstance(emitted, keras.KerasTensor) and tuple(emitted.shape[1:]) == wanted
    if not fits:
        output = "logits" if wanted == image_shape else "parameters of p(x|z)"
        raise UserError(
            f"Expected the decoder to return {output} [B, {join(wanted)}] for images [B, {join(image_shape)}]. "
            f"Received {_describe(emitted)}."
        )


def _emitted(name: str, network: Any, of: str, shape: tuple[int, ...], condition: Any) -> Any:
    """What a network returns for symbolic inputs `[B, *shape]`."""
    try:
        return networks.call(network, keras.KerasTensor((None, *shape)), condition)
    except UserError:
        raise
    except (ValueError, TypeError, tf.errors.OpError) as error:
        size = "the latent size of the encoder" if name == "decoder" else "the shape of the images"
        made_for = _made_for(network)
        if made_for is not None and made_for != shape:
            received = f"one that was made for {of} [B, {join(made_for)}]"
        else:
            received = f"an error from it: {_reason(error)}"
        text = f"Expected the {name} to take {of} [B, {join(shape)}], {size}. Received {received}"
        raise UserError(text if text.endswith(".") else f"{text}.") from error


def _made_for(network: Any) -> tuple[int, ...] | None:
    """The shape of one input for which a network was built, or None if it is not known."""
    shape = getattr(network, "input_shape", None)
    if shape is None and network.built:
        shape = (network.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, tuple | list) or any(side is not None and not isinstance(side, int) for side in shape):
        return None  # of several inputs
    return tuple(shape[1:])


def _describe(emitted: Any) -> str:
    """What a network returned, in words."""
    if isinstance(emitted, keras.KerasTensor):
        return str(tuple(emitted.shape))
    if isinstance(emitted, dict):
        return f"a dict with the keys {', '.join(map(str, emitted))}"
    if isinstance(emitted, list | tuple):
        return f"a {type(emitted).__name__} of {', '.join(type(part).__name__ for part in emitted)}"
    return f"an object of type {type(emitted).__name__}"


def _reason(error: Exception) -> str:
    """The line of a message of Keras that gives the reason, without its colours."""
    lines = [re.sub(r"\x1b\[\d+m", "", line).strip() for line in str(error).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(AROUND)]
    return reasons[0] if reasons else type(error).__name__


def join(shape: Any) -> str:
    """A shape as in messages: 28, 28, 1."""
    return ", ".join(str(side) for side in shape)
