"""`npz:FILE`: NumPy archives such as Keras's mnist.npz. Pickled objects are never unpickled."""

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
# What NumPy lets through where a member is damaged; its header is parsed as Python.
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
    if images.ndim == 2:  # flat rows of a square
        side = round(images.shape[1] ** 0.5)
        if side == 0 or side * side != images.shape[1]:
            raise UserError(f"Expected {where} to be [N, H, W] or [N, H, W, C]. Received {images.shape}.")
        images = images.reshape(-1, side, side)
    if images.ndim not in (3, 4) or images.size == 0:
        raise UserError(f"Expected {where} to be [N, H, W] or [N, H, W, C]. Received {images.shape}.")
    label_key = next((key for key in LABELS[part] if key in arrays), None)
    labels = None if label_key is None else as_labels(arrays[label_key], len(images), f"{path} ({label_key})")
    return Split.of(as_bytes(images, where), labels)


def read(path: str) -> Source:
    """The splits `train` and `test` of an archive with `x_train`, `y_train`, `x_test`, `y_test` or like names.

    Raises:
        UserError: unreadable, no images, pickled objects, shapes or values that cannot be images.
    """
    try:
        if not Path(path).is_file():
            raise UserError(f"Expected an .npz archive of arrays. There is no file {path}.")
        if not zipfile.is_zipfile(path):
            raise UserError(f"Expected an .npz archive of arrays. {path} is none (nor will a single array, .npy, do).")
        with np.load(path, allow_pickle=False) as archive:
            known = [key for keys in (*IMAGES.values(), *LABELS.values()) for key in keys]
            names = list(archive.files)
            arrays = {name: archive[name] for name in names if name in known}
    except UserError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise UserError(f"{path} holds pickled objects, which kvae never unpickles. Save plain arrays.") from error
        raise UserError(f"Could not read {path}: {error}. Expected an .npz archive of arrays.") from error
    except (OSError, EOFError, RuntimeError, MemoryError, OverflowError, *DAMAGED) as error:
        raise UserError(f"Could not read {path}: {error}. Expected an .npz archive of arrays.") from error
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a member that is no .npy comes as bytes
            raise UserError(f"{path}: expected {key} to be an array. Received something else.")
    splits = {part: split for part in IMAGES if (split := _split(arrays, part, path)) is not None}
    if "train" not in splits:
        raise UserError(f"{path}: expected an array called {', '.join(IMAGES['train'])}. Received {', '.join(names)}.")
    sizes = {split.image_shape for split in splits.values()}
    if len(sizes) > 1:
        raise UserError(f"{path}: expected images of one size. Received {' and '.join(map(str, sizes))}.")
    name = f"npz:{path}"
    return Source(name, splits) if "test" in splits else hold_out(name, splits)
