"""Streams whose images are decoded once, into a file that is then mapped into memory: `streaming="decoded"`.

The file has a byte for each value, and images can be read from it in any order, as from memory (`kvae.data.mapped`). It
is kept (`kvae.internal.caches`) and used again as long as the files of the source have the same names, sizes and times.
"""

import hashlib
import math
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kvae.data.in_memory import WORKERS
from kvae.data.split import Source, Split, refuse_ones
from kvae.internal import caches, files
from kvae.internal.batch_sizes import images_at_once
from kvae.internal.errors import UserError
from kvae.internal.progress_bars import counted
from kvae.internal.quantities import size as in_words
from kvae.internal.tensorflow import tf, unconverted

VERSION = 2  # of the files: since then images of pixels 0 and 1 are refused


def decoded_once(source: Source, parts: Iterable[str]) -> Source:
    """The same source, with images of mapped files in place of streams.

    Args:
        source: the source, opened as a stream.
        parts: the names of the splits that are needed; the others are not decoded.

    Raises:
        UserError: if no folder may keep the files, if the disk has no room for them, or if an image is damaged.
    """
    splits = {part: _decoded(source, part) for part in set(parts)}
    return replace(source, splits={**source.splits, **splits})


def _decoded(source: Source, part: str) -> Split:
    split = source.splits[part]
    if split.images is not None:
        return split
    if split.state is None:
        raise UserError(
            f"Expected a source whose files are known, to decode its images once. Received {source.name!r}. Stream it "
            "with streaming=True."
        )
    folder, state = split.state()
    shape = (split.count, *split.image_shape)
    path = caches.needed_folder("decoded") / f"{_digest(folder, part)}-{_digest(state, shape, VERSION)}.npy"
    images = _mapped(path, shape)
    if images is None:
        _remove_older(path)
        _decode(split, path, f"{split.count:,} {part} images of {source.name}")
        images = np.load(path, mmap_mode="r")
    return Split(images, _labels(split, path), split.count, split.image_shape, files=split.files)


def _digest(*facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The images of a file; None if there is no such file, or if it is not whole."""
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return images if images.dtype == np.uint8 and images.shape == shape else None


def _labels(split: Split, path: Path) -> np.ndarray | None:
    """The labels of a split, which are kept beside its images if they had to be read from the files of the images."""
    if split.labels is not None or split.read_labels is None:
        return split.labels
    kept = path.with_suffix(".labels.npy")
    with suppress(OSError, ValueError, EOFError):
        labels = np.load(kept)
        if labels.shape == (split.count,):
            return labels
    labels = split.read_labels(0, split.count)
    with files.atomic_file(kept) as partial, partial.open("wb") as file:
        np.save(file, labels)
    return labels


def _remove_older(path: Path) -> None:
    """Removes what was decoded of the same split before its files have changed."""
    for older in path.parent.glob(f"{path.name.partition('-')[0]}-*"):
        with suppress(OSError):  # on Windows, if it is in use
            older.unlink()


def _decode(split: Split, path: Path, what: str) -> None:
    size = split.count * math.prod(split.image_shape)
    with files.atomic_file(path) as partial:
        free = shutil.disk_usage(path.parent).free
        if size > free:
            raise UserError(
                f"Expected {in_words(size)} on the disk of {path.parent}, to decode {what}. It has {in_words(free)}. "
                f"Free some space, set {caches.VARIABLE} to a folder of another disk, or use streaming=true."
            )
        print(f"Decoding {what} once, into {path} ({in_words(size)}) ...", file=sys.stderr)
        if split.check is not None:
            split.check(0, split.count)  # names what is damaged
        try:
            _write(split, partial)
        except tf.errors.OpError as error:
            raise UserError(f"Could not decode {what}: {error.message.splitlines()[0]}") from error


def _write(split: Split, path: Path) -> None:
    """Writes the file without mapping it: a disk that gets full is then an error, and does not end the process."""
    options = tf.data.Options()
    options.autotune.enabled = False  # autotuning can delay the end of an iteration by seconds
    options.deterministic = True
    elements = split.stream(0, split.count)
    decoded = elements.map(unconverted(lambda _, encoded: split.decode(encoded)), num_parallel_calls=WORKERS)
    batches = decoded.batch(images_at_once(split.image_shape)).prefetch(2).with_options(options)
    terminal, written, greatest = int(sys.stderr.isatty()), 0, 0
    with path.open("wb") as file, counted(terminal, "decoding", "images", split.count, sys.stderr) as advance:
        header = {"descr": "|u1", "fortran_order": False, "shape": (split.count, *split.image_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for images in batches.as_numpy_iterator():
            file.write(images.data)
            advance(len(images))
            written += len(images)
            greatest = max(greatest, int(images.max()))
    if written != split.count:
        raise UserError(f"Expected {split.count} images. Their files have {written}.")
    refuse_ones(greatest, "the images")
