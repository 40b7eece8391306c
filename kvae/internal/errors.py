"""The one kind of error that is the user's to mend."""

import difflib
import numbers
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the caller: the message says what was expected, what was received and what to do.

    The command line prints it as one line and exits with status 2.
    """


class KvaeWarning(UserWarning):
    """Something that a user should know of, and that stops nothing. The command line prints it as one line."""


def unknown(kind: str, received: object, choices: Iterable[str]) -> UserError:
    """The error for a name that is none of `choices`, with the nearest match.

    Args:
        kind: what the name stands for, e.g. `"recipe"`.
        received: the name as it came.
        choices: the names that would have been right.
    """
    known = sorted(choices)
    near = difflib.get_close_matches(str(received), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"Unknown {kind} {str(received)!r}.{hint} Expected one of: {', '.join(known)}.")


def check_whole(name: str, value: object, least: int = 1) -> int:
    """`value` as an int, or a `UserError` where it is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise UserError(f"Expected {name} to be a whole number of at least {least}. Received {value!r}.")
    return int(value)


def check_seed(name: str, value: object) -> int:
    """`value` as an int, or a `UserError` where it is not a whole number in 0..2^31 - 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= int(value) < 2**31:
        raise UserError(f"Expected {name} to be a whole number in 0..{2**31 - 1}. Received {value!r}.")
    return int(value)
