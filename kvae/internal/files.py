"""Atomic writes: a reader finds the old file or the new one, never half of one."""

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

PARTIAL = ".partial-"  # how the names of unfinished files and folders begin


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Could not write {path}: {error.strerror or error}. What stood there before is unchanged. "
        "Free some space or choose a folder that you may write to."
    )


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, of the same suffix, that replaces it when the block ends well.

    Raises:
        UserError: the folder cannot be written to or the disk is full. The file that stood at `path` is intact.
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
    """Yields an empty folder beside `path` that takes its name when the block ends well.

    `path` must not exist, or with `overwrite` is replaced then.

    Raises:
        UserError: as `atomic_file`.
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
    """Raises `UserError` where a folder must not be written: it exists, or is not one with a file named `marker`."""
    folder = Path(folder)
    if folder.resolve() == Path.cwd():
        raise UserError("Expected a folder to make. Received the current one; name one within it.")
    if folder.is_symlink():
        raise UserError(f"Expected a folder to make. {str(folder)!r} is a link; name the folder itself.")
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
    """Writes `value` as indented JSON, atomically; NaN and infinity are refused since JSON has no word for them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file that kvae wrote.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise UserError(f"Could not read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). It was changed by hand or damaged.") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def sweep(folder: Path) -> None:
    """Removes what a killed process left unfinished in `folder`."""
    for partial in folder.rglob(f"{PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
