"""Use of exported decoders. With a .tflite decoder it needs NumPy and ai-edge-litert, but not TensorFlow.

    decoder = kvae.runtime.load("mnist_2d")
    images, means, z = decoder.sample(kvae.runtime.seeds(64, seed=1))
    kvae.runtime.save_picture("samples.png", kvae.runtime.sheet(means))

Importing this package loads neither TensorFlow nor Keras. Each format of a decoder is one file and a line in
`formats.py`.
"""

import os
import warnings
from pathlib import Path

from kvae.internal.errors import KvaeWarning, UserError
from kvae.internal.missing_packages import MissingPackageError, explained
from kvae.internal.next_command import kvae_command
from kvae.internal.pictures import save_picture, sheet, tile
from kvae.noise.portable import seeds
from kvae.runtime import cards, formats, pretrained
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
    "sheet",
    "tile",
]


def load(path: str | os.PathLike[str], variant: str | None = None, threads: int | None = None) -> Decoder:
    """Opens the decoder of a run or a bundle, or a single decoder that kvae exported.

    For a run, the decoder of its bundle is opened, which needs no TensorFlow. If the run has no bundle, its Keras model
    is opened.

    A file of a bundle must have the SHA-256 that the model card states, also if the file itself is named. A .tflite
    file without a model card beside it is first tried in another process, which takes about 0.4 seconds, because a
    damaged one can crash LiteRT. Weights that are damaged and still give finite means are noticed only by a card.

    Args:
        path: the file or folder, e.g. `saved_models/mine`, `bundle`, `decoder_int8.tflite` or `saved_model`; or the
            name of a pretrained model, e.g. `mnist_2d`. A path that exists wins over a name.
        variant: the variant of a bundle's decoder: `float32`, `float16`, `int8`, `full_int8`, `saved_model`, ... By
            default the first one that the bundle has.
        threads: the number of threads of the runtime. By default the runtime decides.

    Returns:
        The decoder.

    Raises:
        UserError: if there is no decoder, if it is damaged, or if it is not one that kvae exported.

    Warns:
        KvaeWarning: if the run was trained further after its bundle was made. Its Keras model is then opened.
    """
    try:
        return _load(pretrained.find(Path(path)), variant, threads)
    except MissingPackageError:
        raise
    except UserError as error:
        hidden = pretrained.hides(Path(path))
        if not hidden:
            raise
        raise UserError(f"{error} {hidden}") from error


def _load(path: Path, variant: str | None, threads: int | None) -> Decoder:
    """The decoder in a path, which is not the name of a pretrained model."""
    folder = cards.find_bundle(path)
    if folder is None:
        return _load_alone(path, variant, threads)
    card = cards.read_card(folder)
    present = cards.present(card)
    if variant is not None and variant not in present and variant not in {**VARIANTS, **card["variants"]}:
        raise formats.unknown_variant(variant, {**VARIANTS, **card["variants"]})
    if folder != path and not cards.is_fresh(path, card):
        message = f"{folder} was made of another model than {path / MODEL}."
        again = f"To make it again: {kvae_command('export', path, '--overwrite')}"
        if variant is not None:
            raise UserError(f"{message} {again}")
        warnings.warn(f"{message} The Keras model itself is used. {again}", KvaeWarning, stacklevel=3)
        return _keras_model(path, threads)
    if not present and variant is None and (path / MODEL).is_file():
        return _keras_model(path, threads)
    chosen = next(iter(present), "float32") if variant is None else variant
    if chosen not in present:
        raise UserError(f"{str(folder)!r} has no {chosen} decoder. It has: {', '.join(present) or 'none'}.")
    pretrained.check_variant(folder, card, chosen)
    for name in cards.files_of(card, chosen):
        cards.check_file(folder, name, card["files"][name], pretrained.repair(folder))
    return cards.open_variant(folder, card, chosen, threads)


def _keras_model(run: Path, threads: int | None) -> Decoder:
    """The Keras model of a run without a bundle."""
    try:
        return open_decoder(run / MODEL, threads).with_class_names(cards.class_names_of_run(run))
    except (ModuleNotFoundError, MissingPackageError) as error:
        reason = explained(error)
        if not isinstance(reason, MissingPackageError):
            raise
        raise MissingPackageError(
            f"{str(run)!r} has no bundle of its model, which itself needs the full installation of kvae. Where that "
            f"is, run {kvae_command('export', run)}; a bundle is opened without it."
        ) from None


def _load_alone(path: Path, variant: str | None, threads: int | None) -> Decoder:
    """The decoder in a path without a bundle: a single decoder, or a run."""
    if variant is not None and variant not in VARIANTS:
        raise formats.unknown_variant(variant, VARIANTS)
    if not path.exists():
        raise pretrained.does_not_exist(path)
    found = next((each for each in FORMATS.values() if each.holds(path)), None)
    if found is not None:
        if variant is not None:
            raise UserError(
                f"Expected a bundle or a run if a variant is named. Received {str(path)!r}, which is a single decoder."
            )
        if not cards.vouches(path) and found.trial is not None:
            found.trial(path)
        return found.open(path, threads).with_class_names(cards.class_names_beside(path))
    if (path / MODEL).is_file() and variant is None:
        return _keras_model(path, threads)
    if (path / "config.json").is_file() and variant is None:
        raise UserError(
            f"{str(path)!r} has no {MODEL}: its training has not finished. To finish it: "
            f"{kvae_command('train', '--resume', '--out', path)}"
        )
    raise UserError(
        f"Expected a bundle, which has a {CARD}. Received {str(path)!r}, which has none. To make a bundle: "
        f"{kvae_command('export', 'RUN', '--out', 'DIR')}"
    )
