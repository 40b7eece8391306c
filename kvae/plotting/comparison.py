"""A figure of several runs. Like `drawing`, this module knows arrays and no models."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kvae.internal.errors import UserError
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
    axes.set(title=f"ELBO{of} by epoch; higher is better", xlabel="epoch", ylabel="nats per image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if _cut_first_epochs(axes, curves):
        axes.set_xlabel("epoch (the low values of the first epochs are cut off)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure


def _cut_first_epochs(axes: Any, curves: Sequence[Curve]) -> bool:
    """Limits the axis to the values after the first twentieth of each curve; returns whether any are cut off.

    The ELBO of the first epochs is so low that the differences of the later ones could not be seen.
    """
    later = np.concatenate([curve.elbo[len(curve.elbo) // 20 :] for curve in curves])
    later = later[np.isfinite(later)]
    if later.size < 2 or np.ptp(later) == 0:
        return False
    margin = 0.05 * np.ptp(later)
    axes.set_ylim(later.min() - margin, later.max() + margin)
    return bool(np.nanmin(np.concatenate([curve.elbo for curve in curves])) < later.min() - margin)
