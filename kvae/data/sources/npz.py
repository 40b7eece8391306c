"""`npz:FILE`: NumPy archives such as mnist.npz of Keras. Pickled objects, which can run code, are never loaded."""

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from kvae.data.split import Source, Split, as_bytes, as_labels, hold_out
from kvae.internal.errors import UserError

IMAGES = {
    "train": ("x_train", "train_images", "x", "images", "data", "arr_0"),
    "validation": ("x_val", "x_validation", "val_images"),
    "test": ("x_test", "test_images"),
}
# The exceptions that NumPy may raise for a damaged array; it parses the header of an array as Python.
DAMAGED = (zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError)
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
    where = f"{path} ({image_key})"
    if images.ndim == 2:  # every row has the pixels of a square image
        side = round(images.shape[1] ** 0.5)
        if side == 0 or side * side != images.shape[1]:
            raise UserError(f"Expected {where} to be [N, H, W] or [N, H, W, C]. Received {images.shape}.")
        images = images.reshape(-1, side, side)
    if images.ndim not in (3, 4) or images.size == 0:
        raise UserError(f"Expected {where} to be [N, H, W] or [N, H, W, C]. Received {images.shape}.")
    label_key = next((key for key in LABELS[part] if key in arrays), None)
    labels = None if label_key is None else as_labels(arrays[label_key], len(images), f"{path} ({label_key})")
    return Split.from_arrays(as_bytes(images, where), labels)


def read(path: str) -> Source:
    """Reads the splits of an archive.

    Args:
        path: the archive. Its arrays have names from `IMAGES` and `LABELS`, such as `x_train` and `y_train`; others are
            ignored. Without test images, a part of the training images is held out.

    Raises:
        UserError: if the archive cannot be read, has no training images, or has pickled objects, or if the shape or the
            values of an array are not those of images or labels.
    """
    try:
        if not Path(path).is_file():
            raise UserError(f"Expected an .npz archive of arrays. The file {path} does not exist.")
        if not zipfile.is_zipfile(path):
            raise UserError(
                f"Expected an .npz archive of arrays. {path} is not one; a single array (.npy) is not accepted."
            )
        with np.load(path, allow_pickle=False) as archive:
            known = [key for keys in (*IMAGES.values(), *LABELS.values()) for key in keys]
            names = list(archive.files)
            arrays = {name: archive[name] for name in names if name in known}
    except UserError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise UserError(f"{path} contains pickled objects, which kvae never loads. Save plain arrays.") from error
        raise UserError(f"Could not read {path}: {error}. Expected an .npz archive of arrays.") from error
    except (OSError, EOFError, RuntimeError, MemoryError, OverflowError, *DAMAGED) as error:
        raise UserError(f"Could not read {path}: {error}. Expected an .npz archive of arrays.") from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy returns a member that is not an array as bytes
            raise UserError(f"{path}: expected {key} to be an array. Received a file of another kind.")
    splits = {part: split for part in IMAGES if (split := _split(arrays, part, path)) is not None}
    if "train" not in splits:
        raise UserError(
            f"{path}: expected an array called {' or '.join(IMAGES['train'])}. Received {', '.join(names)}."
        )
    sizes = {split.image_shape for split in splits.values()}
    if len(sizes) > 1:
        raise UserError(f"{path}: expected images of one size. Received {' and '.join(map(str, sizes))}.")
    name = f"npz:{path}"
    return Source(name, splits) if "test" in splits else hold_out(name, splits)
