"""Sampling without TensorFlow: a bundle or a .tflite decoder, NumPy and ai-edge-litert.

    decoder = kvae.runtime.load("saved_models/mnist_2d")
    images, means, z = decoder.sample(kvae.runtime.seeds(64, seed=1))

Importing this folder loads neither TensorFlow nor Keras. Each format that a decoder can be opened from is one file and
a line in `formats.py`.
"""

import os
import warnings
from pathlib import Path

from kvae.internal.errors import KvaeWarning, UserError, unknown
from kvae.internal.pictures import save_picture, tile
from kvae.noise.portable import seeds
from kvae.runtime import cards, formats
from kvae.runtime.cards import CARD, MODEL
from kvae.runtime.decoder import Decoded, Decoder, Sample
from kvae.runtime.formats import FORMATS, Format, open_decoder

VARIANTS = formats.variants()
__all__ = [
    "CARD",
    "FORMATS",
    "VARIANTS",
    "Decoded",
    "Decoder",
    "Format",
    "Sample",
    "load",
    "open_decoder",
    "save_picture",
    "seeds",
    "tile",
]


def load(path: str | os.PathLike[str], variant: str | None = None, threads: int | None = None) -> Decoder:
    """A decoder from a run, a bundle, or one file or folder that kvae exported.

    Of a run it is that of its bundle, which needs no TensorFlow, or of its Keras model if there is no bundle of it.

    Args:
        path: e.g. `saved_models/mnist_2d`, `bundle`, `decoder_int8.tflite` or `saved_model`.
        variant: which decoder of a bundle: `float32`, `float16`, `int8`, `full_int8`, `saved_model`, ...; the first
            that it has by default.
        threads: number of threads of the runtime; its own choice by default.

    Raises:
        UserError: if there is none, it is damaged, or it is not one that kvae exported.

    Warns:
        KvaeWarning: if a run was trained on after its bundle was made, so that its Keras model is taken.
    """
    path = Path(path)
    folder = cards.find_bundle(path)
    if folder is None:
        return _load_alone(path, variant, threads)
    card = cards.read_card(folder)
    present = cards.present(card)
    if variant is not None and variant not in present and variant not in {**VARIANTS, **card["variants"]}:
        raise unknown("variant", variant, {**VARIANTS, **card["variants"]})
    if folder != path and not cards.is_fresh(path, card):
        again = f"{folder} is of another model than {path / MODEL}. Make it again: kvae export {path} --overwrite"
        if variant is not None:
            raise UserError(again)
        warnings.warn(f"{again}. Until then its Keras model is used.", KvaeWarning, stacklevel=2)
        return open_decoder(path / MODEL, threads)
    if not present and variant is None and (path / MODEL).is_file():
        return open_decoder(path / MODEL, threads)
    wanted = next(iter(present), "float32") if variant is None else variant
    if wanted not in present:
        raise UserError(f"{str(folder)!r} has no {wanted} decoder. It has: {', '.join(present) or 'none'}.")
    for name in cards.files_of(card, wanted):
        cards.check_file(folder, name, card["files"][name])
    return cards.open_variant(folder, card, wanted, threads)


def _load_alone(path: Path, variant: str | None, threads: int | None) -> Decoder:
    """The decoder of what is not a bundle and has none: one file or folder, or a run."""
    if variant is not None and variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    if not path.exists():
        raise UserError(f"Expected a bundle, a run that has one, or a .tflite file. {str(path)!r} does not exist.")
    if any(each.holds(path) for each in FORMATS.values()):
        if variant is not None:
            raise UserError(f"Expected a variant of a bundle or a run. {str(path)!r} is one decoder.")
        return open_decoder(path, threads)
    if (path / MODEL).is_file() and variant is None:
        return open_decoder(path / MODEL, threads)
    if (path / "config.json").is_file() and variant is None:
        raise UserError(
            f"{str(path)!r} has no {MODEL}: its training has not finished. Finish it: kvae train --resume --out {path}"
        )
    raise UserError(f"Expected a bundle, with a {CARD}. {str(path)!r} has none; make one: kvae export RUN --out DIR")
