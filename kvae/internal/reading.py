"""Reading of files that a user names: regular files only, and none that is larger than expected.

A device or a pipe would give bytes without end or wait for ever, and a small compressed file can hold far more than the
memory does. So the kind and the size of a file are checked before its content is read.
"""

import os
import stat
import zlib
from io import BufferedReader

from kvae.internal.errors import UserError

TEXT = 64 * 2**20  # bytes: the largest file of text that kvae reads, such as a recipe or a model card
PIECE = 2**13  # bytes of a compressed file that are decompressed at a time


class ReadError(UserError, OSError):
    """A file that could not be read. It is also an OSError, as that of `open`."""


def open_regular(path: str | os.PathLike[str], most: int | None = None) -> BufferedReader:
    """Opens a file for reading, if it is a regular file or a link to one.

    Args:
        path: the path of the file.
        most: the largest permitted size, in bytes. By default a file may have any size.

    Returns:
        The open file, in binary mode.

    Raises:
        UserError: if the file cannot be opened, is a folder, a pipe or a device, or is too large.
    """
    try:
        # Opening a pipe would wait for its writer; O_NONBLOCK, which has no effect on a regular file, prevents that.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:  # a null character in the path
        raise UserError(f"Could not read {os.fspath(path)!r}: {error}.") from error
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe or a device"
            raise UserError(f"Expected a file. Received {os.fspath(path)}, which is {kind}.")
        if most is not None and facts.st_size > most:
            raise UserError(
                f"Expected {os.fspath(path)} to have at most {most:,} bytes. It has {facts.st_size:,}, so it is not "
                "read."
            )
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _unreadable(path: str | os.PathLike[str], error: OSError) -> ReadError:
    changed = ReadError(f"Could not read {os.fspath(path)}: {error.strerror or error}.")
    changed.errno = error.errno
    return changed


def read_bytes(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The content of a regular file. Arguments and errors as in `open_regular`."""
    with open_regular(path, most) as file:
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(path, error) from error


def read_text(path: str | os.PathLike[str], most: int = TEXT) -> str:
    """The content of a regular file of UTF-8 text. Arguments and errors as in `open_regular`."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"Could not read {os.fspath(path)}: it is not text in UTF-8 ({error}).") from error


def decompressed_start(content: bytes, most: int, path: str | os.PathLike[str]) -> bytes:
    """The first bytes of the content of a gzip file, at most `most`. Arguments and errors as in `decompressed`."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content, most)
    except zlib.error as error:
        raise _damaged(path, error) from error


def _damaged(path: str | os.PathLike[str], error: Exception) -> UserError:
    return UserError(f"Could not read {os.fspath(path)}: its compressed content is damaged ({error}).")


def decompressed(content: bytes, most: int, path: str | os.PathLike[str]) -> bytes:
    """The content of a gzip file, which may have several members; at most `most + 1` bytes are ever made.

    Args:
        content: the compressed bytes.
        most: the largest permitted number of decompressed bytes.
        path: the path of the file, for error messages.

    Raises:
        UserError: if the content is truncated or damaged, or if it has more than `most` bytes.
    """
    parts, size, place = [], 0, 0
    while place < len(content):
        decompressor = zlib.decompressobj(wbits=31)
        while not decompressor.eof:  # in pieces, because what follows a member is copied
            piece = content[place : place + PIECE]
            if not piece:
                raise UserError(f"Could not read {os.fspath(path)}: its compressed content is truncated.")
            place += len(piece)
            try:
                parts.append(decompressor.decompress(piece, most + 1 - size))
            except zlib.error as error:
                raise _damaged(path, error) from error
            size += len(parts[-1])
            if size > most:
                raise UserError(
                    f"Expected {os.fspath(path)} to have at most {most:,} bytes after decompression. It has more, so "
                    "it is not read."
                )
        place -= len(decompressor.unused_data)
        while content[place : place + 1] == b"\0":  # gzip files may be padded with zeros
            place += 1
    return b"".join(parts)
