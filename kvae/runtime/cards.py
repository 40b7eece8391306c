"""Reads bundles and their model cards, without TensorFlow."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvae.internal import files, replacing, sealed
from kvae.internal.errors import UserError
from kvae.runtime import formats
from kvae.runtime.decoder import Decoder

CARD = "model_card.json"
VERSION = 1
FIELDS = {  # the fields that a model card must have, with their types
    "format": int,
    "model": dict,
    "variants": dict,
    "tolerances": dict,
    "reference": dict,
    "files": dict,
    "run": dict,
}
MODEL = "model.keras"  # the model in the folder of a run
CLASS_NAMES = "class_names"  # of a conditional model: a key of config.json, and of `model` in a model card


def find_bundle(path: Path) -> Path | None:
    """The folder of a bundle: the path itself, or `bundle` in it; None if neither is a bundle."""
    return next((folder for folder in (path, path / "bundle") if (folder / CARD).is_file()), None)


def is_fresh(run: Path, card: dict[str, Any]) -> bool:
    """Whether a model card describes the present model of a run."""
    model = run / MODEL
    return not model.is_file() or files.digest(model) == card["run"].get(MODEL, {}).get("sha256")


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the model card of a bundle.

    Raises:
        UserError: if it cannot be read, if it is damaged, or if it is not a model card of kvae.

    Warns:
        KvaeWarning: if it has no digest of its own content, because an earlier version of kvae wrote it.
    """
    card = sealed.read(folder / CARD)
    missing = [name for name, kind in FIELDS.items() if not isinstance(card.get(name), kind)]
    if missing:
        raise UserError(
            f"{folder / CARD} is not the model card of a bundle: {', '.join(missing)} missing or of another type."
        )
    if card["format"] != VERSION:
        raise UserError(
            f"Expected {folder / CARD} in format {VERSION}, which this version of kvae reads. Received format "
            f"{card['format']}."
        )
    for name in ("files", "run", "variants", "tolerances"):
        wrong = [key for key, facts in card[name].items() if not isinstance(facts, dict) or not _is_within(key)]
        if wrong:
            raise UserError(f"{folder / CARD} is not the model card of a bundle: {name} has {wrong[0]!r}.")
    for name in card["variants"]:
        if not (_is_within(file_of(card, name)) and isinstance(card["variants"][name].get("format"), str | None)):
            raise UserError(f"{folder / CARD} is not the model card of a bundle: variants has {name!r}.")
    return card


def _is_within(name: Any) -> bool:
    """Whether a name is a relative path that does not leave the bundle."""
    return isinstance(name, str) and "\0" not in name and not os.path.isabs(name) and ".." not in Path(name).parts


def strangers(folder: Path) -> list[str]:
    """The files in the folder of a bundle that its card does not list, so that kvae did not write them.

    Raises:
        UserError: if the folder is not a bundle.
    """
    if not (folder / CARD).is_file():
        raise UserError(f"It has no {CARD}.")
    card = read_card(folder)
    return sorted(set(replacing.files_in(folder)) - {CARD, *card["files"]})


def file_of(card: dict[str, Any], variant: str) -> str:
    """The file or folder of a variant in its bundle. Cards of kvae 0.2 do not state it: it has its usual name."""
    return card["variants"][variant].get("file", formats.variants().get(variant, variant))


def files_of(card: dict[str, Any], variant: str) -> Iterator[str]:
    """The files of a variant that its card lists: a single file, or those in its folder."""
    file = file_of(card, variant)
    return (name for name in card["files"] if name == file or name.startswith(f"{file}/"))


def check_file(folder: Path, name: str, stated: dict[str, Any], repair: str = "Export it again.") -> None:
    """Raises `UserError` if a file of a bundle has not the SHA-256 that its card states.

    Args:
        folder: the bundle.
        name: the file in it.
        stated: what the card states of the file.
        repair: what the message says to do.
    """
    try:
        actual = files.digest(folder / name)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}. {repair}") from error
    if actual != stated.get("sha256"):
        raise UserError(f"{folder / name} is not the file that {CARD} states: it was changed or damaged. {repair}")


def vouches(path: Path) -> bool:
    """Whether the model card of a bundle states the SHA-256 of a single decoder in it, and its files have them.

    The card is beside the decoder or, as for `web/index.html`, in the folder above.

    Raises:
        UserError: if they have another, or if the card cannot be read.
    """
    path = path.absolute()
    for folder in path.parents[:2]:
        if not (folder / CARD).is_file():
            continue
        card, own = read_card(folder), path.relative_to(folder).as_posix()
        names = [name for name in card["files"] if name == own or name.startswith(f"{own}/")]
        for name in names:
            check_file(folder, name, card["files"][name])
        if names:
            return True
    return False


def present(card: dict[str, Any]) -> list[str]:
    """The variants whose files the card lists, in the order of the formats."""
    order = [*formats.variants(), *card["variants"]]
    return [name for name in dict.fromkeys(order) if name in card["variants"] and any(files_of(card, name))]


def open_variant(folder: Path, card: dict[str, Any], variant: str, threads: int | None = None) -> Decoder:
    """Opens one variant of a bundle without a check of its files.

    Raises:
        UserError: if the decoder cannot be opened.
    """
    decoder = formats.open_decoder(folder / file_of(card, variant), threads, card["variants"][variant].get("format"))
    return decoder.with_class_names(card["model"].get(CLASS_NAMES))


def class_names_beside(path: Path) -> Any:
    """The names of the classes in the model card beside a single decoder; None if there are none."""
    return read_card(path.parent)["model"].get(CLASS_NAMES) if (path.parent / CARD).is_file() else None


def class_names_of_run(run: Path) -> Any:
    """The names of the classes in the config.json of a run; None if there are none."""
    config = files.read_json(run / "config.json") if (run / "config.json").is_file() else None
    return config.get(CLASS_NAMES) if isinstance(config, dict) else None
