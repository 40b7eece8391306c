"""What a kill would leave behind: copies of a folder before each operation on files."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OPERATIONS = ("rename", "replace", "unlink", "rmdir", "mkdir")
DEAD = 2**22 + 1  # above the largest number of a process on Linux


@contextmanager
def copies_before_each_operation(folder: Path, copies: Path) -> Iterator[list[Path]]:
    """Copies `folder` before every operation that changes names in it, while the block runs.

    Each copy is what a process leaves that is killed at that moment. In the copies, unfinished files belong to a
    process that has ended. Copies that are equal are made once.

    Args:
        folder: the folder to copy.
        copies: where to put the copies. It must not be within `folder`.

    Yields:
        The list of copies, which grows while the block runs.
    """
    made: list[Path] = []
    seen: set[str] = set()
    busy = False

    def copy() -> None:
        nonlocal busy
        busy = True
        try:
            state = content(folder)
            if state not in seen:
                seen.add(state)
                made.append(copies / f"{len(made):03d}")
                shutil.copytree(folder, made[-1], symlinks=True)
                _end_process(made[-1])
        finally:
            busy = False

    def watched(operation):
        def call(*args, **kwargs):
            # Within the folder, or relative to an open folder, as rmtree does it.
            if not busy and (kwargs.get("dir_fd") is not None or str(folder) in os.fspath(args[0])):
                copy()
            return operation(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, watched(getattr(os, name)))
        # rmtree must be known to be safe with what stands for the functions of os.
        patch.setattr(shutil, "_use_fd_functions", False)
        yield made
    copy()


def content(folder: Path) -> str:
    """A digest of the names in a folder and of the content of its files; unfinished ones count without their names."""
    parts = []
    for path in sorted(folder.rglob("*")):
        name = re.sub(r"\.partial-[^/]*", ".partial", path.relative_to(folder).as_posix())
        parts.append((name, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""))
    return hashlib.sha256(repr(sorted(parts)).encode()).hexdigest()


def _end_process(folder: Path) -> None:
    """Makes the unfinished files of this process those of one that has ended."""
    for path in sorted(folder.rglob(f".partial-{os.getpid()}-*"), reverse=True):
        path.rename(path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{DEAD}-", 1)))


def unfinished(folder: Path) -> list[str]:
    """The names of unfinished files in a folder and all folders within it."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob(".partial-*")]
