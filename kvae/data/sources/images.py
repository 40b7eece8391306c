"""`images:DIR`: a folder of pictures, all of the same size.

The folders `DIR/train`, `DIR/validation` and `DIR/test` are the splits, if they exist; otherwise DIR is the training
split. The sub-folders of a split are the classes of its pictures. What is hidden, such as `.DS_Store`, is left out. The
order is that of the paths, which is no part of the dataset: `Source.shuffled` changes it.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvae.data.split import SEED, Source, Split, hold_out, refuse_ones
from kvae.internal import memory, picture_files
from kvae.internal.errors import KvaeWarning, UserError, stacklevel_of_user
from kvae.internal.quiet_output import silenced

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
# Files and folders of file managers and archive programs, some of which hold small copies of the pictures.
HIDDEN = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}
# By Pillow's mode of a file, the mode that its pixels are converted to: L is grey, RGB is colour.
COLOUR_MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
COLOUR_MODES |= dict.fromkeys(("RGB", "RGBA", "RGBX"), "RGB")
MODES_IN_WORDS = {"L": "grey", "RGB": "colour"}
SHOWN_KINDS = 4  # sizes that a message names
# The formats, with their modes, that TensorFlow decodes to the same pixels as Pillow.
STREAMABLE = {"PNG": set(COLOUR_MODES), "JPEG": set(COLOUR_MODES), "BMP": {"RGB"}}


class _Listing(NamedTuple):
    """The files of a folder."""

    pictures: list[Path]
    hidden: list[Path]  # files and folders
    links: list[Path]  # links to folders, which may form a cycle
    others: list[Path]  # files without the suffix of a picture, and those that are no regular files


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in HIDDEN


def _list(folder: Path) -> _Listing:
    found = _Listing([], [], [], [])
    for parent, folders, files in os.walk(folder, onerror=_refuse_unreadable):
        place = Path(parent)
        found.hidden.extend(place / name for name in (*folders, *files) if _is_hidden(name))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found.links.extend(place / name for name in folders if (place / name).is_symlink())
        for path in (place / name for name in files if not _is_hidden(name)):
            is_picture = path.suffix.lower() in SUFFIXES and os.path.isfile(path)
            (found.pictures if is_picture else found.others).append(path)
    # By their parts, because paths of Windows are compared without case: the order is the same on every machine.
    return _Listing(*(sorted(paths, key=lambda path: path.parts) for paths in found))


def _refuse_unreadable(error: OSError) -> None:
    raise UserError(f"Could not read the folder {error.filename}: {error.strerror}.") from error


def _tell_left_out(directory: str, listings: Sequence[_Listing], beside: list[Path]) -> None:
    """Warns, in one line, of what is in the folders, and of what is beside those of the splits, and is not used."""
    kinds = {"hidden": "hidden files or folders", "links": "links to folders", "others": "files that are not pictures"}
    found = [([path for each in listings for path in getattr(each, kind)], words) for kind, words in kinds.items()]
    found.append((beside, "files or folders beside train, validation and test"))
    parts = [f"{words} ({len(paths)}, such as {paths[0].name!r})" for paths, words in found if paths]
    if parts:
        message = f"images:{directory}: these are not used: {'; '.join(parts)}."
        warnings.warn(message, KvaeWarning, stacklevel=stacklevel_of_user())


def _labels(folder: Path, paths: list[Path], names: tuple[str, ...]) -> np.ndarray | None:
    if not names:
        return None
    return np.array([names.index(path.relative_to(folder).parts[0]) for path in paths], np.int64)


def _label_names(folder: Path, paths: list[Path]) -> tuple[str, ...]:
    """The names of the sub-folders of `folder`, if every picture is in one; otherwise none."""
    parts = [path.relative_to(folder).parts for path in paths]
    return tuple(sorted({part[0] for part in parts})) if all(len(part) > 1 for part in parts) else ()


class _DifferentError(Exception):
    """Two pictures of a folder differ in size or in mode."""


def _check_same(first_path: Path, path: Path, first: tuple[Any, str], received: tuple[Any, str]) -> None:
    """Checks that two pictures have the same size and mode."""
    if received != first:
        raise _DifferentError(f"{first_path}, {path}")


def _different(folder: Path) -> UserError:
    """The error for pictures of several sizes or modes, which says how many there are of each."""
    found: dict[tuple[Any, str], list[Path]] = {}
    for path in (path for split_folder in _folders(folder).values() for path in _list(split_folder).pictures):
        try:
            header = picture_files.header(path)
        except UserError:  # of a damaged picture nothing is known
            continue
        if header.mode in COLOUR_MODES:
            found.setdefault((header.size, COLOUR_MODES[header.mode]), []).append(path)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    texts = [
        f"{len(paths):,} of {size[0]} x {size[1]} {MODES_IN_WORDS[mode]}, such as "
        f"{paths[0].relative_to(folder).as_posix()}"
        for (size, mode), paths in ordered
    ]
    if len(texts) > SHOWN_KINDS:
        texts[SHOWN_KINDS:] = [f"and {len(texts) - SHOWN_KINDS:,} other sizes"]
    ((size, mode), paths), *_ = ordered
    return UserError(
        f"Expected pictures of one size, all grey or all in colour. {str(folder)!r} has {'; '.join(texts)}. Convert "
        "them first, for example in a copy of the folder, in Python: from pathlib import Path; from PIL import Image, "
        f"ImageOps; [ImageOps.fit(Image.open(p).convert({mode!r}), {size}).save(p) for p in "
        f"Path('COPY').rglob('*{paths[0].suffix}')]"
    )


def _tell_alpha(paths: list[Path]) -> None:
    """Warns of pictures with an alpha channel."""
    if paths:
        message = (
            f"{len(paths):,} pictures, such as {paths[0]}, have an alpha channel (transparency), which is left out: "
            "a transparent pixel gets the colour that is stored for it. If this is not what you see in a viewer, draw "
            "the pictures on a background first."
        )
        warnings.warn(message, KvaeWarning, stacklevel=stacklevel_of_user())


def _read_all(paths: list[Path]) -> np.ndarray:
    first = picture_files.read(paths[0], COLOUR_MODES)
    shape = (len(paths), first.height, first.width, len(first.getbands()))
    memory.check(
        2 * int(np.prod(shape, dtype=object)),  # with a copy where a part is held out
        f"{len(paths)} pictures of {first.width} x {first.height}, such as {paths[0]},",
        "Read them from disk in batches with streaming (--set data.streaming=true).",
    )
    images, with_alpha = np.empty(shape, np.uint8), []
    for index, path in enumerate(paths):
        image, alpha = picture_files.read_noting_alpha(path, COLOUR_MODES)
        with_alpha += [path] if alpha else []
        _check_same(paths[0], path, (first.size, first.mode), (image.size, image.mode))
        images[index] = np.asarray(image).reshape(shape[1:])
    _tell_alpha(with_alpha)
    return images


def _streamed(root: Path, folder: Path, paths: list[Path], names: tuple[str, ...]) -> Split:
    first = picture_files.read(paths[0], COLOUR_MODES)
    headers = [picture_files.header(path) for path in paths]
    _tell_alpha([path for path, header in zip(paths, headers, strict=True) if header.alpha])
    for path, header in zip(paths, headers, strict=True):
        if header.turned or header.mode not in STREAMABLE.get(header.format, ()):
            kind = f"{header.format} of mode {header.mode}" + (", rotated by its EXIF data" if header.turned else "")
            raise UserError(
                f"Expected PNG, JPEG or 24-bit BMP pictures without a rotation, for streaming. {path.name} is {kind}. "
                "Convert it first, or read the pictures without streaming."
            )
        _check_same(paths[0], path, (first.size, first.mode), (header.size, COLOUR_MODES[header.mode]))
    shape = (first.height, first.width, len(first.getbands()))
    return _stream(root, paths, _labels(folder, paths, names), shape)


def _relative(root: Path, paths: list[Path]) -> np.ndarray:
    """The paths `[N]` relative to a folder, with slashes on every machine."""
    return np.array([path.relative_to(root).as_posix() for path in paths])


def _stream(root: Path, paths: list[Path], labels: np.ndarray | None, shape: tuple[int, ...]) -> Split:
    """A split of pictures that are decoded when they are needed, in the order of their paths."""
    from kvae.internal.tensorflow import tf, unconverted

    files, names = np.array([str(path) for path in paths]), _relative(root, paths)

    def stream(start: int, stop: int) -> Any:
        return tf.data.Dataset.from_tensor_slices((np.arange(start, stop), files[start:stop]))

    @unconverted
    def decode(file: Any) -> Any:
        content = tf.io.read_file(file)
        image = tf.cond(
            tf.strings.substr(content, 0, 2) == b"BM",
            lambda: tf.io.decode_bmp(content, channels=shape[2]),
            # This decodes PNG as well. With this method, which is not the default, JPEG has the pixels of Pillow.
            lambda: tf.io.decode_jpeg(content, channels=shape[2], dct_method="INTEGER_ACCURATE"),
        )
        return tf.ensure_shape(image, shape)

    def check(start: int, stop: int) -> None:
        options = tf.data.Options()
        options.autotune.enabled = False  # autotuning can delay the end of an iteration by seconds
        # One after another: a picture that is decoded ahead could write its line after the block.
        decoded = (
            stream(start, stop).map(unconverted(lambda _, file: decode(file))).with_options(options).as_numpy_iterator()
        )
        greatest = 0
        with silenced():  # libjpeg of TensorFlow writes a line for some damaged files
            for path in paths[start:stop]:
                expected = np.asarray(picture_files.read(path, COLOUR_MODES))
                greatest = max(greatest, int(expected.max()))
                try:
                    same = np.array_equal(next(decoded).reshape(-1), expected.reshape(-1))
                except tf.errors.OpError:
                    same = False
                if not same:
                    raise UserError(
                        f"{path} cannot be streamed, because TensorFlow and Pillow do not decode it to the same "
                        "pixels; it may be damaged. Save it again, or read the pictures without streaming."
                    )
        refuse_ones(greatest, f"the pictures of {root}")

    def reordered(rows: np.ndarray) -> Split:
        chosen = [paths[row] for row in rows]
        return _stream(root, chosen, None if labels is None else labels[rows], shape)

    def state() -> tuple[str, Any]:
        facts = [os.stat(path) for path in paths]
        listed = zip(names.tolist(), facts, strict=True)
        return str(root.absolute()), [(name, fact.st_size, fact.st_mtime_ns) for name, fact in listed]

    return Split(
        None, labels, len(paths), shape, stream, decode, check=check, reordered=reordered, state=state, files=names
    )


def read(directory: str, streaming: bool = False) -> Source:
    """Reads the splits of a folder of pictures.

    Args:
        directory: the folder, DIR. Without `DIR/test`, a part of the training pictures is held out.
        streaming: whether to decode the pictures when they are needed, instead of all at once.

    Raises:
        UserError: if the folder does not exist, if a split has no picture, if a picture cannot be read, or if the
            pictures differ in size or in the number of channels.

    Warns:
        KvaeWarning: if something in the folder, or the alpha channel of pictures, is left out.
    """
    folder = Path(directory)
    if not os.path.isdir(folder):
        raise UserError(f"Expected a folder of pictures. {directory!r} is not a folder.")
    try:
        return _read(directory, folder, streaming)
    except _DifferentError:
        raise _different(folder) from None


def _folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits."""
    parts = {part: folder / part for part in ("train", "validation", "test") if os.path.isdir(folder / part)}
    return parts if "train" in parts else {"train": folder}


