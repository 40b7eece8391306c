"""The table of the formats of a decoder. A new format is a file and a line in `FORMATS`."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from kvae.internal import user_files
from kvae.internal.errors import UserError, unknown
from kvae.runtime import keras, litert, onnx, savedmodel, web
from kvae.runtime.decoder import Decoder


class Format(NamedTuple):
    """A kind of file or folder that contains a decoder."""

    variants: Mapping[str, str]  # for each variant, its file or folder in a bundle
    holds: Callable[[Path], bool]  # whether a path has this format
    open: Callable[..., Decoder]  # (path, threads=None) -> its decoder
    # (path): raises `UserError` if a file for which no model card vouches must not be opened in this process.
    trial: Callable[[Path], None] | None = None
    own_threads: bool = False  # whether decoders of one process can have different numbers of threads


# `kvae.load` opens the first of these formats that a bundle has.
FORMATS: dict[str, Format] = {
    "tflite": Format(litert.VARIANTS, litert.holds, litert.LiteRTDecoder, litert.try_file, own_threads=True),
    "onnx": Format(onnx.VARIANTS, onnx.holds, onnx.OnnxDecoder, onnx.try_file, own_threads=True),
    "savedmodel": Format(savedmodel.VARIANTS, savedmodel.holds, savedmodel.SavedModelDecoder),
    "web": Format(web.VARIANTS, web.holds, web.WebDecoder),
    "keras": Format({}, keras.holds, keras.open_file),
}


def find(name: str) -> Format:
    """Finds a format.

    Args:
        name: a name in `FORMATS`, or `module:name` for a `Format` in an imported file.

    Raises:
        UserError: if there is no format with this name.
    """
    if ":" in name:
        value = user_files.find(name)
        value = getattr(value, "reading", value)  # that of a `kvae.export.Format`
        if not isinstance(value, Format):
            raise UserError(
                f"Expected {name!r} to be a kvae.runtime.Format or a kvae.export.Format. Received "
                f"{type(value).__name__}."
            )
        return value
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]


def variants() -> dict[str, str]:
    """For each variant of kvae's formats, its file or folder in a bundle."""
    return {name: file for each in FORMATS.values() for name, file in each.variants.items()}


def unknown_variant(received: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not one of the variants `known`; fp16 is usual for float16."""
    usual = received.lower().replace("fp", "float")
    return unknown("variant", received, known, [usual] if usual in known else [])


def open_decoder(path: str | os.PathLike[str], threads: int | None = None, name: str | None = None) -> Decoder:
    """Opens a single decoder.

    Args:
        path: the file or folder, e.g. `decoder.tflite`, `saved_model` or `model.keras`.
        threads: the number of threads of the runtime. By default the runtime decides.
        name: the name of the format. By default the format is determined from the path.

    Raises:
        UserError: if the path has no known format, or if the decoder cannot be opened.
    """
    path = Path(path)
    if name is not None:
        return find(name).open(path, threads)
    for each in FORMATS.values():
        if each.holds(path):
            return each.open(path, threads)
    if not path.exists():
        raise UserError(f"Could not read {path}: there is no such file.")
    raise UserError(
        f"Expected a decoder in one of the formats {', '.join(FORMATS)}. Received {str(path)!r}, which has another."
    )
