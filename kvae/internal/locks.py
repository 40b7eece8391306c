"""A lock on a folder that one process may write at a time. It ends with its process, however that ends."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvae.internal import reading
from kvae.internal.errors import UserError
from kvae.internal.files import WriteError, write_json

LOCK = ".lock"  # an empty file, which the operating system locks
HOLDER = ".lock.json"  # which process holds the lock, for messages


class LockedError(UserError):
    """A folder that another process is writing."""


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Locks a folder against other processes, until the block ends.

    The lock is that of the operating system (`flock`, on Windows `msvcrt`), so that it ends with its process. Most
    network file systems pass it on to other machines. On those that have no such lock, a file with the process takes
    its place. Processes that only read the folder need no lock.

    Args:
        folder: a folder that exists.

    Raises:
        LockedError: if another process has locked the folder. The message names the process and its machine.
        WriteError: if the folder cannot be written to.
    """
    import filelock

    folder = Path(folder)
    lock = filelock.FileLock(folder / LOCK)
    try:
        os.listdir(folder)  # the lock would make a folder that is missing
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise LockedError(
            f"Another process is writing {str(folder)!r}: {_holder(folder)}. Wait until it has ended, or end it, or "
            "choose another --out."
        ) from None
    except OSError as error:
        raise WriteError(
            f"Could not lock {folder}: {error.strerror or error}. Choose a folder that you may write to."
        ) from error
    try:
        write_json(folder / HOLDER, {"process": os.getpid(), "machine": socket.gethostname()})
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def holder(folder: str | os.PathLike[str]) -> str | None:
    """A description of the process that is writing a folder, or None if no process is.

    Without a file that names the process, the lock is not tried: to try it is to hold it for a moment, in which a
    process that begins would be refused.
    """
    import filelock

    folder = Path(folder)
    if not (folder / HOLDER).is_file() or not (folder / LOCK).exists():
        return None
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return _holder(folder)
    except OSError:  # a folder of somebody else, whose lock this process may not try
        return None
    lock.release()
    return None


def _holder(folder: Path) -> str:
    """A description of the process that has locked a folder."""
    try:
        holder = json.loads(reading.read_text(folder / HOLDER))
        return f"process {int(holder['process'])} on {str(holder['machine'])!r}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its number is not known"
