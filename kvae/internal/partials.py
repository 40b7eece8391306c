"""Unfinished files and folders: their names, and what becomes of those that a killed process left behind.

The name of an unfinished file or folder says which process on which machine writes it. The next command that writes
into the same folder removes those whose process has ended. If the process was killed while it exchanged complete new
entries for old ones, the exchange is finished, so that a folder never keeps a mixture of both.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

PREFIX = ".partial-"
NAME = re.compile(
    # In versions before, there was only the token.
    r"\.partial-((?P<process>\d+)-(?P<machine>[0-9a-f]{8})-[0-9a-f]{16}-|[0-9a-f]{16}).*",
    re.DOTALL,
)
NEW, READY, OLD = "new", "ready", "old"  # the folders in an unfinished exchange, see `exchange`
DAY = 86_400  # seconds after which an unfinished file of another machine is taken for abandoned
CLOCKS = 60  # seconds by which the clocks of a machine and of its file server may differ


@cache
def _machine() -> str:
    """A name for the machine, and for the space of its numbers of processes: containers have spaces of their own."""
    with suppress(OSError):
        return _digest(f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino}")
    return _digest(socket.gethostname())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def new_path(folder: Path, suffix: str = "") -> Path:
    """A path in `folder` for an unfinished file or folder of this process, whose name ends with `suffix`."""
    return folder / f"{PREFIX}{os.getpid()}-{_machine()}-{secrets.token_hex(8)}-{suffix}"


def is_partial(name: str) -> bool:
    """Whether a name is that of an unfinished file or folder of kvae."""
    return NAME.fullmatch(name) is not None


def _is_abandoned(path: Path) -> bool:
    """Whether the process that wrote an unfinished file or folder has ended."""
    match = NAME.fullmatch(path.name)
    if match is None:
        return False
    written = path.lstat().st_mtime
    try:
        import psutil
    except ModuleNotFoundError:  # the runtime alone does not need it
        psutil = None
    if psutil is None or match["machine"] != _machine():  # processes that are not known here
        return time.time() - written > DAY
    try:
        started = psutil.Process(int(match["process"])).create_time()
    except (psutil.NoSuchProcess, OverflowError):
        return not _is_hidden(int(match["process"]))
    except psutil.Error:  # it is there, but may not be examined
        return False
    return started > written + CLOCKS  # another process has got the same number since


def _is_hidden(process: int) -> bool:
    """Whether a process of another user is there, although the system does not show it."""
    if os.name == "nt":  # where this call would end the process
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def is_between(temporary: Path) -> bool:
    """Whether an exchange was neither finished nor undone; `recover` finishes it when its process has ended."""
    ready = temporary / READY
    return ready.is_dir() and any(ready.iterdir())


def exchange(temporary: Path, folder: Path) -> None:
    """Moves the entries of `temporary/new` to `folder`, in place of those of the same names; all of them or none.

    From the moment when `new` is renamed to `ready`, `recover` finishes the exchange if this process is killed.

    Raises:
        OSError: if an entry cannot be moved, or if a file would replace a folder. Then nothing has changed.
    """
    old = temporary / OLD
    old.mkdir()
    for entry in (temporary / NEW).iterdir():
        target = folder / entry.name
        if os.path.lexists(target) and target.is_dir() != entry.is_dir():
            raise OSError(errno.EEXIST, f"{entry.name} is a {'folder' if target.is_dir() else 'file'} there")
    ready = temporary / READY
    names = sorted(entry.name for entry in (temporary / NEW).iterdir())
    try:
        (temporary / NEW).rename(ready)
        for name in names:
            if os.path.lexists(folder / name):
                os.rename(folder / name, old / name)
            os.rename(ready / name, folder / name)
    except BaseException:
        if ready.is_dir():
            for name in reversed(names):
                if not os.path.lexists(ready / name):
                    os.rename(folder / name, ready / name)
                if os.path.lexists(old / name):
                    os.rename(old / name, folder / name)
            ready.rename(temporary / NEW)
        raise


def discard(partial: Path) -> None:
    """Removes an unfinished file or folder, or the rest of an exchange."""
    try:
        _remove(partial)
    except KeyboardInterrupt:  # a signal; a second one ends the process at once
        _remove(partial)
        raise


def _remove(partial: Path) -> None:
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        with suppress(OSError):
            partial.unlink()


def _finish(temporary: Path, folder: Path) -> None:
    """Finishes an exchange whose process was killed. What was written since then stays."""
    (temporary / OLD).mkdir(exist_ok=True)
    for entry in sorted((temporary / READY).iterdir()):
        present, old = folder / entry.name, temporary / OLD / entry.name
        if os.path.lexists(present):
            if os.path.lexists(old) or present.lstat().st_mtime > entry.lstat().st_mtime:
                continue
            os.rename(present, old)
        os.rename(entry, present)


def recover(folder: Path, *, nested: bool = False) -> None:
    """Removes the unfinished files and folders that killed processes left in a folder, and finishes their exchanges.

    Those of living processes stay. Where nothing can be changed, nothing happens.

    Args:
        folder: the folder. It may be missing.
        nested: whether to do the same in all folders within it. False by default.
    """
    with suppress(OSError):
        left = [folder / name for name in os.listdir(folder) if is_partial(name)]
        for partial in left:
            with suppress(OSError):  # another process removes it at the same time, or may write here and this one not
                if _is_abandoned(partial):
                    mine = new_path(folder)
                    os.rename(partial, mine)  # only one process can succeed
                    if (mine / READY).is_dir():
                        _finish(mine, folder)
                    discard(mine)
        if nested:
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False) and not is_partial(entry.name):
                    recover(Path(entry.path), nested=True)
