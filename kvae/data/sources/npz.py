"""`npz:FILE`: NumPy archives such as mnist.npz of Keras. Pickled objects, which can run code, are never loaded."""

import math
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy

from kvae.data.split import Source, Split, as_labels, hold_out
from kvae.internal import memory, reading
from kvae.internal.errors import UserError, first_line

IMAGES = {
    "train": ("x_train", "train_images", "x", "images", "data", "arr_0"),
    "validation": ("x_val", "x_validation", "val_images"),
    "test": ("x_test", "test_images"),
}
LABELS = {
    "train": ("y_train", "train_labels", "y", "labels", "target"),
    "validation": ("y_val", "y_validation", "val_labels"),
    "test": ("y_test", "test_labels"),
}


def _split(arrays: dict[str, np.ndarray], part: str, path: str) -> Split | None:
    image_key = next((key for key in IMAGES[part] if key in arrays), None)
    if image_key is None:
        return None
    images = arrays[image_key]
    description = f"{path} ({image_key})"
    if images.ndim == 2:  # every row has the pixels of a square image
        side = round(images.shape[1] ** 0.5)
        if side == 0 or side * side != images.shape[1]:
            raise UserError(f"Expected {description} to be [N, H, W] or [N, H, W, C]. Received {images.shape}.")
        images = images.reshape(-1, side, side)
    if images.ndim not in (3, 4) or images.size == 0:
        raise UserError(f"Expected {description} to be [N, H, W] or [N, H, W, C]. Received {images.shape}.")
    label_key = next((key for key in LABELS[part] if key in arrays), None)
    labels = None if label_key is None else as_labels(arrays[label_key], len(images), f"{path} ({label_key})")
    return Split.from_arrays(images, labels, description=description)


def _arrays(path: str) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of all arrays of an archive, and those arrays that have a known name."""
    known = {key for keys in (*IMAGES.values(), *LABELS.values()) for key in keys}
    with reading.open_regular(path) as file:
        if not zipfile.is_zipfile(file):
            raise UserError(
                f"Expected an .npz archive of arrays. {path} is not one; a single array (.npy) is not accepted."
            )
        try:
            with zipfile.ZipFile(file) as archive:
                members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
                used = {name: member for name, member in members.items() if name in known}
                needed = sum(_bytes(path, archive, member) for member in used.values())
                memory.check(needed, f"the arrays of {path}", "Save fewer images, or save them as uint8.")
                return list(members), {name: _array(archive, member) for name, member in used.items()}
        except UserError:
            raise
        except Exception as error:  # NumPy parses the header of an array as Python, and zipfile has many errors
            raise UserError(
                f"Could not read {path}: {first_line(error)}. Expected an .npz archive of arrays."
            ) from error


def _bytes(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """The memory that an array needs, in bytes, by its header, which must agree with the size of the member."""
    headers: dict[Any, Any] = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in headers:
            raise UserError(f"{path}: {member.filename} has no plain array (version {version} of its format).")
        shape, _, dtype = headers[version](file)
        header = file.tell()
    if dtype.hasobject:
        raise UserError(f"{path} contains pickled objects, which kvae never loads. Save plain arrays.")
    expected, received = math.prod(shape) * dtype.itemsize, member.file_size - header
    if expected != received or any(axis < 0 for axis in shape):
        raise UserError(
            f"Could not read {path}: {member.filename} should have {expected} bytes for the shape {shape} in its "
            f"header, but has {received}. Expected an .npz archive of arrays."
        )
    # What is held out is copied, and pixels that are no bytes are compared with their rounded values.
    return 2 * expected if dtype == np.uint8 else 3 * expected


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)


def read(path: str) -> Source:
    """Reads the splits of an archive.

    Args:
        path: the archive. Its arrays have names from `IMAGES` and `LABELS`, such as `x_train` and `y_train`; others are
            ignored. Without test images, a part of the training images is held out.

    Raises:
        UserError: if the archive cannot be read, has no training images, or has pickled objects, or if the shape or the
            values of an array are not those of images or labels.
    """
    names, arrays = _arrays(path)
    splits = {part: split for part in IMAGES if (split := _split(arrays, part, path)) is not None}
    if "train" not in splits:
        received = ", ".join(f"{name!r:.60}" for name in names[:6]) + (", ..." if len(names) > 6 else "")
        raise UserError(
            f"{path}: expected an array called {' or '.join(IMAGES['train'])}. Received {received or 'none'}."
        )
    sizes = {split.image_shape for split in splits.values()}
    if len(sizes) > 1:
        raise UserError(f"{path}: expected images of one size. Received {' and '.join(map(str, sizes))}.")
    name = f"npz:{path}"
    return Source(name, splits) if "test" in splits else hold_out(name, splits)
