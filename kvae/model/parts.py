"""The base class of priors, posteriors and likelihoods: Keras layers that have weights, but are never called."""

import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from kvae.internal.errors import UserError, unknown
from kvae.internal.tensorflow import keras
from kvae.model.keywords import check_leftover_keywords


class Part(keras.layers.Layer):
    """A part of a VAE. Its weights are trained and saved with the model; it computes in float32 under every policy.

    `VAE.build` calls `build` with those of the arguments `latent_dim`, `image_shape`, `condition_shape` and `seed`, the
    seed of the model's initial weights, that it takes. A file that was saved before a part had weights can still be
    loaded: the weights keep their initial values.
    """

    def __init__(self, **kwargs: Any) -> None:
        check_leftover_keywords(type(self), kwargs)
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """A weight that stays in float32 also within a model of mixed precision."""
        return super().add_weight(*args, **{"autocast": False, **kwargs})

    def load_own_variables(self, store: Any) -> None:
        if len(store.keys()) > 0:
            super().load_own_variables(store)

    def get_build_config(self) -> None:
        """None: Keras saves no arguments of `build`, because the model builds its parts."""


def build(part: Part, **sizes: Any) -> None:
    """Builds a part, if it is not built yet, with those of `sizes` that its `build` takes.

    Raises:
        UserError: if it was built for a model of another latent size.
    """
    wanted = inspect.signature(part.build).parameters
    given = {name: size for name, size in sizes.items() if name in wanted}
    if not part.built:
        part.build(**given)
        part.__dict__["_built_for"] = sizes["latent_dim"]  # which Keras does not track
    before = part.__dict__.get("_built_for", sizes["latent_dim"])
    depends = "latent_dim" in wanted and (part.weights or getattr(part, "latent_dim", None) is not None)
    if depends and before != sizes["latent_dim"]:
        raise UserError(
            f"Expected a {type(part).__name__} of its own for each model. Received one that was built for a model with "
            f"latent_dim={before}; this model has latent_dim={sizes['latent_dim']}."
        )


def seeds(seed: int | None, offset: int) -> Iterator[int | None]:
    """Seeds of the initial weights of a part, one per weight; None, which Keras draws, if the model gives no seed.

    Args:
        seed: seed of the model, or None.
        offset: number of the part: encoder and decoder have 0 and 1, a prior 2, a posterior 3.
    """
    return (None if seed is None else ((seed + offset) * 1_000_003 + i) % 2**31 for i in itertools.count(1))


def get(kind: str, received: Any, table: Mapping[str, type], base: type) -> Any:
    """The part itself, or a new one from its name in a table.

    Args:
        kind: kind of the part, e.g. `"prior"`.
        received: a name, or an object of the class `base`.
        table: classes by name.
        base: base class of the parts of this kind.

    Raises:
        UserError: if `received` is neither a name in the table nor such an object.
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
    """The name of a part in a table, or the name of its class if it is not there."""
    names = {kind: name for name, kind in table.items()}
    return names.get(type(part), type(part).__name__)
