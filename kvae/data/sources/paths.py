"""The name of the source that a path stands for, for a user who has given the path alone."""

import os
from pathlib import Path

from kvae.data.sources import images

FILES = {".csv": "csv", ".csv.gz": "csv", ".npz": "npz"}  # the kind of a source, by the end of its file


def source_of(path: str) -> str | None:
    """The source that a path stands for, e.g. `images:shapes` for a folder `shapes`.

    Args:
        path: what the user has given as a source.

    Returns:
        The source, or None if there is nothing at this path, or nothing that kvae reads.
    """
    if os.path.isdir(path):
        try:
            names = os.listdir(path)
        except OSError:  # a folder that this user may not read
            names = []
        return f"idx:{path}" if any("ubyte" in name for name in names) else f"images:{path}"
    parts = path.split(",")
    if not all(map(os.path.isfile, parts)):
        return None
    kinds = {next((kind for end, kind in FILES.items() if part.lower().endswith(end)), None) for part in parts}
    if kinds == {"csv"} or (kinds == {"npz"} and len(parts) == 1):
        return f"{kinds.pop()}:{path}"
    return f"images:{Path(path).parent}" if Path(path).suffix.lower() in images.SUFFIXES else None
