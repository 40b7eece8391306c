"""What priors, posteriors and likelihoods share: they are Keras layers that hold weights, and are never called."""

import inspect
from collections.abc import Mapping
from typing import Any

from kvae.internal.errors import UserError, unknown
from kvae.internal.tensorflow import keras


class Part(keras.layers.Layer):
    """A part of a VAE: its weights train and are saved with the model; densities stay float32 under every policy.

    `VAE.build` builds it: `build` gets the arguments that it has names for among `latent_dim`, `image_shape` and
    `condition_shape`. A file that was written before a part had weights loads: they start at their default.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def load_own_variables(self, store: Any) -> None:
        if len(store.keys()) > 0:
            super().load_own_variables(store)

    def get_build_config(self) -> None:
        """None: what a part is built for is the model's to know."""


def build(part: Part, **sizes: Any) -> None:
    """Builds a part with those of `sizes` that its `build` has names for; once."""
    if not part.built:
        wanted = inspect.signature(part.build).parameters
        part.build(**{name: size for name, size in sizes.items() if name in wanted})


def chosen(kind: str, received: Any, table: Mapping[str, type], base: type) -> Any:
    """A part from its name in a table, or as it is.

    Args:
        kind: what it is, e.g. `"prior"`.
        received: a name, or an object of the class `base`.
        table: the classes by name.
        base: of all such parts.

    Raises:
        UserError: neither.
    """
    if isinstance(received, base):
        return received
    if isinstance(received, str):
        if received not in table:
            raise unknown(kind, received, table)
        return table[received]()
    raise UserError(
        f"Expected {kind}= to be one of {', '.join(table)}, or a {base.__module__}.{base.__name__}. "
        f"Received {received!r}."
    )


def name_of(part: Any, table: Mapping[str, type]) -> str:
    """The name by which a table knows a part, or the name of its class where it is the user's own."""
    known = {kind: name for name, kind in table.items()}
    return known.get(type(part), type(part).__name__)
