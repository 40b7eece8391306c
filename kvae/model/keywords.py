"""The error for a keyword argument that a class does not have, with the nearest name that it does have."""

import inspect
from collections.abc import Iterable

from kvae.internal.errors import unknown

OF_KERAS = ("name", "dtype", "trainable", "activity_regularizer", "autocast")  # what every layer of Keras takes
OF_FILES = {"changed_layers", "trainable_layers"}  # what only a saved configuration has


def check_leftover_keywords(cls: type, received: Iterable[str]) -> None:
    """Checks the keyword arguments that the constructors of a Keras class leave over for Keras.

    Args:
        cls: the class of the object.
        received: names of the arguments.

    Raises:
        UserError: if the class has no argument of such a name.
    """
    for name in received:
        if name not in OF_KERAS:
            raise unknown(f"argument of {cls.__name__}:", name, _keywords(cls) | {*OF_KERAS})


def check_keywords(cls: type, received: Iterable[str]) -> None:
    """Checks all keyword arguments of a constructor, unless it takes any name.

    Args:
        cls: the class of the object.
        received: names of the arguments.

    Raises:
        UserError: if the constructor has no argument of such a name.
    """
    constructor = next(vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        for name in set(received) - {each.name for each in parameters}:
            raise unknown(f"argument of {cls.__name__}:", name, [each.name for each in parameters])


def _keywords(cls: type) -> set[str]:
    """The named arguments of the constructors of a Keras class, up to those of Keras."""
    names: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "keras":
            break
        if "__init__" in vars(base):
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            names |= {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return names - OF_FILES
