"""The table of the kinds of pictures of a model, and `draw`, which makes the files of one kind.

`kvae plot RUN KIND`, `training.plots` of a recipe and `kvae.training.callbacks.Plots` accept the names in `KINDS`. Each
kind computes arrays from a model and its data, which `kvae.plotting.drawing` draws.

| kind | module |
|---|---|
| samples, reconstructions, interpolation, outliers | `image_figures.py` |
| latent_scatter, lattice, map | `latent_figures.py` |
| completion, posterior_contours | `completion_figures.py` |
| learning_curves | here |
"""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kvae.internal import with_options
from kvae.internal.errors import UserError, unknown
from kvae.plotting import drawing
from kvae.plotting.completion_figures import completion, completion_rows, contour_panels, posterior_contours
from kvae.plotting.image_figures import interpolation, outliers, reconstructions, samples
from kvae.plotting.latent_figures import latent_map, latent_scatter, lattice
from kvae.plotting.subject import Drawings, Subject, Unsuitable

__all__ = [
    "KINDS", "Drawings", "Subject", "Unsuitable", "check_kinds", "completion", "completion_rows", "contour_panels",
    "draw", "interpolation", "latent_map", "latent_scatter", "lattice", "learning_curves", "options_of",
    "outliers", "parse", "posterior_contours", "reconstructions", "samples",
]  # fmt: skip


def learning_curves(subject: Subject) -> Drawings:
    """The loss, reconstruction and KL of every epoch, on the training data and on the held-out data."""
    if subject.history is None:
        raise Unsuitable("Expected a history of the training. Received none.")
    return {"learning_curves": drawing.learning_curves(subject.history, subject.held_out)}


KINDS: dict[str, Callable[..., Drawings]] = {
    "samples": samples,
    "reconstructions": reconstructions,
    "latent_scatter": latent_scatter,
    "lattice": lattice,
    "map": latent_map,
    "interpolation": interpolation,
    "outliers": outliers,
    "learning_curves": learning_curves,
    "completion": completion,
    "posterior_contours": posterior_contours,
}


OF_A_CONDITION = ("learning_curves", "samples")  # the kinds that a conditional model has


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """A kind with options, as a recipe writes it in `training.plots`: `lattice`, or `lattice(n=50, seamless=true)`.

    Returns:
        The name of the kind, and its options by name. Their values are written as in TOML.

    Raises:
        UserError: if the kind or an option is unknown, or if the text is not of this form.
    """
    kind, options = with_options.parse(text, "kind of plot", KINDS, "lattice(n=50, seamless=true)")
    check_options(kind, options)
    return kind, options


def check_kinds(kinds: Iterable[str]) -> None:
    """Raises `UserError`, with the nearest match, if a kind is not in `KINDS` or has an unknown option; see `parse`."""
    for kind in kinds:
        parse(kind)


def check_options(kind: str, options: Iterable[str]) -> None:
    """Raises `UserError`, with the nearest match, if a kind does not have an option of this name."""
    for option in options:
        if option not in options_of(kind):
            raise unknown(f"option of {kind}", option, options_of(kind))


def options_of(kind: str) -> set[str]:
    """The names of the options of a kind."""
    return set(inspect.signature(KINDS[kind]).parameters) - {"subject"}


def draw(
    kind: str, subject: Subject, folder: str | Path, *, suffix: str = ".png", label: str = "", **options: Any
) -> list[Path]:
    """Draws one kind of picture and writes it into a folder.

    Args:
        kind: a name in `KINDS`, with options or without, as in `parse`.
        subject: the model, its data and its history.
        folder: the folder for the files.
        suffix: the suffix of the files: `.png`, `.svg` or `.pdf`.
        label: a label to append to the names of the files, for example `epoch_0010`.
        **options: keyword arguments of the kind's function, which win over those in `kind`.

    Returns:
        The paths of the files, one or more.

    Raises:
        UserError: if the kind or an option is unknown, or if the files cannot be written.
        Unsuitable: if the kind cannot be made of this model or these data; a `UserError` too.
    """
    name, chosen = parse(kind)
    check_options(name, options)
    if subject.vae.condition_shape is not None and name not in OF_A_CONDITION:
        raise Unsuitable(
            f"Expected a model without a condition for {name}. This model needs a condition for every image."
        )
    drawing.check_suffix(f"{name}{suffix}")
    if not set(label + suffix).isdisjoint("/\\"):
        raise UserError(f"Expected a label and a suffix of file names. Received {label!r} and {suffix!r}.")
    paths = []
    for file, picture in KINDS[name](subject, **{**chosen, **options}).items():
        path = Path(folder) / f"{file}{'_' * bool(label)}{label}{suffix}"
        drawing.save(picture, path)
        paths.append(path)
    return paths
