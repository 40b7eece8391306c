"""What the command line prints: lines that stay one line, on streams that may be closed, full, or not UTF-8."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kvae.internal.next_command import kvae_command
from kvae.internal.visible import visible

_printed: set[str] = set()


def prepare() -> None:
    """Makes printing safe: a closed stream discards its text, and a letter that it cannot encode becomes an escape."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file that is opened would take its number, and receive what libraries print
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        with suppress(AttributeError):  # a stream of the caller's
            getattr(sys, name).reconfigure(errors="backslashreplace")


def say(*lines: object) -> None:
    """Prints lines."""
    for line in lines:
        print(visible(line))


def say_next(what: str, *commands: Sequence[object]) -> None:
    """Prints commands of kvae that a user may want to type next, one per line, ready to copy.

    Args:
        what: what the commands do, as the rest of a sentence that begins with "Next: ".
        commands: the words of each command after `kvae`.
    """
    say(f"Next: {what}", *(f"  {kvae_command(*words)}" for words in commands))


def complain(text: object) -> None:
    """Prints one line on the standard error, if that is possible."""
    with suppress(OSError):
        print(visible(text), file=sys.stderr, flush=True)


def one_line(message: Any, category: Any, *_: Any) -> None:
    """Prints a warning of kvae as one line, but only once. Warnings of libraries are not for users of the command."""
    from kvae.internal.errors import KvaeWarning

    line = f"kvae: warning: {message}"
    if issubclass(category, KvaeWarning) and line not in _printed:
        _printed.add(line)
        complain(line)


def flush() -> None:
    """Writes what was printed; an OSError if that is not possible."""
    sys.stdout.flush()


def discard_unwritten() -> None:
    """Discards what cannot be written. Otherwise Python would try it again at its end, and print that it failed."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
