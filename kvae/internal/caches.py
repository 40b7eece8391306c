"""The folder in which kvae keeps what it can make again, but only slowly.

The command line uses the folder for caches of the user. In Python nothing is kept unless KVAE_CACHE names a folder.
"""

import os
from contextlib import suppress
from pathlib import Path

from kvae.internal.errors import UserError

VARIABLE = "KVAE_CACHE"  # the environment variable with the folder; an empty one for no cache


def use_by_default() -> None:
    """Uses the folder for caches of this user, if the environment names no other."""
    os.environ.setdefault(VARIABLE, _of_user())


def _of_user() -> str:
    """The folder for caches of this user; empty if there is none."""
    # A runtime alone, which keeps nothing, lacks this package; a user may have no home.
    with suppress(ImportError, OSError, RuntimeError):
        import platformdirs

        return str(platformdirs.user_cache_path("kvae"))
    return ""


def needed_folder(kind: str) -> Path:
    """As `folder`, for what a user asked to keep: in Python, too, it is in the folder for caches of the user.

    Raises:
        UserError: if KVAE_CACHE says that nothing is to be kept, or if this user has no folder for caches.
    """
    found = os.environ.get(VARIABLE, _of_user())
    if not found:
        raise UserError(f"Expected a folder in which to keep files. {VARIABLE} is empty. Set it to a folder.")
    return Path(found).absolute() / kind


def folder(kind: str) -> Path | None:
    """The folder for one kind of things, which may not exist yet; None if nothing is to be kept."""
    asked = os.environ.get(VARIABLE, "")
    return Path(asked).absolute() / kind if asked else None
