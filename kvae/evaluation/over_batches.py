"""An evaluation of a set, batch by batch: with a progress bar, and so that it goes on after an interruption."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvae import __version__
from kvae.evaluation.estimate import BATCH, batches, count_batches, parts_of
from kvae.internal import files
from kvae.internal.errors import check_whole
from kvae.internal.progress_bars import counted
from kvae.internal.tensorflow import keras, tf
from kvae.model.vae import VAE

Keep = str | os.PathLike[str] | None
Batch = tuple[tf.Tensor, Any, tf.Tensor]  # x, the condition or None, and the indices of the images


def over_batches(
    compute: Callable[[tf.Tensor, Any, tf.Tensor], Iterable[np.ndarray]],
    vae: VAE,
    data: Any,
    title: str,
    settings: Sequence[Any],
    *,
    size: int = BATCH,
    images: int | None = None,
    verbose: int = 0,
    keep: Keep = None,
) -> list[np.ndarray]:
    """Applies a function to all images of a set.

    Args:
        compute: the function, which gets x `[B, *image]`, the condition `[B, ...]` or None, and the indices of the
            images in the set, `[B]`. It returns arrays whose last axis is that of the images.
        vae: a built model.
        data: a set, as in `batches`.
        title: what is computed, for the progress bar and to tell the kept results of one function from another's.
        settings: all values besides the model and the images on which the result depends.
        size: the largest number of images that the function gets at once.
        images: the largest number of images: the first ones of the set. By default all.
        verbose: 1 for a bar that counts batches, 2 for a line every ten seconds. 0 by default.
        keep: a folder in which each result is kept until the caller deletes the folder. A result that is there is not
            computed again if the model, the images, the settings and the version of kvae are the same. The code of a
            user's own parts is not compared.

    Returns:
        The arrays of the whole set, each `[..., N]`.

    Raises:
        UserError: as `batches`, if the number of images is not valid, and if the folder cannot be written to.
    """
    if images is not None:
        check_whole("images", images)
    results = None if keep is None else _Kept(Path(keep), vae, title, settings)
    unit, total = ("batches", count_batches(data)) if images is None else ("images", images)
    parts = []
    with counted(verbose, title, unit, total) as advance:
        for batch in _first(batches(vae, data), images):
            for part in parts_of(batch, size):
                parts.append(list(compute(*part)) if results is None else results.of(compute, *part))
                if images is not None:
                    advance(len(part[0]))
            if images is None:
                advance()
    return [np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)]


def _first(batches: Iterator[Batch], images: int | None) -> Iterator[Batch]:
    """The batches of the first images, or all batches."""
    left = images
    for x, condition, index in batches:
        if left is None:
            yield x, condition, index
            continue
        yield x[:left], None if condition is None else condition[:left], index[:left]
        left -= len(index)
        if left <= 0:
            return


class _Kept:
    """The results of one function in a folder: a file for each part of a set, named by a digest of its inputs."""

    def __init__(self, folder: Path, vae: VAE, title: str, settings: Sequence[Any]) -> None:
        files.check_folder(folder)
        self.folder = folder
        config = json.dumps(keras.saving.serialize_keras_object(vae), sort_keys=True, default=str)
        of_all = [__version__, title, repr(tuple(settings)), config]
        self.digest = _digest([*(text.encode() for text in of_all), *map(_content, vae.get_weights())])

    def of(self, compute: Callable[..., Iterable[np.ndarray]], *part: Any) -> list[np.ndarray]:
        """The result for a part of the set, read from its file or computed and written there."""
        digest = _digest([self.digest.encode(), *(_content(np.asarray(array)) for array in part if array is not None)])
        path = self.folder / f"{digest[:32]}.npz"
        found = _read(path)
        if found is None:
            found = [np.asarray(array) for array in compute(*part)]
            with files.atomic_file(path) as partial, partial.open("wb") as file:
                np.savez(file, *found)
        return found


def _read(path: Path) -> list[np.ndarray] | None:
    """The arrays of a file; None if there is no such file, or if it is damaged."""
    try:
        with np.load(path) as archive:
            return [archive[f"arr_{number}"] for number in range(len(archive.files))]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _content(array: np.ndarray) -> bytes:
    return f"{array.dtype} {array.shape} ".encode() + array.tobytes()


def _digest(contents: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for content in contents:
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()
