"""`idx:DIR`: a folder of IDX files, the format of MNIST and similar datasets, with or without gzip compression.

A file has two zero bytes, a byte for the type (8 is unsigned byte), a byte for the number of axes, the length of each
axis as a big-endian 32-bit integer, and then the data; http://yann.lecun.com/exdb/mnist/.
"""

import math
import os
import re
from pathlib import Path

import numpy as np

from kvae.data.split import Source, Split, hold_out
from kvae.internal import memory, reading
from kvae.internal.errors import UserError

UNSIGNED_BYTE = 8
GZIP = b"\x1f\x8b"
HEADER = 4 + 4 * 4  # bytes of the longest header
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid"), "test": ("t10k", "test")}


def read_idx(path: str | Path) -> np.ndarray:
    """Reads one IDX file of unsigned bytes.

    Raises:
        UserError: if the file cannot be read, is not an IDX file of unsigned bytes, is too short or too long, or needs
            more memory than this machine has.
    """
    path = Path(path)
    content = reading.read_bytes(path, memory.available())
    compressed = content.startswith(GZIP)
    shape, header = _shape(path, reading.decompressed_start(content, HEADER, path) if compressed else content)
    expected = math.prod(shape)
    # Twice, because what is held out is copied.
    memory.check(2 * expected, f"{path}, with the shape {shape} in its header,", "The file may be damaged.")
    if compressed:
        content = reading.decompressed(content, header + expected, path)
    received = len(content) - header
    if expected != received:
        fault = "is too short" if received < expected else "is too long"
        raise UserError(
            f"{path} {fault}: expected {expected} bytes of data for the shape {shape} in its header. "
            f"Received {received}."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _shape(path: Path, start: bytes) -> tuple[tuple[int, ...], int]:
    """The shape in the header of a file, and the number of bytes of the header."""
    if len(start) < 4 or start[:2] != b"\0\0":
        raise UserError(f"{path} is not an IDX file: expected it to begin with two zero bytes, received {start[:4]!r}.")
    kind, axes = start[2], start[3]
    if kind != UNSIGNED_BYTE or axes not in (1, 3, 4):
        raise UserError(
            f"{path}: expected an IDX file of unsigned bytes (type 8) with 1, 3 or 4 axes. "
            f"Received type {kind} with {axes} axes."
        )
    header = 4 + 4 * axes
    if len(start) < header:
        raise UserError(f"{path} is too short: expected a header of {header} bytes, received {len(start)} bytes.")
    shape = tuple(int.from_bytes(start[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    if 0 in shape:
        raise UserError(f"{path} contains no image: the shape in its header is {shape}.")
    return shape, header


def _find(folder: Path, split_names: tuple[str, ...], content: str) -> Path | None:
    """The file with the images or labels of a split, or None; raises `UserError` if there are several."""
    try:
        listed = os.listdir(folder)
    except OSError as error:
        raise UserError(f"Could not read the folder {folder}: {error.strerror}.") from error
    matches = sorted(
        folder / name
        for name in listed
        if name.lower().removesuffix(".gz").endswith("ubyte") and os.path.isfile(folder / name)
        if content in (words := re.split(r"[^a-z0-9]+", name.lower())) and not {*split_names}.isdisjoint(words)
        if not name.startswith(".")  # `._NAME` is a file of macOS beside NAME
    )
    if len({path.name.removesuffix(".gz") for path in matches}) > 1:
        raise UserError(
            f"Expected one set of images in {folder}. Found several files of {content} for {split_names[-1]}: "
            f"{', '.join(path.name for path in matches)}. Put the files of one set into a folder of their own."
        )
    return matches[0] if matches else None


def read(directory: str) -> Source:
    """Reads the splits of a folder with files such as `train-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte`.

    Args:
        directory: the folder. The labels may be missing; without test images, a part of the training images is held
            out.

    Raises:
        UserError: if there are no training images, if a file is not valid, if the numbers of images and labels differ,
            or if the sizes of the images differ.
    """
    folder = Path(directory)
    if not os.path.isdir(folder):
        raise UserError(f"Expected a folder of IDX files. {directory!r} is not a folder.")
    splits = {}
    for split, names in SPLIT_NAMES.items():
        images_path = _find(folder, names, "images")
        if images_path is None:
            continue
        images = read_idx(images_path)
        if images.ndim < 3:
            raise UserError(f"{images_path}: expected images [N, H, W]. Received shape {images.shape}.")
        labels_path = _find(folder, names, "labels")
        labels = None if labels_path is None else read_idx(labels_path)
        if labels is not None and labels.shape != images.shape[:1]:
            raise UserError(
                f"{labels_path}: expected {len(images)} labels, one per image. Received shape {labels.shape}."
            )
        splits[split] = Split.from_arrays(images, None if labels is None else labels.astype(np.int64))
    if "train" not in splits:
        raise UserError(f"Expected train-images-idx3-ubyte (or .gz) in {directory!r}. Found none.")
    sizes = {split.image_shape for split in splits.values()}
    if len(sizes) > 1:
        raise UserError(f"Expected images of one size in {directory!r}. Received {' and '.join(map(str, sizes))}.")
    name = f"idx:{directory}"
    return Source(name, splits) if "test" in splits else hold_out(name, splits)
