"""The bundle and its model card, as a program without TensorFlow reads them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvae.internal import files
from kvae.internal.errors import UserError
from kvae.runtime import formats
from kvae.runtime.decoder import Decoder

CARD = "model_card.json"
VERSION = 1
FIELDS = {  # of a model card, that reading it relies on
    "format": int,
    "model": dict,
    "variants": dict,
    "tolerances": dict,
    "reference": dict,
    "files": dict,
    "run": dict,
}
MODEL = "model.keras"  # of a run


def find_bundle(path: Path) -> Path | None:
    """The bundle that a folder is, or has as `bundle/`."""
    return next((folder for folder in (path, path / "bundle") if (folder / CARD).is_file()), None)


def is_fresh(run: Path, card: dict[str, Any]) -> bool:
    """Whether a card is of the model that a run has now."""
    model = run / MODEL
    return not model.is_file() or files.digest(model) == card["run"].get(MODEL, {}).get("sha256")


def read_card(folder: Path) -> dict[str, Any]:
    """The model card of a bundle.

    Raises:
        UserError: if it is not a card of kvae.
    """
    card = files.read_json(folder / CARD)
    missing = [
        name for name, kind in FIELDS.items() if not isinstance(card, dict) or not isinstance(card.get(name), kind)
    ]
    if missing:
        raise UserError(f"{folder / CARD} is not the model card of a bundle: {', '.join(missing)} missing or changed.")
    if card["format"] != VERSION:
        raise UserError(f"{folder / CARD} is of format {card['format']}. This version of kvae reads format {VERSION}.")
    for name in ("files", "run", "variants", "tolerances"):
        wrong = [key for key, facts in card[name].items() if not isinstance(facts, dict) or not _is_within(key)]
        if wrong:
            raise UserError(f"{folder / CARD} is not the model card of a bundle: {name} has {wrong[0]!r}.")
    for name in card["variants"]:
        if not _is_within(file_of(card, name)):
            raise UserError(f"{folder / CARD} is not the model card of a bundle: variants has {name!r}.")
    return card


def _is_within(name: Any) -> bool:
    """Whether a name is of something within a bundle."""
    return isinstance(name, str) and "\0" not in name and not os.path.isabs(name) and ".." not in Path(name).parts


def file_of(card: dict[str, Any], variant: str) -> str:
    """The file or folder of a variant in its bundle; cards of kvae 0.2 do not state it."""
    return card["variants"][variant].get("file", formats.variants().get(variant, variant))


def files_of(card: dict[str, Any], variant: str) -> Iterator[str]:
    """The files of a variant that its card lists: one, or those in its folder."""
    own = file_of(card, variant)
    return (name for name in card["files"] if name == own or name.startswith(f"{own}/"))


def check_file(folder: Path, name: str, stated: dict[str, Any]) -> None:
    """Raises `UserError` if a file of a bundle is not the one that its card states."""
    try:
        digest = files.digest(folder / name)
    except OSError as error:
        raise UserError(f"Could not read {folder / name}: {error.strerror or error}.") from error
    if digest != stated.get("sha256"):
        raise UserError(
            f"{folder / name} is not the file that {CARD} states: it was changed or damaged. Export it again."
        )


def present(card: dict[str, Any]) -> list[str]:
    """The variants of a bundle that its card lists a file of, in the order of the formats."""
    order = [*formats.variants(), *card["variants"]]
    return [name for name in dict.fromkeys(order) if name in card["variants"] and any(files_of(card, name))]


def open_variant(folder: Path, card: dict[str, Any], variant: str, threads: int | None = None) -> Decoder:
    """The decoder of one variant of a bundle, its files not checked.

    Raises:
        UserError: if it cannot be opened.
    """
    return formats.open_decoder(folder / file_of(card, variant), threads, card["variants"][variant].get("format"))
