"""Readers of data, one file per format. A new format is a file with a function `read` and a line in `READERS`."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path

from kvae.data.sources import csv, idx, images, npz, paths, tfds
from kvae.data.split import Source
from kvae.internal import user_files
from kvae.internal.errors import UserError
from kvae.internal.next_command import quoted
from kvae.internal.visible import visible

# For each kind, a function (place) -> Source, or (place, streaming) -> Source if it can also read from disk in batches.
READERS: dict[str, Callable[..., Source]] = {
    "idx": idx.read,
    "csv": csv.read,
    "npz": npz.read,
    "images": images.read,
}
FOLDERS = ("idx", "images")  # kinds whose place is a folder; that of the others is a file
MNIST5K = Path(__file__).parents[1] / "mnist5k.npz"


def open_source(source: str | Source, streaming: bool = False) -> Source:
    """Opens a source.

    Args:
        source: `mnist5k`, the name of a TFDS dataset, `KIND:PLACE` with a kind in `READERS`, or `MODULE:FUNCTION:PLACE`
            for a reader in an imported file. A `Source` is returned unchanged.
        streaming: whether to read the images from disk in batches instead of into memory. Not all readers can do so.

    Returns:
        The splits of the source.

    Raises:
        UserError: if the source is unknown, if its content is not valid, or if it cannot be streamed.
    """
    if isinstance(source, Source):
        return source
    if not isinstance(source, str):
        raise UserError(f"Expected the name of a dataset such as mnist5k, mnist or csv:FILE. Received {source!r}.")
    reader, place = _reader_and_place(source)
    if not source or not place:
        raise UserError(f"Expected a dataset such as mnist5k, mnist, idx:DIR or csv:FILE. Received {source!r}.")
    _check_form(source)
    if can_stream(source):
        return reader(place, streaming)
    if streaming:
        raise UserError(
            f"Expected a TFDS dataset or images:DIR for streaming. Received {source!r}, which cannot be streamed. "
            "Read it into memory without streaming."
        )
    return reader(place)


def can_stream(source: str) -> bool:
    """Whether the images of a source can be read from disk in batches. Raises `UserError` if it is unknown."""
    return "streaming" in inspect.signature(_reader_and_place(source)[0]).parameters


def _check_form(source: str) -> None:
    """Raises `UserError` if a source is a file where its kind is a folder, or a folder where its kind is a file."""
    kind, _, place = source.partition(":")
    meant = paths.source_of(place) if kind in READERS else None
    if meant is not None and os.path.isdir(place) != (kind in FOLDERS):
        expected, received = ("folder", "file") if kind in FOLDERS else ("file", "folder")
        raise UserError(
            f"Expected a {expected} in {source!r}. Received a {received}; to read it, write {visible(quoted(meant))}"
        )


def _reader_and_place(source: str) -> tuple[Callable[..., Source], str]:
    """The function that reads a source, and its argument: a path, or the name of a dataset."""
    kind, colon, place = source.partition(":")
    if source == "mnist5k":
        return _mnist5k, source
    if colon and kind in READERS:
        return READERS[kind], place
    if colon and user_files.is_imported(kind):
        name, _, place = place.partition(":")
        return user_files.find(f"{kind}:{name}"), place
    return tfds.read, source


def _mnist5k(_: str) -> Source:
    digits = npz.read(str(MNIST5K))
    return Source("mnist5k", digits.splits, tuple("0123456789"))


def is_of_user(source: str) -> bool:
    """Whether a source consists of the user's own files, so that it is neither mnist5k nor a dataset of TFDS."""
    return _reader_and_place(source)[0] not in (tfds.read, _mnist5k)


def absolute(source: str) -> str:
    """The same source with absolute paths of its files, so that it can be read from any folder."""
    place = _reader_and_place(source)[1]
    if not is_of_user(source) or not place:
        return source
    prefix = source.removesuffix(place)
    if prefix.partition(":")[0] not in READERS and not Path(place).exists():
        return source
    parts = place.split(",") if prefix == "csv:" else [place]  # csv:TRAIN,TEST; elsewhere a comma is one of the name
    return prefix + ",".join(str(Path(part).absolute()) for part in parts)
