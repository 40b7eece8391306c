"""The folder in which kvae keeps what it can make again, but only slowly.

The command line uses the folder for caches of the user. In Python nothing is kept unless KVAE_CACHE names a folder.
"""

import os
from contextlib import suppress
from pathlib import Path

VARIABLE = "KVAE_CACHE"  # the environment variable with the folder; an empty one for no cache


def use_by_default() -> None:
    """Uses the folder for caches of this user, if the environment names no other."""
    # A runtime alone, which keeps nothing, lacks this package; a user may have no home.
    with suppress(ImportError, OSError, RuntimeError):
        import platformdirs

        os.environ.setdefault(VARIABLE, str(platformdirs.user_cache_path("kvae")))


def folder(kind: str) -> Path | None:
    """The folder for one kind of things, which may not exist yet; None if nothing is to be kept."""
    asked = os.environ.get(VARIABLE, "")
    return Path(asked).absolute() / kind if asked else None
