"""Atomic writes: a reader finds either the old file or the new one, never an unfinished one."""

import errno
import hashlib
import json
import math
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from kvae.internal import partials, reading
from kvae.internal.errors import UserError
from kvae.internal.visible import shown

WINDOWS = os.name == "nt"
JUNK = (".DS_Store", "Thumbs.db", "desktop.ini")  # made by systems, not by people


class WriteError(UserError, OSError):
    """A file or folder that could not be written. It is also an OSError, which the callbacks of Keras handle."""


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Turns the errors of the system into a `WriteError` that names the path that the user gave."""
    try:
        yield
    except (UserError, BrokenPipeError):  # they say what happened; the latter, that nobody reads the output
        raise
    except OSError as error:
        kept = " The previous content is unchanged." if os.path.exists(path) else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "Free some space" if full else "Choose a path that can be written"
        changed = WriteError(f"Could not write {path}: {error.strerror or error}.{kept} {what}.")
        changed.errno = error.errno
        raise changed from error


def _sync(file: Path) -> None:
    """Waits until the content of a file is on the disk."""
    # os.fsync is _commit on Windows, which needs a handle that may write.
    handle = os.open(file, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can: Windows cannot open a folder."""
    if not WINDOWS:
        with suppress(OSError):  # some network file systems refuse it, and the new names are valid without it
            _sync(folder)


def _sync_all(folder: Path) -> None:
    for written in folder.rglob("*"):
        _sync_folder(written) if written.is_dir() else _sync(written)


def _mode_of(file: Path) -> int | None:
    """The permissions of a file that is to be replaced, or None if there is none; OSError if it must not be."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is a device or a pipe, and not a file")
    if not os.access(file, os.W_OK):
        raise PermissionError(errno.EACCES, "The file is write-protected")
    return stat.S_IMODE(mode)


def check_file(path: str | os.PathLike[str]) -> None:
    """Checks that a file can be written or replaced, before a command computes what shall be in it.

    Raises:
        WriteError: if the path is that of a folder, if the file is write-protected, or as in `check_folder`.
    """
    path = Path(path)
    with _errors_name(path):
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        _mode_of(target)
        _check_place(target.parent)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Checks that files can be written into a folder, which is there or can be made, before a command computes them.

    Raises:
        WriteError: if it is a file or lies within one, if its name is too long, or if it must not be written to.
    """
    path = Path(path)
    with _errors_name(path):
        _check_place(path)


def _check_place(folder: Path) -> None:
    """Raises OSError for a folder in which no file can be written."""
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        if folder.is_symlink() or folder == folder.parent:
            raise
        _check_place(folder.parent)
        return
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def is_empty(folder: Path) -> bool:
    """Whether a folder exists and has no entries but unfinished ones of kvae and files that systems make."""
    return folder.is_dir() and all(name in JUNK or partials.is_partial(name) for name in os.listdir(folder))


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces the file at `path` if the block ends without an exception.

    The temporary file is in the same folder, and its name ends alike. If `path` is a symbolic link, the file that it
    points to is replaced. The new file has the permissions of the old one.

    Raises:
        WriteError: if the folder cannot be written to, the file is write-protected or the disk is full. The previous
            file is then unchanged.
    """
    path = Path(path)
    partial: Path | None = None
    with _errors_name(path):
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partials.recover(target.parent)
            mode = _mode_of(target)
            partial = partials.new_path(target.parent, path.name[-40:])
            partial.touch(exist_ok=False)
            yield partial
            _sync(partial)
            if mode is not None:
                partial.chmod(mode)
            os.replace(partial, target)
            _sync_folder(target.parent)
        finally:
            if partial is not None:
                partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty temporary folder, which is renamed to `path` if the block ends without an exception.

    An empty folder at `path` stays, and gets the entries of the temporary one.

    Args:
        path: the folder to write. It must not exist or be empty, unless `overwrite` is true.
        overwrite: whether to replace an existing folder.

    Raises:
        WriteError: if the folder cannot be written or the disk is full. An existing folder is then unchanged.
    """
    path = Path(path)
    with _errors_name(path):
        into = is_empty(path)
    if into:  # an empty folder, whose parent need not be writable
        with atomic_entries(path) as partial:
            yield partial
        return
    with _temporary(path, path.parent) as temporary:
        partial = temporary / partials.NEW / path.name
        partial.mkdir()
        yield partial
        _sync_all(partial)
        if overwrite:
            partials.exchange(temporary, path.parent)
        else:
            os.rename(partial, path)
        _sync_folder(path.parent)


@contextmanager
def atomic_entries(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty temporary folder, whose files and folders are moved to `folder` if the block ends well.

    They replace those of the same names. All other entries of `folder` stay. After an exception, nothing has changed.

    Raises:
        WriteError: if the folder cannot be written, the disk is full, or a file has the name of a folder.
    """
    folder = Path(folder)
    if not folder.exists():
        with atomic_folder(folder) as partial:
            yield partial
        return
    with _temporary(folder, folder) as temporary:
        yield temporary / partials.NEW
        _sync_all(temporary / partials.NEW)
        partials.exchange(temporary, folder)
        _sync_folder(folder)


@contextmanager
def _temporary(path: Path, folder: Path) -> Iterator[Path]:
    """Yields an unfinished folder in `folder` with an empty folder `new`; errors name `path`."""
    temporary: Path | None = None
    with _errors_name(path):
        try:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
            partials.recover(folder)
            temporary = partials.new_path(folder)  # assigned before the folder exists, so that no signal leaves it
            (temporary / partials.NEW).mkdir(parents=True)
            yield temporary
        finally:
            if temporary is not None and not partials.is_between(temporary):
                partials.discard(temporary)


def has_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether TensorFlow would take a path for a pattern of paths when it reads the variables of a SavedModel."""
    letters = "[]*?" if WINDOWS else "[]*?\\"
    return any(letter in os.fspath(path) for letter in letters)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder in which TensorFlow can write and read a SavedModel.

    Raises:
        UserError: if the folder of the system for temporary files is one whose SavedModels TensorFlow cannot read.
    """
    if has_pattern(tempfile.gettempdir()):
        raise UserError(
            f"Expected a folder for temporary files without [, ], * and ? in its path. Received "
            f"{tempfile.gettempdir()!r}. Set TMPDIR to another one."
        )
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8, atomically. The bytes, and so their SHA-256, are the same on every system."""
    with atomic_file(path) as partial:
        partial.write_bytes(text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON, atomically.

    Raises:
        ValueError: if `value` has NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file that kvae wrote.

    Raises:
        UserError: if the file cannot be read or is not valid JSON.
    """
    try:
        text = reading.read_bytes(path, reading.TEXT).decode("utf-8")
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_each_key_once)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). It was changed by hand or damaged.") from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has the key {shown(repeated)} twice")
    return values


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse(text)
    return number


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal; raises `UserError` if it cannot be read."""
    with reading.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
