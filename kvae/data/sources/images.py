"""`images:DIR`: a folder of pictures, all of the same size.

The folders `DIR/train`, `DIR/validation` and `DIR/test` are the splits, if they exist; otherwise DIR is the training
split. The sub-folders of a split are the classes of its pictures.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kvae.data.split import Source, Split, hold_out
from kvae.internal.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
STREAMABLE = {".png", ".jpg", ".jpeg", ".bmp"}  # the formats that TensorFlow can decode
# By Pillow's mode of a file, the mode that its pixels are converted to: L is grey, RGB is colour.
COLOUR_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "LA": "L", "CMYK": "RGB", "YCbCr": "RGB"}


def _open(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode not in COLOUR_MODES:
                raise UserError(f"{path}: expected 8 bits per channel. Received mode {image.mode}.")
            return image.convert(COLOUR_MODES[image.mode])
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"Could not read {path} as a picture: {error}.") from error


def _list(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _labels(folder: Path, paths: list[Path], names: tuple[str, ...]) -> np.ndarray | None:
    if not names:
        return None
    return np.array([names.index(path.relative_to(folder).parts[0]) for path in paths], np.int64)


def _label_names(folder: Path, paths: list[Path]) -> tuple[str, ...]:
    """The names of the sub-folders of `folder`, if every picture is in one; otherwise none."""
    parts = [path.relative_to(folder).parts for path in paths]
    return tuple(sorted({part[0] for part in parts})) if all(len(part) > 1 for part in parts) else ()


def _check_same_format(first: Any, image: Any, first_path: Path, path: Path) -> None:
    if image.size != first.size or COLOUR_MODES.get(image.mode) != first.mode:
        raise UserError(
            "Expected pictures of one size, all grey or all in colour. "
            f"{first_path.name} is {first.width} x {first.height} {first.mode}, "
            f"{path.name} is {image.width} x {image.height} {image.mode}. Convert them first."
        )


def _read_all(paths: list[Path]) -> np.ndarray:
    first = _open(paths[0])
    images = np.empty((len(paths), first.height, first.width, len(first.getbands())), np.uint8)
    for index, path in enumerate(paths):
        image = _open(path)
        _check_same_format(first, image, paths[0], path)
        images[index] = np.asarray(image).reshape(images.shape[1:])
    return images


def _streamed(folder: Path, paths: list[Path], names: tuple[str, ...]) -> Split:
    from kvae.internal.tensorflow import tf

    undecodable = [path.name for path in paths if path.suffix.lower() not in STREAMABLE]
    if undecodable:
        raise UserError(f"Expected PNG, JPEG or BMP pictures for streaming. Received {undecodable[0]}.")
    from PIL import Image, UnidentifiedImageError

    first = _open(paths[0])
    for path in paths:
        try:
            with Image.open(path) as header:  # reads only the header
                _check_same_format(first, header, paths[0], path)
        except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"Could not read {path} as a picture: {error}.") from error
    shape = (first.height, first.width, len(first.getbands()))
    files = np.array([str(path) for path in paths])

    def stream(start: int, stop: int) -> Any:
        return tf.data.Dataset.from_tensor_slices((np.arange(start, stop), files[start:stop]))

    def decode(file: Any) -> Any:
        image = tf.io.decode_image(tf.io.read_file(file), channels=shape[2], expand_animations=False)
        return tf.ensure_shape(image, shape)

    return Split(None, _labels(folder, paths, names), len(paths), shape, stream, decode)


def read(directory: str, streaming: bool = False) -> Source:
    """Reads the splits of a folder of pictures.

    Args:
        directory: the folder, DIR. Without `DIR/test`, a part of the training pictures is held out.
        streaming: whether to decode the pictures when they are needed, instead of all at once.

    Raises:
        UserError: if the folder does not exist, if a split has no picture, if a picture cannot be read, or if the
            pictures differ in size or in the number of channels.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise UserError(f"Expected a folder of pictures. {directory!r} is not a folder.")
    parts = {part: folder / part for part in ("train", "validation", "test") if (folder / part).is_dir()}
    folders = parts if "train" in parts else {"train": folder}
    listed = {part: _list(split_folder) for part, split_folder in folders.items()}
    for part, paths in listed.items():
        if not paths:
            raise UserError(f"No picture in {str(folders[part])!r}. Expected files such as .png or .jpg.")
    names = _label_names(folders["train"], listed["train"])
    splits = {}
    for part, split_folder in folders.items():
        part_names = _label_names(split_folder, listed[part])
        # A split whose classes are not those of the training split has no labels.
        known = names if part_names and set(part_names) <= set(names) else ()
        if streaming:
            splits[part] = _streamed(split_folder, listed[part], known)
        else:
            splits[part] = Split.from_arrays(_read_all(listed[part]), _labels(split_folder, listed[part], known))
    sizes = {split.image_shape for split in splits.values()}
    if len(sizes) > 1:
        raise UserError(f"Expected pictures of one size in {directory}. Received {' and '.join(map(str, sizes))}.")
    name = f"images:{directory}"
    return Source(name, splits, names or None) if "test" in splits else hold_out(name, splits, names or None)
