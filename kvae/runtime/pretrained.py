"""The pretrained models, which `kvae.load("mnist_2d")` opens by name.

An installed kvae has their bundles in `kvae/pretrained`; setup.py copies them there from `saved_models`. A clone, also
one that is installed with `pip install --editable`, has them in `saved_models` itself.
"""

import difflib
import os
from pathlib import Path
from typing import Any

from kvae.internal.errors import UserError
from kvae.internal.next_command import kvae_command
from kvae.runtime import cards

NAMES = ("mnist_2d", "fashion_2d", "mnist_10d")
# The files of each bundle that are installed. The others, such as the float16 decoder, are in the repository only.
PAGE = "web/index.html"
INSTALLED = (cards.CARD, "decoder.tflite", "decoder_int8.tflite", "README.md", "preview.png", PAGE)
PACKAGE = Path(__file__).parents[1] / "pretrained"
CLONE = Path(__file__).parents[2] / "saved_models"


def folders() -> dict[str, Path]:
    """The bundle of each pretrained model that this installation has, by name."""
    places = {name: (PACKAGE / name, CLONE / name / "bundle") for name in NAMES}
    found = {name: [folder for folder in both if (folder / cards.CARD).is_file()] for name, both in places.items()}
    return {name: existing[0] for name, existing in found.items() if existing}


def find(path: Path) -> Path:
    """The bundle of a pretrained model, if a path is its name and does not exist; any other path as it is."""
    return path if os.path.lexists(path) else folders().get(str(path), path)


def hides(path: Path) -> str:
    """A sentence for a path that exists and has the name of a pretrained model; empty for any other path."""
    if str(path) not in folders() or not os.path.lexists(path):
        return ""
    return f"It hides the pretrained model of this name. To use that, give {folders()[str(path)]}"


def repair(folder: Path) -> str:
    """What to do about a damaged file of a bundle."""
    return "Install kvae again." if folder.parent == PACKAGE else "Export it again."


def describe(name: str) -> dict[str, Any]:
    """What the card of a pretrained model states: its number with the protocol, and the variants that are installed."""
    folder = folders()[name]
    card = cards.read_card(folder)
    metrics, model = card["metrics"], card["model"]
    return {
        "name": name,
        "description": card["description"],
        "folder": str(folder),
        "page": str(folder / PAGE) if (folder / PAGE).is_file() else None,
        "latent_dim": model["latent_dim"],
        "image_shape": model["image_shape"],
        "elbo": metrics["elbo"],
        "elbo_standard_error": metrics["elbo_standard_error"],
        "protocol": metrics["protocol"],
        "variants": {
            each: {"bytes": card["variants"][each]["bytes"], "file": str(folder / cards.file_of(card, each))}
            for each in installed(folder, card)
        },
    }


def does_not_exist(path: Path) -> UserError:
    """The error for a path that does not exist and is not the name of a pretrained model."""
    names = list(folders())
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f" Did you mean the pretrained model {near[0]!r}?" if near else ""
    if len(path.parts) == 1 and names:
        hint += (
            f" Pretrained models: {', '.join(names)}. To make one of your own: kvae train --recipe NAME --out RUN, "
            "then kvae export RUN"
        )
    return UserError(
        "Expected a bundle, a run, a SavedModel, a .tflite, .onnx, .keras or .html file, or the name of a pretrained "
        f"model. Received {str(path)!r}, which does not exist.{hint}"
    )


def has_no_run(path: Path) -> str:
    """A sentence for the name of a pretrained model where a run is expected; empty for any other path."""
    if str(path) not in folders():
        return ""
    run = CLONE / path
    if (run / "config.json").is_file():
        how = f"Its run is {run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run}"
    else:
        how = f"To make its run: {kvae_command('train', '--recipe', path)}"
    return f"The pretrained model {path} is a decoder, for kvae sample and kvae.load. {how}"


def is_left_out(folder: Path, name: str) -> bool:
    """Whether a file that the card of a bundle lists is not installed with a pretrained model."""
    return folder.parent == PACKAGE and name not in INSTALLED and not (folder / name).exists()


def installed(folder: Path, card: dict[str, Any]) -> list[str]:
    """The variants of a bundle but for those that are not installed with a pretrained model."""
    left_out = {file for file in card["files"] if is_left_out(folder, file)}
    return [name for name in cards.present(card) if left_out.isdisjoint(cards.files_of(card, name))]


def check_variant(folder: Path, card: dict[str, Any], variant: str) -> None:
    """Raises `UserError` if a variant of a pretrained model is not installed."""

    here = installed(folder, card)
    if variant not in here:
        raise UserError(
            f"Expected a variant of {folder.name} that is installed: {', '.join(here)}. Received {variant}, which "
            f"is only in the repository of kvae, in saved_models/{folder.name}/bundle."
        )
