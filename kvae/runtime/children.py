"""Modules of kvae that run in a process of their own: one that may crash, or whose memory is measured."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kvae.internal.errors import UserError

TRIAL = 60.0  # seconds for a trial: opening a decoder, and drawing and decoding three images
_tried: set[str] = set()  # the SHA-256 of the files that passed a trial in this process


def can_start() -> bool:
    """Whether this process knows a Python that can run modules. An application in one executable file does not."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def run_module(
    module: str, arguments: list[str], seconds: float | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Runs a module with `python -m` in a new process, which ends together with this one, even if this one is killed.

    The module must call `end_with_parent`. It searches the same folders for modules as this process, except for the
    current folder, in which a file may have the name of a module.

    Args:
        module: its name.
        arguments: its arguments.
        seconds: the time after which the process is ended. By default it may take any time.
        environment: variables of its environment beside those of this process. None by default.

    Returns:
        What it wrote to standard output.

    Raises:
        UserError: if it could not be started, failed, crashed or took too long. The message is only the reason.
    """
    searched = os.pathsep.join(part for part in sys.path if part)
    # The end of a pipe that only this process holds: the system closes it when this process ends, however it does.
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=reading,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "PYTHONPATH": searched, **(environment or {})},
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"it did not end within {seconds:g} seconds") from None
    except OSError as error:
        raise UserError(f"it could not be started ({error.strerror or error})") from error
    finally:
        os.close(reading)
        os.close(writing)
    if done.returncode != 0:
        raise UserError(_reason(done))
    return done.stdout


def try_decoder(path: Path, content: bytes) -> None:
    """Opens a decoder in a new process, and draws and decodes images there.

    A file that passed once is not tried again by this process. An application that is one executable file cannot start
    Python, and leaves the trial out.

    Args:
        path: the path of the file.
        content: its content.

    Raises:
        UserError: if the process fails, crashes or takes longer than 60 seconds.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest in _tried or not can_start():
        return
    try:
        run_module("kvae.runtime.trial", [str(path)], TRIAL)
    except UserError as error:
        told = str(error)  # by the decoder, with the path, unless the process ended in another way
        if str(path) not in told:
            told = f"{path} is damaged or cannot be used. It was tried in another process: {told}."
        raise UserError(told) from error
    _tried.add(digest)


def _reason(done: subprocess.CompletedProcess) -> str:
    """Why a process failed: its last line, or how it ended."""
    if done.returncode < 0:
        with suppress(ValueError):
            return f"it crashed with {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with status {done.returncode}"


def end_with_parent() -> None:
    """Ends this process, which `run_module` started, as soon as the process that started it has ended."""

    def wait() -> None:
        with suppress(OSError):
            os.read(0, 1)  # returns at the end of the pipe only, because nothing is ever written
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
