"""`UserError`, an error that the caller can fix, and checks that raise it."""

import difflib
import numbers
import re
import sys
from collections.abc import Iterable
from typing import Any

from kvae.internal.visible import shortened, shown

OWN_PACKAGES = ("kvae", "keras", "tensorflow", "contextlib")
LISTED = 20  # choices that a message lists; of more it names only the nearest
MUCH = 0.15  # Less likeness than that of the nearest name, by this much, makes a name no likely choice.
MOST = 2**31 - 1  # the largest whole number that TensorFlow's 32-bit indices can hold


# What TensorFlow adds to its messages: the operation that failed, before and after the reason.
_NODE = re.compile(r"\{\{function_node .*?\}\} ?| ?\[Op:.*")


class UserError(ValueError):
    """An error that the caller can fix. The message says what was expected, what was received and what to do.

    The command line prints the message as one line and exits with status 2.
    """


class KvaeWarning(UserWarning):
    """Something that a user should know, and that stops nothing. The command line prints it as one line."""


def stacklevel_of_user() -> int:
    """The `stacklevel` for a warning of the caller that points to the nearest code outside of kvae and Keras."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in OWN_PACKAGES:
        frame, level = frame.f_back, level + 1
    return level


def first_line(error: BaseException, most: int = 300) -> str:
    """What an error of a library says, as part of a line: its first line, or its type if it says nothing."""
    lines = _NODE.sub("", str(error)).strip().splitlines() or [""]
    return (lines[0].strip() or type(error).__name__)[:most].rstrip(".")


def unknown(
    kind: str, received: object, choices: Iterable[str], nearest: Iterable[str] = (), where_listed: str = ""
) -> UserError:
    """The error for a name that is not one of `choices`; the message suggests the nearest of them.

    Args:
        kind: what the name stands for, for example `"recipe"`.
        received: the name that was received.
        choices: the valid names. If there are many, the message names only the nearest.
        nearest: valid names that the user probably meant, for a reason other than their spelling.
        where_listed: a sentence that says where many choices are listed. By default the message lists them, unless it
            names the nearest.
    """
    valid, name = sorted(choices), shortened(str(received), 200)
    few = len(valid) <= LISTED
    most = 1 if few else 3
    near = list(nearest) or _near(name, valid, most) or _near(name.lower(), valid, most)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    if not few and (near or where_listed):
        return UserError(f"Unknown {kind} {name!r}.{hint} {where_listed}".rstrip())
    return UserError(f"Unknown {kind} {name!r}.{hint} Expected one of: {', '.join(valid)}.")


def _near(name: str, valid: list[str], most: int) -> list[str]:
    """The names that are nearest to one, without those that are much less like it than the first of them."""
    found = difflib.get_close_matches(name, valid, n=most)
    likeness = [difflib.SequenceMatcher(None, each, name).ratio() for each in found]
    return [each for each, ratio in zip(found, likeness, strict=True) if ratio > likeness[0] - MUCH]


def check_whole(name: str, value: object, least: int = 1, most: int = MOST) -> int:
    """`value` as an int; raises `UserError` if it is not a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise UserError(f"Expected {name} to be a whole number of at least {least}. Received {shown(value)}.")
    if int(value) > most:
        raise UserError(f"Expected {name} to be a whole number of at most {most:,}. Received {shown(value)}.")
    return int(value)


def check_list(name: str, value: object) -> list[Any]:
    """`value` as a list; raises `UserError` if it is none, and no tuple or array either."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UserError(f"Expected {name} to be a list of numbers. Received {shown(value)}.")
    return list(value)


def check_seed(name: str, value: object) -> int:
    """`value` as an int; raises `UserError` if it is not a whole number in 0..2^31 - 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= int(value) <= MOST:
        raise UserError(f"Expected {name} to be a whole number from 0 to {MOST}. Received {shown(value)}.")
    return int(value)
