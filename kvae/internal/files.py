"""Atomic writes: a reader finds either the old file or the new one, never an unfinished one."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvae.internal.errors import UserError

PARTIAL = ".partial-"  # the prefix of the names of unfinished files and folders


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Could not write {path}: {error.strerror or error}. The previous content is unchanged. "
        "Free some space or choose a folder that you may write to."
    )


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces the file at `path` if the block ends without an exception.

    The temporary file is in the same folder and has the same suffix.

    Raises:
        UserError: if the folder cannot be written to or the disk is full. The previous file is then unchanged.
    """
    path = Path(path)
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        partial = Path(name)
        partial.chmod(0o666 & ~_umask())
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yields an empty temporary folder, which is renamed to `path` if the block ends without an exception.

    Args:
        path: the folder to write. It must not exist, unless `overwrite` is true.
        overwrite: whether to replace an existing folder.

    Raises:
        UserError: if the folder cannot be written or the disk is full. An existing folder is then unchanged.
    """
    path = Path(path)
    partial: Path | None = None
    replaced: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
        partial.chmod(0o777 & ~_umask())
        yield partial
        for written in partial.rglob("*"):
            _sync(written)
        if overwrite and path.exists():
            replaced = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
            os.rename(path, replaced / path.name)
        os.rename(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if replaced is not None and not path.exists():
            os.rename(replaced / path.name, path)
        for leftover in (partial, replaced):
            if leftover is not None:
                shutil.rmtree(leftover, ignore_errors=True)


def check_free(folder: str | os.PathLike[str], overwrite: bool, marker: str) -> None:
    """Checks that a folder may be written.

    Args:
        folder: the folder. It may be new or empty.
        overwrite: whether the folder may also be an existing one that contains a file named `marker`.
        marker: the name of a file that shows that kvae wrote the folder.

    Raises:
        UserError: if the folder may not be written.
    """
    folder = Path(folder)
    if folder.resolve() == Path.cwd():
        raise UserError("Expected a folder to create. Received the current folder; name a folder within it.")
    if folder.is_symlink():
        raise UserError(f"Expected a folder to create. {str(folder)!r} is a symbolic link; name the folder itself.")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise UserError(f"{str(folder)!r} exists. Replace it with overwrite (--overwrite) or choose another --out.")
    if not (folder / marker).is_file():
        raise UserError(f"{str(folder)!r} has no {marker}, so it is not replaced. Choose another --out.")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


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
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"Could not read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). It was changed by hand or damaged.") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not part of JSON")


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def remove_unfinished(folder: Path) -> None:
    """Removes the unfinished files and folders that a killed process left in `folder`."""
    for partial in folder.rglob(f"{PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)


def _umask() -> int:
    """The file mode creation mask of the process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
