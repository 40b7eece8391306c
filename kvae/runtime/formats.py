"""The formats that a decoder can be opened from, by name. A new one is a file and a line in `FORMATS`."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from kvae.internal import user_files
from kvae.internal.errors import UserError, unknown
from kvae.runtime import keras, litert, savedmodel
from kvae.runtime.decoder import Decoder


class Format(NamedTuple):
    """A kind of file or folder that has a decoder in it."""

    variants: Mapping[str, str]  # by the name of a variant, its file or folder in a bundle
    holds: Callable[[Path], bool]  # whether a path is of this format
    open: Callable[..., Decoder]  # (path, threads=None) -> its decoder


# In the order in which a bundle is searched for a decoder.
FORMATS: dict[str, Format] = {
    "tflite": Format(litert.VARIANTS, litert.holds, litert.LiteRTDecoder),
    "savedmodel": Format(savedmodel.VARIANTS, savedmodel.holds, savedmodel.SavedModelDecoder),
    "keras": Format({}, keras.holds, keras.open_file),
}


def find(name: str) -> Format:
    """A format by its name in `FORMATS`, or one of the user's as `module:name`.

    Raises:
        UserError: if there is none of this name.
    """
    if ":" in name:
        found = user_files.find(name)
        found = getattr(found, "reading", found)  # a `kvae.export.Format` has both sides
        if not isinstance(found, Format):
            raise UserError(f"Expected {name!r} to be a kvae.runtime.Format or a kvae.export.Format.")
        return found
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]


def variants() -> dict[str, str]:
    """The file or folder of every variant that kvae's formats write, by its name."""
    return {name: file for each in FORMATS.values() for name, file in each.variants.items()}


def open_decoder(path: str | os.PathLike[str], threads: int | None = None, name: str | None = None) -> Decoder:
    """The decoder in one file or folder.

    Args:
        path: e.g. `decoder.tflite`, `saved_model` or `model.keras`.
        threads: number of threads of the runtime; its own choice by default.
        name: name of the format; found by looking at the path by default.

    Raises:
        UserError: if the path is of no known format, or cannot be opened.
    """
    path = Path(path)
    if name is not None:
        return find(name).open(path, threads)
    for each in FORMATS.values():
        if each.holds(path):
            return each.open(path, threads)
    if not path.exists():
        raise UserError(f"Could not read {path}: there is no such file.")
    raise UserError(f"Expected a decoder, one of {', '.join(FORMATS)}. {str(path)!r} is none of them.")
