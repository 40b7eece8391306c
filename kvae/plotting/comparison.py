"""A figure of several runs. Like `drawing`, this module knows arrays and no models."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kvae.internal.errors import UserError
from kvae.plotting.curves import cut_first_epochs
from kvae.plotting.drawing import COLOURS
from kvae.plotting.words import Figure, legend

STYLES = ("-", "--", "-.", ":")
MOST = len(COLOURS) * len(STYLES)  # curves that can be distinguished
LONGEST = 40  # characters of a name in the legend


class Curve(NamedTuple):
    """The ELBO of one run by epoch."""

    name: str
    epochs: np.ndarray  # [E]
    elbo: np.ndarray  # [E], nats per image; NaN for an epoch in which it was not measured
    images: str  # the set that it was measured on: training, validation or test
    kept: int | None = None  # the epoch whose weights early stopping kept


def elbo_curves(curves: Sequence[Curve]) -> Figure:
    """The ELBO by epoch of several runs over one another. A ring marks the epoch whose weights were kept.

    Args:
        curves: the curves, in the order of the legend.

    Raises:
        UserError: if there is no curve with a value, or if there are more than can be distinguished.
    """
    if not any(np.isfinite(curve.elbo).any() for curve in curves):
        raise UserError("Expected a history of at least one epoch. Received none.")
    if len(curves) > MOST:
        raise UserError(f"Expected at most {MOST} runs in one figure. Received {len(curves)}.")
    figure = Figure(figsize=(8.4, max(4.2, 1.2 + 0.22 * len(curves))), layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        measured = np.isfinite(curve.elbo)
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(
            curve.epochs[measured],
            curve.elbo[measured],
            color=colour,
            linestyle=STYLES[number // len(COLOURS)],
            marker="o" if measured.sum() == 1 or not measured.all() else None,
            markersize=3,
        )
        if curve.kept is not None:
            kept = curve.epochs == curve.kept
            axes.scatter(curve.epochs[kept], curve.elbo[kept], s=50, facecolors="none", edgecolors=colour, zorder=3)
    sets = {curve.images for curve in curves}
    names = [curve.name if len(sets) == 1 else f"{curve.name} ({curve.images})" for curve in curves]
    artists = list(axes.lines)
    if axes.collections:
        artists.append(Line2D([], [], linestyle="none", marker="o", markersize=7, mfc="none", mec="black"))
        names.append("epoch whose weights were kept")
    legend(axes, artists, names, most=LONGEST, loc="center left", bbox_to_anchor=(1, 0.5))
    of = f" of the {sets.pop()} images" if len(sets) == 1 else ""
    note = cut_first_epochs(axes, [(curve.epochs, curve.elbo) for curve in curves])
    title = f"ELBO{of} by epoch; higher is better\n{note}".rstrip()
    axes.set(title=title, xlabel="epoch", ylabel="nats per image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure
