"""Runs a command: what it prints when it fails or is stopped, and the exit status.

This module imports little, so that from the first moments on a signal ends the command in one line.

The status is 0 after success, 2 after a mistake of the user, 128 plus the number of a signal that stopped the command
(130 after Ctrl-C), 141 if the reader of its output has ended, and 1 after any other error.
"""

import errno
import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from kvae.cli import output, stopping

if TYPE_CHECKING:
    import click

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)  # of a stream, which has no file name
READER_ENDED = 141  # 128 + SIGPIPE, which the shell states for a program that a closed pipe ended


def run(command: "click.Command | None" = None, name: str = "kvae") -> NoReturn:
    """Runs a command with the arguments of this process, and exits.

    Args:
        command: the command, by default `kvae` with its subcommands.
        name: the name of the command in messages.
    """
    stopping.begin()
    try:
        with stopping.importing():
            output.prepare()  # before `install`, which would give the number of a closed stream to another file
            stopping.install()
            command = _prepared(command)
        status = _invoke(command, [argument for argument in sys.argv[1:] if argument != "--debug"], name)
        output.flush()
    except BaseException as error:
        stopping.heard()
        message, status = _explained(error)
        if message:
            if "--debug" in sys.argv and isinstance(error, Exception):
                raise
            output.complain(f"{name}: {message}" if status < 128 else message)
        output.discard_unwritten()
    gc.freeze()  # Python would search all objects of TensorFlow for garbage before it ends, which takes 0.2 s
    sys.exit(status)


def _prepared(command: "click.Command | None") -> "click.Command":
    """The command, and a process in which only kvae prints."""
    import logging
    import warnings

    from kvae.internal import caches

    logging.getLogger("absl").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # whichever command imports TensorFlow
    caches.use_by_default()
    warnings.showwarning = output.one_line  # type: ignore[assignment]
    if command is None:
        from kvae.cli.commands import main

        return main
    return command


def _invoke(command: "click.Command", arguments: list[str], name: str) -> int:
    """Runs a command, and returns the exit status that it asks for."""
    import click

    if isinstance(command, click.Group) and not arguments:
        arguments = ["--help"]
    try:
        if f"_{name.upper()}_COMPLETE" in os.environ:  # a shell asks for completions
            command.main(arguments, name)
        with command.make_context(name, arguments) as context:
            command.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def _explained(error: BaseException) -> tuple[str, int]:
    """The line to print for an error, and the exit status."""
    from kvae.internal.missing_packages import MissingPackageError, explained

    if isinstance(error, ModuleNotFoundError):
        error = explained(error)
    if isinstance(error, MissingPackageError):  # it may be click
        return str(error), 2
    import click

    from kvae.cli import usage
    from kvae.internal.errors import UserError

    if stopping.stopped() or isinstance(error, KeyboardInterrupt | click.Abort):
        return stopping.message(), stopping.status()
    if isinstance(error, BrokenPipeError):
        return stopping.how_to_continue(), READER_ENDED
    if isinstance(error, click.ClickException):
        return usage.one_sentence(error), 2
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"Could not use {error.filename}: {error.strerror}.", 2
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return f"Could not write the output: {error.strerror}.", 1
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "Expected paths without null characters. Received one with a null character.", 2
    return f"{type(error).__name__}: {error} (--debug shows where)", 1