def _read(directory: str, folder: Path, streaming: bool) -> Source:
    folders = _folders(folder)
    listings = {part: _list(split_folder) for part, split_folder in folders.items()}
    used = {split_folder.name for split_folder in folders.values()}
    beside = [folder / name for name in sorted(os.listdir(folder)) if name not in used and not _is_hidden(name)]
    _tell_left_out(directory, list(listings.values()), [] if folders["train"] == folder else beside)
    listed = {part: listing.pictures for part, listing in listings.items()}
    for part, paths in listed.items():
        if not paths:
            raise UserError(f"Expected pictures in {str(folders[part])!r}, such as .png or .jpg files. Found none.")
    names = _label_names(folders["train"], listed["train"])
    splits = {}
    for part, split_folder in folders.items():
        part_names = _label_names(split_folder, listed[part])
        # A split whose classes are not those of the training split has no labels.
        known = names if part_names and set(part_names) <= set(names) else ()
        if streaming:
            splits[part] = _streamed(folder, split_folder, listed[part], known)
        else:
            labels = _labels(split_folder, listed[part], known)
            splits[part] = Split.from_arrays(_read_all(listed[part]), labels, _relative(folder, listed[part]))
    sizes = {split.image_shape for split in splits.values()}
    if len(sizes) > 1:
        raise UserError(f"Expected pictures of one size in {directory}. Received {' and '.join(map(str, sizes))}.")
    name = f"images:{directory}"
    if "test" not in splits:
        return hold_out(name, splits, names or None)
    return Source(name, splits, names or None, notes_if_shuffled=(f"all images are in a random order (seed {SEED})",))
