"""What happens when a command is stopped: by Ctrl-C, by `kill`, or because its terminal was closed.

A signal raises `Stopped` in the command, so that unfinished files are removed, and the exit status is 128 plus the
number of the signal. A second signal ends the process at once, and so does a first one while modules are imported:
there is nothing to remove yet, and some modules would not pass on the exception.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from kvae.internal.next_command import kvae_command
from kvae.internal.visible import visible

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]  # Windows has no SIGHUP; it has SIGBREAK


REMINDER = 1.0  # seconds


class Stopped(KeyboardInterrupt):
    """A signal has asked this process to end."""


class _Process:
    """The state of this process."""

    def __init__(self) -> None:
        self.signal: int | None = None  # the first signal that was received
        self.importing = False
        self.stderr: int | None = None  # a copy of file descriptor 2, which `silenced` redirects for some time
        self.file: Path | None = None  # the file whose existence means that there is something to continue
        self.command = ""  # the command that continues
        self.before: Any = None  # the state of this file when the command began


_process = _Process()


def begin() -> None:
    """Starts a command: it has not been stopped, and there is nothing to continue."""
    _process.signal, _process.importing, _process.file = None, False, None


def install() -> None:
    """Lets the signals stop the command, except those that are ignored, as under `nohup`."""
    if threading.current_thread() is not threading.main_thread():
        return
    with suppress(OSError):
        _process.stderr = os.dup(2)
    sys.unraisablehook = _unraisable
    for number in SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, _on_signal)


def _on_signal(number: int, _: Any) -> None:
    first, _process.signal = _process.signal is None, _process.signal or number
    if _process.importing or not first:
        _end_at_once()
    _remind_until_heard()
    raise Stopped


def _remind_until_heard() -> None:
    """Raises `Stopped` again, every second, as long as the command goes on without handling it.

    Python ignores what is raised within a finalizer or a callback of a library, which may be where the signal came.
    """
    if not hasattr(signal, "setitimer"):
        return

    def remind(*_: Any) -> None:
        error = sys.exc_info()[1]
        while error is not None and not isinstance(error, Stopped):
            error = error.__context__
        if error is None:  # otherwise the command is being ended
            raise Stopped

    signal.signal(signal.SIGALRM, remind)
    signal.setitimer(signal.ITIMER_REAL, REMINDER, REMINDER)


def heard() -> None:
    """The command has ended, and `Stopped` is not raised again."""
    if stopped() and hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _unraisable(error: Any) -> None:
    if not isinstance(error.exc_value, Stopped):
        sys.__unraisablehook__(error)


def _end_at_once() -> NoReturn:
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(Exception):
        os.write(2 if _process.stderr is None else _process.stderr, f"{visible(message())}\n".encode())
    os._exit(status())


@contextmanager
def importing() -> Iterator[None]:
    """Modules are imported in the block."""
    before, _process.importing = _process.importing, True
    try:
        yield
    finally:
        _process.importing = before


@contextmanager
def training(folder: Path, resumed: bool = False, options: Sequence[str] = ()) -> Iterator[None]:
    """The command trains a run in the block. If it is stopped there, its message says how to continue.

    Args:
        folder: the run folder.
        resumed: whether the run exists already. Otherwise a run in this folder is one that is to be replaced, until it
            has another config.json.
        options: the options that continue the run, after `kvae train --resume --out FOLDER`.
    """
    command = kvae_command("train", "--resume", "--out", folder, *options)
    with _continued_by(command, folder / "config.json", resumed):
        yield


@contextmanager
def sweep(folder: Path, options: Sequence[str] = ()) -> Iterator[None]:
    """The command trains a sweep in the block, whose folder is there. Arguments as in `training`."""
    with _continued_by(kvae_command("sweep", "--resume", "--out", folder, *options), folder / "sweep.json", True):
        yield


@contextmanager
def evaluation(unfinished: Path) -> Iterator[None]:
    """The command evaluates a run in the block, and keeps results in this folder until all are there."""
    with _continued_by(kvae_command(*sys.argv[1:]), unfinished, True):
        yield


@contextmanager
def _continued_by(command: str, file: Path, exists: bool) -> Iterator[None]:
    _process.file = file
    _process.before = None if exists else _state(file)
    _process.command = command
    yield
    _process.file = None  # not after an exception, whose message is still to be made


def _state(file: Path) -> Any:
    """What is different when a file is another one; None if there is none."""
    try:
        facts = file.stat()
    except (OSError, ValueError):
        return None
    return facts.st_ino, facts.st_mtime_ns


def stopped() -> bool:
    """Whether a signal has stopped the command."""
    return _process.signal is not None


def status() -> int:
    """The exit status of a command that was stopped."""
    return 128 + (_process.signal or signal.SIGINT)


def how_to_continue() -> str:
    """A sentence that says how to continue, or an empty text if there is nothing to continue yet."""
    if _process.file is None or _state(_process.file) in (None, _process.before):
        return ""
    return f"To continue: {_process.command}"


def message() -> str:
    """The line that says that the command was stopped."""
    return f"Interrupted. {how_to_continue()}".rstrip()
