"""Whether a folder may be written or replaced: only one that kvae wrote, and that holds nothing else, is replaced."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kvae.internal import files, partials
from kvae.internal.errors import UserError

SHOWN = 3  # names in a message


def files_in(folder: Path) -> Iterator[str]:
    """The names of all files and links in a folder and its folders, relative to it, with `/` between their parts.

    Files that systems make, such as `.DS_Store`, and unfinished files of kvae are left out.
    """
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        folders[:] = [name for name in folders if not partials.is_partial(name)]
        for name in (*names, *links):
            if name not in files.JUNK and not partials.is_partial(name):
                yield Path(parent, name).relative_to(folder).as_posix()


def not_among(names: Iterable[str], patterns: str) -> list[str]:
    """The names that a regular expression does not match completely, in order."""
    known = re.compile(patterns, re.VERBOSE)
    return sorted(name for name in names if not known.fullmatch(name))


def check_free(
    folder: str | os.PathLike[str],
    overwrite: bool,
    *,
    noun: str,
    strangers: Callable[[Path], list[str]],
    or_else: str = "",
) -> None:
    """Checks that a folder may be written.

    It may be new, empty, or one that `overwrite` permits to replace: a folder that kvae wrote and that holds nothing
    else. The current folder, the home folder, the folders above them, links and mounts are never replaced.

    Args:
        folder: the folder.
        overwrite: whether to replace an existing folder.
        noun: what the folder is to be, for messages: `"a run"`, `"a bundle"`.
        strangers: a function from an existing folder to the names in it that kvae did not write. It raises `UserError`
            if the folder is not of this kind.
        or_else: a further choice for the message about an existing folder.

    Raises:
        UserError: if the folder may not be written. The message names what would be lost.
    """
    folder = Path(folder)
    if not os.path.lexists(folder):
        files.check_folder(folder)
        return
    _check_place(folder)
    partials.recover(folder)  # a process that wrote into an empty folder may have been killed
    if files.is_empty(folder):
        files.check_folder(folder)
        return
    if not overwrite:
        raise UserError(f"{str(folder)!r} exists. {or_else}Replace it with --overwrite, or choose another --out.")
    if not folder.is_dir():
        raise UserError(f"Expected a folder to replace. {str(folder)!r} is a file. Choose another --out.")
    try:
        found = strangers(folder)
    except UserError as error:
        message = f"{str(folder)!r} is not {noun} of kvae, so it is not replaced. {error} Choose another --out."
        raise UserError(message) from error
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UserError(
            f"{str(folder)!r} has files that kvae did not write and that would be lost: "
            f"{', '.join(found[:SHOWN])}{more}. Move them to another place, or choose another --out."
        )


def _check_place(folder: Path) -> None:
    """Raises `UserError` for the current folder, the home folder, the folders above them, a link and a mount."""
    name = str(folder)
    if folder.is_symlink():
        raise UserError(f"Expected a folder to create. {name!r} is a symbolic link; name the folder itself.")
    real = os.path.realpath(folder)
    for kind, place in (("current", os.getcwd()), ("home", os.path.expanduser("~"))):
        place = os.path.realpath(place)
        if place == real:
            raise UserError(f"Expected a folder to create. Received the {kind} folder; name a folder within it.")
        if Path(place).is_relative_to(real):
            raise UserError(f"Expected a folder to create. {name!r} contains the {kind} folder; name another.")
    if os.path.ismount(real):
        raise UserError(f"Expected a folder to create. {name!r} is a mount point; name a folder within it.")
