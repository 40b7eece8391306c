"""Whether the numbers of a model are finite: a training that diverged leaves NaN or infinity in its weights."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from kvae.internal.errors import UserError

NAMED = 3  # names of weights in a message


def not_finite(variables: Iterable[Any]) -> list[str]:
    """The paths of those variables of Keras that have a value which is NaN or infinite."""
    return [variable.path for variable in variables if not np.isfinite(np.asarray(variable)).all()]


def check_weights(model: Any, what: str = "The model") -> None:
    """Refuses a model with a weight that is not finite: whatever is computed with it would mean nothing.

    The weights are those of all layers and parts, also of frozen ones, and the statistics of batch normalization.

    Args:
        model: a Keras model.
        what: the name of the model in the message. By default "The model".

    Raises:
        UserError: if a weight has NaN or infinity.
    """
    names = not_finite(model.weights)
    if names:
        raise UserError(
            f"Expected weights that are finite numbers. {what} has NaN or infinity in {listed(names)}, "
            f"{len(names)} of {len(model.weights)} weights, as after a training that diverged. Train it again, "
            "for example with a lower learning rate."
        )


def check_trained(vae: Any) -> None:
    """Refuses a model that is not built or has a weight that is not finite.

    Args:
        vae: a `kvae.VAE`.

    Raises:
        UserError: if it is such a model.
    """
    if vae.image_shape is None:
        raise UserError("Expected a model that was trained, or built with build((None, 28, 28, 1)). Received neither.")
    check_weights(vae)


def listed(names: list[str]) -> str:
    """Names for a message: the first of them, and that there are more."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
