"""`images:DIR`: a folder of pictures, all of one size.

`DIR/train` and `DIR/test` are the splits where they exist; sub-folders of a split are its labels.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kvae.data.split import Source, Split, hold_out
from kvae.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
STREAMABLE = {".png", ".jpg", ".jpeg", ".bmp"}  # what TensorFlow decodes
COLOUR_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "LA": "L", "CMYK": "RGB", "YCbCr": "RGB"}


def _open(path: Path, mode: str | None = None) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode not in COLOUR_MODES:
                raise UserError(f"{path}: expected 8 bits a channel. Received mode {image.mode}.")
            return image.convert(mode or COLOUR_MODES[image.mode])
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"Could not read {path} as a picture: {error}.") from error


def _list(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _labels(folder: Path, paths: list[Path], names: tuple[str, ...]) -> np.ndarray | None:
    if not names:
        return None
    return np.array([names.index(path.relative_to(folder).parts[0]) for path in paths], np.int64)


def _label_names(folder: Path, paths: list[Path]) -> tuple[str, ...]:
    """First-level sub-folders, where every picture lies in one."""
    parts = [path.relative_to(folder).parts for path in paths]
    return tuple(sorted({part[0] for part in parts})) if all(len(part) > 1 for part in parts) else ()


def _read_all(paths: list[Path]) -> np.ndarray:
    first = _open(paths[0])
    images = np.empty((len(paths), first.height, first.width, len(first.getbands())), np.uint8)
    for place, path in enumerate(paths):
        image = _open(path, first.mode)
        if image.size != first.size:
            raise UserError(
                f"Expected pictures of one size. {paths[0].name} is {first.width} x {first.height}, "
                f"{path.name} is {image.width} x {image.height}. Resize them first."
            )
        images[place] = np.asarray(image).reshape(images.shape[1:])
    return images


def _streamed(folder: Path, paths: list[Path], names: tuple[str, ...]) -> Split:
    from kvae.tensorflow import tf

    undecodable = [path.name for path in paths if path.suffix.lower() not in STREAMABLE]
    if undecodable:
        raise UserError(f"Expected PNG, JPEG or BMP pictures for streaming. Received {undecodable[0]}.")
    first = _open(paths[0])
    shape = (first.height, first.width, len(first.getbands()))
    files = np.array([str(path) for path in paths])

    def stream(start: int, stop: int) -> Any:
        return tf.data.Dataset.from_tensor_slices((np.arange(start, stop), files[start:stop]))

    def decode(file: Any) -> Any:
        image = tf.io.decode_image(tf.io.read_file(file), channels=shape[2], expand_animations=False)
        return tf.ensure_shape(image, shape)

    return Split(None, _labels(folder, paths, names), len(paths), shape, stream, decode)


def read(directory: str, streaming: bool = False) -> Source:
    """The splits of a folder of pictures.

    Args:
        directory: DIR.
        streaming: decode pictures as they are needed rather than all at once.

    Raises:
        UserError: no folder, no picture, a picture that cannot be read, or pictures of different sizes.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise UserError(f"Expected a folder of pictures. {directory!r} is not a folder.")
    parts = {part: folder / part for part in ("train", "test") if (folder / part).is_dir()}
    folders = parts if "train" in parts else {"train": folder}
    listed = {part: _list(where) for part, where in folders.items()}
    for part, paths in listed.items():
        if not paths:
            raise UserError(f"No picture in {str(folders[part])!r}. Expected files such as .png or .jpg.")
    names = _label_names(folders["train"], listed["train"])
    splits = {}
    for part, where in folders.items():
        known = (
            names if _label_names(where, listed[part]) and set(_label_names(where, listed[part])) <= set(names) else ()
        )
        if streaming:
            splits[part] = _streamed(where, listed[part], known)
        else:
            splits[part] = Split.of(_read_all(listed[part]), _labels(where, listed[part], known))
    name = f"images:{directory}"
    if "test" not in splits:
        if streaming:
            raise UserError(f"Expected {directory}/train and {directory}/test for streaming. Found no test folder.")
        held = hold_out(name, splits["train"])
        return Source(name, held.splits, names or None, held.notes)
    if splits["train"].image_shape != splits["test"].image_shape:
        raise UserError(
            f"Expected pictures of one size. "
            f"Received {splits['train'].image_shape} in train, {splits['test'].image_shape} in test."
        )
    return Source(name, splits, names or None)
