"""Decoded images of TFDS datasets, kept on disk (`kvae.internal.caches`): a file for each dataset.

To decode the 70,000 pictures of MNIST takes longer than anything else at the start of a training. A file is used as
long as those of the dataset have the same sizes and times. It has checksums, and what is damaged is decoded again.
"""

import hashlib
import json
import math
import os
import sys
import zipfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kvae.data.split import Split
from kvae.internal import caches, files, memory
from kvae.internal.errors import UserError

MOST_BYTES = 1_000_000_000  # of all files; the oldest are deleted
Decoded = tuple[dict[str, Split], tuple[str, ...] | None]  # splits by name, and the names of the labels
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


def load(name: str) -> Decoded | None:
    """What `keep` kept of a dataset; None if there is nothing, or if the files of the dataset have changed.

    Raises:
        UserError: if the images do not fit in memory.
    """
    path = _path(name)
    try:
        if path is None or not path.is_file():
            return None
        with np.load(path) as archive:
            content = json.loads(str(archive["content"]))
            if content["state"] != state_of(Path(content["folder"])):
                return None
            shapes = {part: tuple(shape) for part, shape in content["splits"].items()}
            for part, shape in shapes.items():
                check_memory(name, part, shape)
            splits = {part: _split(archive, part) for part in shapes}
    except UserError:
        raise
    except UNREADABLE:
        return None
    names = content["label_names"]
    return splits, None if names is None else tuple(names)


def keep(name: str, folder: Path, splits: dict[str, Split], label_names: tuple[str, ...] | None) -> None:
    """Keeps the splits of a dataset, if they are not too large and the disk has room for them.

    Args:
        name: the name of the dataset, as in `load`.
        folder: the folder of its files.
        splits: its splits, all of them in memory.
        label_names: the name of each label, or None.
    """
    path, size = _path(name), sum(split.images.nbytes for split in splits.values() if split.images is not None)
    if path is None or size > MOST_BYTES / 2:
        return
    shapes = {part: [split.count, *split.image_shape] for part, split in splits.items()}
    arrays: dict[str, Any] = {f"{part}_images": split.images for part, split in splits.items()}
    arrays |= {f"{part}_labels": split.labels for part, split in splits.items() if split.labels is not None}
    with suppress(OSError, UserError):  # the folder of the dataset may be one that only TFDS can read
        content = {"folder": str(folder), "state": state_of(folder), "splits": shapes, "label_names": label_names}
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_file(path) as partial, partial.open("wb") as file:
            np.savez(file, content=json.dumps(content), **arrays)
        _delete_oldest(path.parent)


def check_memory(name: str, part: str, shape: tuple[int, ...]) -> None:
    """Raises `UserError` if the images of a split, of the shape `[N, H, W, C]`, do not fit in memory."""
    memory.check(
        math.prod(shape),
        f"the split {part} of {name}, with {shape[0]} images of {shape[1:]},",
        "Read them from disk in batches with streaming (--set data.streaming=true).",
    )


def _split(archive: Any, part: str) -> Split:
    images, labels = archive[f"{part}_images"], archive.get(f"{part}_labels")
    return Split(images, labels, len(images), images.shape[1:])


def _path(name: str) -> Path | None:
    """The file of a dataset in the folder where TFDS would look for it; None if nothing is kept."""
    folder = caches.folder("images")
    try:
        version = metadata.version("tensorflow-datasets")
    except metadata.PackageNotFoundError:  # it is missing, or it is a nightly one
        return None
    if folder is None:
        return None
    facts = [name, _data_folder(), version]
    return folder / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.npz"


def _data_folder() -> str:
    """The folder of all datasets, as TFDS has it if it is imported, which takes a second, or as it will have it."""
    constants = sys.modules.get("tensorflow_datasets.core.constants")
    default = os.path.join("~", "tensorflow_datasets")
    found = os.environ.get("TFDS_DATA_DIR", default) if constants is None else constants.DATA_DIR
    return os.path.abspath(os.path.expanduser(found))


def state_of(folder: Path) -> list[list[Any]]:
    """The name, size and time of each file of a dataset, and the time of the folder with its versions."""
    found = [[entry.name, entry.stat().st_size, entry.stat().st_mtime_ns] for entry in sorted(folder.iterdir())]
    return [*found, ["versions", 0, folder.parent.stat().st_mtime_ns]]


def _delete_oldest(folder: Path) -> None:
    size = 0
    for path in sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True):
        size += path.stat().st_size
        if size > MOST_BYTES:
            path.unlink(missing_ok=True)
