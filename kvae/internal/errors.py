"""`UserError`, an error that the caller can fix, and checks that raise it."""

import difflib
import numbers
import re
import sys
from collections.abc import Iterable

OWN_PACKAGES = ("kvae", "keras", "tensorflow", "contextlib")


# What TensorFlow adds to its messages: the operation that failed, before and after the reason.
_NODE = re.compile(r"\{\{function_node .*?\}\} ?| ?\[Op:.*")


class UserError(ValueError):
    """An error that the caller can fix. The message says what was expected, what was received and what to do.

    The command line prints the message as one line and exits with status 2.
    """


class KvaeWarning(UserWarning):
    """Something that a user should know of, and that stops nothing. The command line prints it as one line."""


def stacklevel_of_user() -> int:
    """The `stacklevel` for a warning of the caller that shall point to the nearest code outside of kvae and Keras."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in OWN_PACKAGES:
        frame, level = frame.f_back, level + 1
    return level


def first_line(error: BaseException, most: int = 300) -> str:
    """What an error of a library says, as part of a line: its first line, or its type if it says nothing."""
    lines = _NODE.sub("", str(error)).strip().splitlines() or [""]
    return (lines[0].strip() or type(error).__name__)[:most].rstrip(".")


def unknown(kind: str, received: object, choices: Iterable[str]) -> UserError:
    """The error for a name that is not one of `choices`; the message suggests the nearest of them.

    Args:
        kind: what the name stands for, for example `"recipe"`.
        received: the name that was received.
        choices: the valid names.
    """
    valid = sorted(choices)
    nearest = difflib.get_close_matches(str(received), valid, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UserError(f"Unknown {kind} {str(received)!r}.{hint} Expected one of: {', '.join(valid)}.")


def check_whole(name: str, value: object, least: int = 1) -> int:
    """`value` as an int; raises `UserError` if it is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise UserError(f"Expected {name} to be a whole number of at least {least}. Received {value!r}.")
    return int(value)


def check_seed(name: str, value: object) -> int:
    """`value` as an int; raises `UserError` if it is not a whole number in 0..2^31 - 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= int(value) < 2**31:
        raise UserError(f"Expected {name} to be a whole number in 0..{2**31 - 1}. Received {value!r}.")
    return int(value)
